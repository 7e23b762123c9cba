package signature

import (
	"bufio"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"rutter.dev/rutter/runtime/diag"
)

// Signers are those whose signatures for one namespace are trusted.
type Signers struct {
	namespace string
	keys      []signer
}

// signer is one line of an allowed signers file.
type signer struct {
	who           string
	key           ssh.PublicKey
	after, before time.Time // when it is valid; zero for no bound
}

// ParseSigners reads an allowed signers file; name stands for it in errors, which
// are all of its mistakes at once. A line that is for other namespaces only is
// passed over, as ssh-keygen does, and one that demands what is not understood here
// is an error: a key must not be trusted for more than it says.
func ParseSigners(name, text, namespace string) (*Signers, error) {
	out := &Signers{namespace: namespace}
	var errs []error
	sc := bufio.NewScanner(strings.NewReader(text))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		s, ours, err := parseSigner(line, namespace)
		if err != nil {
			errs = append(errs, &diag.Error{Code: diag.Usage, Pos: diag.Pos{File: name, Line: n}, Problem: err.Error(), Expect: "NAME [namespaces=…,valid-after=…,valid-before=…] KEYTYPE KEY"})
			continue
		}
		if ours {
			out.keys = append(out.keys, s)
		}
	}
	if err := sc.Err(); err != nil {
		errs = append(errs, &diag.Error{Code: diag.Usage, Pos: diag.Pos{File: name}, Problem: err.Error()})
	}
	if len(out.keys) == 0 && len(errs) == 0 {
		errs = append(errs, &diag.Error{Code: diag.Usage, Pos: diag.Pos{File: name}, Problem: "names no signer", Expect: fmt.Sprintf("a key at least that is for %s, or for any namespace", namespace)})
	}
	return out, errors.Join(errs...)
}

func parseSigner(line, namespace string) (s signer, ours bool, err error) {
	who, rest, _ := strings.Cut(line, " ")
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(rest))
	if err != nil {
		return signer{}, false, errors.New("is no line of an allowed signers file")
	}
	s, ours = signer{who: who, key: key}, true
	for _, o := range options {
		name, v, _ := strings.Cut(o, "=")
		v = strings.Trim(v, `"`)
		switch strings.ToLower(name) {
		case "namespaces":
			ours = slices.ContainsFunc(strings.Split(v, ","), func(s string) bool { return strings.TrimSpace(s) == namespace })
		case "valid-after":
			s.after, err = parseTime(v)
		case "valid-before":
			s.before, err = parseTime(v)
		default:
			err = fmt.Errorf("option %q is not known", name)
		}
		if err != nil {
			return signer{}, false, err
		}
	}
	return s, ours, nil
}

// parseTime reads YYYYMMDD[HHMM[SS]][Z]; it is in UTC here, where ssh without Z
// means the zone of the machine.
func parseTime(s string) (time.Time, error) {
	s = strings.TrimSuffix(s, "Z")
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time such as 20261231", s)
}
