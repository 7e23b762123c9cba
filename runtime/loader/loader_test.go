package loader

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.starlark.net/starlark"
)

func write(t *testing.T, dir, name, src string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
}

func collect(t *testing.T, root, entry string) (*Graph, error) {
	t.Helper()
	l, err := Dir(root, entry, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	return l.Collect(starlark.StringDict{})
}

func TestSymlinkOutOfRoot(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	write(t, outside, "secret.star", "x = 1\n")
	write(t, root, "lib/in.star", "x = 1\n")
	write(t, root, "r.star", "load(\"./lib/link.star\", \"x\")\n")
	link := filepath.Join(root, "lib", "link.star")
	if err := os.Symlink(filepath.Join(outside, "secret.star"), link); err != nil {
		t.Fatal(err)
	}
	_, err := collect(t, root, "r.star")
	if want := "r.star:1:6: lib/link.star leads outside the runbook root"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("in.star", link); err != nil {
		t.Fatal(err)
	}
	if g, err := collect(t, root, "r.star"); err != nil || len(g.Order) != 2 {
		t.Errorf("a link within the root: got %v, %v", g, err)
	}
}

func TestOrderAndDigest(t *testing.T) {
	root := t.TempDir()
	write(t, root, "r.star", "load(\"./b.star\", \"b\")\nload(\"./a.star\", \"a\")\nr = a + b\n")
	write(t, root, "a.star", "a = 1\n")
	write(t, root, "b.star", "load(\"./a.star\", \"a\")\nb = a\n")
	g, err := collect(t, root, "./r.star")
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, m := range g.Order {
		order = append(order, m.Label)
	}
	if got := strings.Join(order, " "); got != "//a.star //b.star //r.star" {
		t.Errorf("got order %s", got)
	}
	before := g.Bundle.Digest()
	g.Bundle.Files["//a.star"] += "\n"
	if g.Bundle.Digest() == before {
		t.Error("the digest does not see a changed file")
	}
}

func TestUnreadable(t *testing.T) {
	root := t.TempDir()
	write(t, root, "in-place.star", "x = 1\n")
	_, err := collect(t, root, "inplace.star")
	if want := `inplace.star: does not exist in the runbook root; did you mean "//in-place.star"?`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	write(t, root, "big.star", strings.Repeat("#", maxFile+1))
	_, err = collect(t, root, "big.star")
	if want := "big.star: cannot be read: is larger than 1048576 bytes"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := Dir(filepath.Join(root, "none"), "r.star", nil, nil); err == nil {
		t.Error("a root that is not there was opened")
	}
}

func FuzzResolve(f *testing.F) {
	for _, s := range []string{"./a.star", "../a.star", "//a/../b.star", "@stdlib//x.star", "@stdlib//../x.star", "/etc/a.star", `\a.star`} {
		f.Add("//lib/r.star", s)
		f.Add("@stdlib//r.star", s)
	}
	f.Fuzz(func(t *testing.T, from, module string) {
		if from != "//lib/r.star" && from != "@stdlib//r.star" {
			return
		}
		label, err := Resolve(from, module)
		if err != nil {
			return
		}
		library, file := splitLabel(label)
		if (library != "" && library != stdlib) || strings.HasPrefix(file, "/") || !strings.HasSuffix(file, ".star") ||
			file == ".." || strings.HasPrefix(file, "../") || strings.Contains(file, "/../") {
			t.Errorf("%q from %q resolved to %q", module, from, label)
		}
	})
}

// TestCompileRecovers: a source that the compiler panics on is an error of it.
func TestCompileRecovers(t *testing.T) {
	m, err := compile("//x.star", "x = y", func(name string) bool {
		if name == "y" {
			panic("no such place")
		}
		return false
	})
	if m != nil || err == nil || !strings.Contains(err.Error(), "x.star: can't be compiled: no such place") {
		t.Errorf("got %v, %v, want the panic as an error of x.star", m, err)
	}
}
