package lockfile

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestEachWordKeepsToItsLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), Name)
	set := func(word string, lines ...string) {
		t.Helper()
		if err := Update(path, word, func([]string) []string { return lines }); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Lines(path, "toolchain"); err != nil || got != nil {
		t.Errorf("of no file: got %v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("# ours\n\ntoolchain b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	set("dependency", "dependency z", "dependency y")
	set("toolchain", "toolchain c", "toolchain a")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := "# ours\n\ndependency y\ndependency z\ntoolchain a\ntoolchain c\n"; string(b) != want {
		t.Errorf("got\n%swant\n%s", b, want)
	}
	got, err := Lines(path, "dependency")
	if err != nil || len(got) != 2 || got[1] != (Line{"dependency z", 4}) {
		t.Errorf("got %v, %v", got, err)
	}
	set("dependency")
	set("toolchain")
	if b, err = os.ReadFile(path); err != nil || string(b) != "# ours\n\n" {
		t.Errorf("got %q, %v", b, err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestNoFile(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, []byte(strings.Repeat("x", maxFile+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{big, pipe, dir} {
		if _, err := Lines(path, "toolchain"); err == nil {
			t.Errorf("%s was read", path)
		}
		if err := Update(path, "toolchain", func(old []string) []string { return old }); err == nil {
			t.Errorf("%s was written", path)
		}
	}
}
