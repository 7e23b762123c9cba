package value

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// Version is a semantic version. It orders by precedence (1.28.10 is newer than
// 1.28.9) and prints as it was written. The zero Version is "not given".
type Version struct {
	v *semver.Version
}

var (
	_ starlark.HasAttrs   = Version{}
	_ starlark.Comparable = Version{}
)

// ParseVersion takes "1.31.0" or "v1.31.0", with pre-release and build where
// there are any; all three numbers are needed.
func ParseVersion(s string) (Version, error) {
	v, err := semver.StrictNewVersion(strings.TrimPrefix(s, "v"))
	if err != nil {
		return Version{}, fmt.Errorf("got %q, want a version such as \"1.31.0\"", s)
	}
	return Version{v}, nil
}

// IsZero reports whether the version was not given.
func (v Version) IsZero() bool { return v.v == nil }

// Semver is the version for Masterminds/semver; nil when not given.
func (v Version) Semver() *semver.Version { return v.v }

// Compare is -1, 0 or 1; the zero Version is the smallest.
func (v Version) Compare(w Version) int {
	switch {
	case v.v == nil && w.v == nil:
		return 0
	case v.v == nil:
		return -1
	case w.v == nil:
		return 1
	}
	return v.v.Compare(w.v)
}

// String is the version without a leading v; "" when not given.
func (v Version) String() string {
	if v.v == nil {
		return ""
	}
	return v.v.String()
}

// MarshalText writes the version as a string in JSON.
func (v Version) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// MarshalJSON is what json.encode gives.
func (v Version) MarshalJSON() ([]byte, error) { return appendString(nil, v.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (v *Version) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*v = Version{}
		return nil
	}
	*v, err = ParseVersion(string(b))
	return err
}

// Type implements starlark.Value.
func (v Version) Type() string { return "version" }

// Freeze implements starlark.Value.
func (v Version) Freeze() {}

// Truth is false when not given.
func (v Version) Truth() starlark.Bool { return v.v != nil }

// Hash implements starlark.Value.
func (v Version) Hash() (uint32, error) { return hashString(v.String()), nil }

// CompareSameType orders versions by precedence.
func (v Version) CompareSameType(op syntax.Token, y starlark.Value, _ int) (bool, error) {
	return compareInts(op, v.Compare(y.(Version)))
}

// Attr gives major, minor, patch and prerelease.
func (v Version) Attr(name string) (starlark.Value, error) {
	if v.v == nil {
		return nil, nil
	}
	switch name {
	case "major":
		return starlark.MakeUint64(v.v.Major()), nil
	case "minor":
		return starlark.MakeUint64(v.v.Minor()), nil
	case "patch":
		return starlark.MakeUint64(v.v.Patch()), nil
	case "prerelease":
		return starlark.String(v.v.Prerelease()), nil
	}
	return nil, nil
}

// AttrNames implements starlark.HasAttrs.
func (v Version) AttrNames() []string { return []string{"major", "minor", "patch", "prerelease"} }

// ParseDuration takes what time.ParseDuration takes, and days: "10m", "1h30m",
// "2d", "1d12h". Negative durations and numbers without a unit are refused,
// but for "0".
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("got %q, want a duration such as \"30s\", \"10m\", \"1h30m\" or \"2d\"", s)
	rest, days := s, time.Duration(0)
	if before, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(before, 10, 16)
		if err != nil {
			return 0, bad
		}
		days, rest = time.Duration(n)*24*time.Hour, after
		if rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || strings.ContainsAny(rest, "+-") || d+days < days {
		return 0, bad
	}
	return d + days, nil
}

// Quantity is a count or a share: 3, or "25%". The zero Quantity is 0.
type Quantity struct {
	N       int
	Percent bool
}

// ParseQuantity takes "25%" (0 to 100) or "3".
func ParseQuantity(s string) (Quantity, error) {
	digits, percent := strings.CutSuffix(s, "%")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || digits[0] == '+' || percent && n > 100 {
		return Quantity{}, fmt.Errorf("got %q, want a count such as 3 or a share such as \"25%%\"", s)
	}
	return Quantity{N: n, Percent: percent}, nil
}

// Of is the quantity out of total; shares round up when up is set, else down.
func (q Quantity) Of(total int, up bool) int {
	if !q.Percent {
		return q.N
	}
	n := q.N * total
	if up {
		n += 99
	}
	return n / 100
}

// String is "25%" or "3".
func (q Quantity) String() string {
	if q.Percent {
		return strconv.Itoa(q.N) + "%"
	}
	return strconv.Itoa(q.N)
}

// MarshalText writes the quantity as a string in JSON.
func (q Quantity) MarshalText() ([]byte, error) { return []byte(q.String()), nil }

// MarshalJSON is what json.encode gives.
func (q Quantity) MarshalJSON() ([]byte, error) { return appendString(nil, q.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (q *Quantity) UnmarshalText(b []byte) (err error) {
	*q, err = ParseQuantity(string(b))
	return err
}

// Type implements starlark.Value.
func (q Quantity) Type() string { return "quantity" }

// Freeze implements starlark.Value.
func (q Quantity) Freeze() {}

// Truth is false for zero.
func (q Quantity) Truth() starlark.Bool { return q.N != 0 }

// Hash implements starlark.Value.
func (q Quantity) Hash() (uint32, error) { return hashString(q.String()), nil }

const secretText = "<secret>"

// Secret is a string that prints, encodes and formats as "<secret>". Only Go
// code that takes a *value.Secret argument can see what it holds.
type Secret struct{ s string }

var _ starlark.Comparable = (*Secret)(nil)

// NewSecret hides s.
func NewSecret(s string) *Secret { return &Secret{s} }

// Reveal is the hidden string; it must not reach a terminal, log or journal.
func (s *Secret) Reveal() string { return s.s }

// String hides the material.
func (s *Secret) String() string { return secretText }

// GoString hides the material from %#v too.
func (s *Secret) GoString() string { return secretText }

// MarshalJSON hides the material.
func (s *Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + secretText + `"`), nil }

// Type implements starlark.Value.
func (s *Secret) Type() string { return "secret" }

// Freeze implements starlark.Value.
func (s *Secret) Freeze() {}

// Truth is false when the secret is empty.
func (s *Secret) Truth() starlark.Bool { return s.s != "" }

// Hash implements starlark.Value; a hash would tell about the material.
func (s *Secret) Hash() (uint32, error) { return 0, errors.New("unhashable type: secret") }

// CompareSameType refuses: to learn that two secrets are equal is to learn one of
// them, if the other was made for it.
func (s *Secret) CompareSameType(syntax.Token, starlark.Value, int) (bool, error) {
	return false, errors.New("secrets can't be compared")
}

func hashString(s string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(s)) // a hash never fails to write
	return h.Sum32()
}

func compareInts(op syntax.Token, c int) (bool, error) {
	switch op {
	case syntax.EQL:
		return c == 0, nil
	case syntax.NEQ:
		return c != 0, nil
	case syntax.LT:
		return c < 0, nil
	case syntax.LE:
		return c <= 0, nil
	case syntax.GT:
		return c > 0, nil
	case syntax.GE:
		return c >= 0, nil
	}
	return false, fmt.Errorf("unknown comparison %s", op)
}
