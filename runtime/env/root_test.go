package env

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestRootFS(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "d", "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"out": "/etc/passwd", "zero": "/dev/zero", "in": "d/f"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := root.Close(); err != nil {
			t.Error(err)
		}
	}()
	fsys := RootFS(root)
	for _, name := range []string{"d/f", "in"} {
		if b, err := fs.ReadFile(fsys, name); err != nil || string(b) != "x" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if got, err := fs.ReadDir(fsys, "d"); err != nil || len(got) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := fs.ReadFile(fsys, "pipe"); !errors.Is(err, ErrNoFile) {
		t.Errorf("the pipe: %v", err)
	}
	for _, name := range []string{"out", "zero", "../x", "/d/f", ""} {
		if b, err := fs.ReadFile(fsys, name); err == nil {
			t.Errorf("%q: read %q", name, b)
		}
	}
}
