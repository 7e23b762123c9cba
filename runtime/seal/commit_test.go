package seal

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"testing/iotest"
)

func TestCommit(t *testing.T) {
	a, err := Commit("hunter2", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Commit("hunter2", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if a == b {
		t.Errorf("two of the same value are equal: %s", a)
	}
	if strings.Contains(a, "hunter2") {
		t.Errorf("%s tells the secret", a)
	}
	for secret, want := range map[string]bool{"hunter2": true, "hunter3": false, "": false, "hunter2\n": false} {
		if got, err := Committed(a, secret); err != nil || got != want {
			t.Errorf("Committed of %q: %v, %v, want %v", secret, got, err, want)
		}
	}
	if _, err := Commit("x", iotest.ErrReader(errors.New("no entropy"))); err == nil {
		t.Error("a salt without randomness")
	}
}

func TestCommittedRefuses(t *testing.T) {
	good, err := Commit("x", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Split(good, ":")
	for _, bad := range []string{
		"", "x", good + ":", strings.Replace(good, "scrypt", "plain", 1),
		strings.Join([]string{f[0], "40", f[2], f[3]}, ":"), // would take 8 TiB
		strings.Join([]string{f[0], "0", f[2], f[3]}, ":"), strings.Join([]string{f[0], "x", f[2], f[3]}, ":"),
		strings.Join([]string{f[0], f[1], "", f[3]}, ":"), strings.Join([]string{f[0], f[1], f[2], ""}, ":"),
		strings.Join([]string{f[0], f[1], "!", f[3]}, ":"),
	} {
		if ok, err := Committed(bad, "x"); ok || !errors.Is(err, ErrCommitment) {
			t.Errorf("%q: %v, %v", bad, ok, err)
		}
	}
}
