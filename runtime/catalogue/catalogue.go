// Package catalogue finds runbooks by name and version. A runbook NAME is the file
// NAME.star; other versions of it stand beside it as NAME@VERSION.star, so that what
// ran for a pair of Istio versions stays while its successor is there.
package catalogue

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"rutter.dev/rutter/runtime/diag"
)

// Ref is how a runbook is asked for: "istio/in-place", "istio/in-place@1.2".
type Ref struct {
	Path    string
	Version string // "1", "1.2" or "1.2.3"; "" for the one that NAME.star is, else the highest
}

// Parse reads a name, with or without the file's ending.
func Parse(name string) Ref {
	name = strings.TrimSuffix(name, ".star")
	at := strings.LastIndexByte(name, '@')
	if at <= strings.LastIndexByte(name, '/') {
		return Ref{Path: name}
	}
	return Ref{name[:at], name[at+1:]}
}

// String is the name as it is asked for.
func (r Ref) String() string {
	if r.Version == "" {
		return r.Path
	}
	return r.Path + "@" + r.Version
}

// IsRunbook reports whether a file can hold a runbook: Starlark that is no test.
func IsRunbook(file string) bool {
	return strings.HasSuffix(file, ".star") && !strings.HasSuffix(file, "_test.star") && path.Base(file) != "rutter.mod.star"
}

// Declares reports whether a module calls runbook(…) at its top level, written as
// runbooks are.
func Declares(source string) bool {
	return strings.HasPrefix(source, "runbook(") || strings.Contains(source, "\nrunbook(")
}

// Files are those of names that hold a version of the runbook.
func (r Ref) Files(names []string) []string {
	var out []string
	for _, name := range names {
		if IsRunbook(name) && Parse(name).Path == path.Clean(r.Path) {
			out = append(out, name)
		}
	}
	return out
}

// Edition is one version of a runbook.
type Edition struct {
	File    string
	Version string // that it declares
}

// Compare orders editions by name, that of NAME.star first and the others from the
// highest version down.
func Compare(x, y Edition) int {
	a, b := Parse(x.File), Parse(y.File)
	switch {
	case a.Path != b.Path:
		return strings.Compare(a.Path, b.Path)
	case (a.Version == "") != (b.Version == ""):
		return strings.Compare(a.Version, b.Version)
	}
	v, errV := semver.NewVersion(x.Version)
	w, errW := semver.NewVersion(y.Version)
	if errV != nil || errW != nil {
		return strings.Compare(x.File, y.File)
	}
	return w.Compare(v)
}

// Agrees refuses an edition whose file says another version than it declares.
func (e Edition) Agrees() error {
	if number := Parse(e.File).Version; number != "" && !within(number, e.Version) {
		return &diag.Error{
			Code: diag.Usage, Pos: diag.Pos{File: e.File}, Problem: fmt.Sprintf("declares version %s", e.Version), Expect: number + ", as its name says", Changed: "nothing",
		}
	}
	return nil
}

// within reports whether a version is one of those that a beginning of a version
// stands for.
func within(beginning, version string) bool {
	rest, ok := strings.CutPrefix(version, beginning)
	return ok && (rest == "" || rest[0] == '.' && strings.Count(beginning, ".") < 2)
}

// Pick is the highest edition that the version stands for.
func (r Ref) Pick(editions []Edition) (Edition, error) {
	var best *semver.Version
	var out Edition
	var have []string
	for _, e := range editions {
		v, err := semver.NewVersion(e.Version)
		if err != nil {
			return out, fmt.Errorf("%s: version %q: %w", e.File, e.Version, err)
		}
		have = append(have, e.Version)
		if (r.Version == "" || within(r.Version, e.Version)) && (best == nil || v.GreaterThan(best)) {
			best, out = v, e
		}
	}
	if best == nil {
		slices.Sort(have)
		return out, &diag.Error{Code: diag.Usage, Subject: r.String(), Problem: "there is no such version of the runbook", Expect: "one of " + strings.Join(have, ", "), Changed: "nothing", Next: "rutter runbooks"}
	}
	return out, nil
}
