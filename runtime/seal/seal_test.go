package seal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestSealRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Seal([]byte("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("hunter2")) {
		t.Error("sealed text holds the plain one")
	}
	again, err := Open(dir) // another process, later
	if err != nil {
		t.Fatal(err)
	}
	plain, err := again.Open(sealed)
	if err != nil || string(plain) != "hunter2" {
		t.Errorf("got %q, %v", plain, err)
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := again.Open(sealed); !errors.Is(err, ErrKey) {
		t.Errorf("changed text: got %v, want ErrKey", err)
	}
}

// TestTo: each of two machines opens what one of them sealed to both; a third does not.
func TestTo(t *testing.T) {
	var s [3]*Sealer
	for i := range s {
		var err error
		if s[i], err = Open(t.TempDir()); err != nil {
			t.Fatal(err)
		}
	}
	both, err := s[0].To(s[1].Recipient())
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := both.Seal([]byte("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, true, false} {
		if plain, err := s[i].Open(sealed); (err == nil && string(plain) == "hunter2") != want {
			t.Errorf("machine %d: got %q, %v", i, plain, err)
		}
	}
	if both.Recipient() != s[0].Recipient() {
		t.Error("the key of the machine changed")
	}
	if _, err := s[0].To("age1nothing"); !errors.Is(err, ErrKey) {
		t.Errorf("no recipient: got %v, want ErrKey", err)
	}
}

func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, KeyFile)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrKey) {
		t.Errorf("readable by others: got %v, want ErrKey", err)
	}
	if err := os.WriteFile(path, []byte("AGE-SECRET-KEY-1NOTAKEY\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrKey) || bytes.Contains([]byte(err.Error()), []byte("NOTAKEY")) {
		t.Errorf("damaged: got %v, want ErrKey without the key's text", err)
	}
}

// Another process of the same state folder makes the same mark; another key, another
// text and another about make another.
func TestMark(t *testing.T) {
	dir := t.TempDir()
	mark := func(dir, about, text string) string {
		t.Helper()
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if s, err = s.To(s.Recipient()); err != nil {
			t.Fatal(err)
		}
		return s.Mark(about, text)
	}
	own := mark(dir, "a", "bc")
	if again := mark(dir, "a", "bc"); again != own {
		t.Errorf("got %s, then %s", own, again)
	}
	for name, other := range map[string]string{"key": mark(t.TempDir(), "a", "bc"), "text": mark(dir, "a", "bd"), "about": mark(dir, "ab", "c")} {
		if other == own {
			t.Errorf("another %s has the same mark", name)
		}
	}
}
