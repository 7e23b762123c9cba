package env

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	if err := os.WriteFile(name, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadFile(t.Context(), name, 5); err != nil || string(b) != "12345" {
		t.Errorf("got %q, %v", b, err)
	}
	if _, err := ReadFile(t.Context(), name, 4); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want %v", err, ErrTooLarge)
	}
	for _, bad := range []string{dir, filepath.Join(dir, "none"), "/dev/zero"} {
		if _, err := ReadFile(t.Context(), bad, 5); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

func TestReadPipe(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadFile(t.Context(), name, 5); err != nil || len(b) != 0 { // to open it in the usual way would never end
		t.Errorf("nobody writes: got %q, %v", b, err)
	}
	w, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ReadFile(ctx, name, 5); !errors.Is(err, context.Canceled) {
		t.Errorf("the writer is silent: got %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReadAll(t *testing.T) {
	if b, err := ReadAll(t.Context(), strings.NewReader("abc"), 3); err != nil || string(b) != "abc" {
		t.Errorf("got %q, %v", b, err)
	}
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ReadAll(ctx, r, 3); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// A file is replaced as a whole, or is what it was; nothing else is left.
func TestReplaceFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	for _, text := range []string{"one", "two"} {
		if err := ReplaceFile(name, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(name)
		if err != nil || string(b) != text {
			t.Errorf("got %q, %v", b, err)
		}
	}
	if st, err := os.Stat(name); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("got %v, %v", st, err)
	}
	full := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(full, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := ReplaceFile(full, nil, 0o600); err == nil {
		t.Error("a folder was replaced by a file")
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 2 {
		t.Errorf("left are %v, %v", all, err)
	}
}
