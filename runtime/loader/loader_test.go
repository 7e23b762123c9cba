package loader

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

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

func TestLibraries(t *testing.T) {
	sources := Sources{
		Root: fstest.MapFS{
			"r.star":    {Data: []byte("load(\"@ops//x.star\", \"x\")\nr = x\n")},
			"deep.star": {Data: []byte("load(\"@deep//y.star\", \"y\")\n")},
			"near.star": {Data: []byte("load(\"@opz//x.star\", \"x\")\n")},
			"miss.star": {Data: []byte("load(\"@ops//z/x.star\", \"x\")\n")},
		},
		Libraries: map[string]fs.FS{
			"ops":  fstest.MapFS{"x.star": {Data: []byte("load(\"//lib/z.star\", \"z\")\nload(\"@deep//y.star\", \"y\")\nx = z + y\n")}, "lib/z.star": {Data: []byte("z = 1\n")}},
			"deep": fstest.MapFS{"y.star": {Data: []byte("y = 1\n")}},
		},
		Sees: map[string][]string{"": {"ops"}, "ops": {"deep"}},
	}
	g, err := New(sources, "//r.star", nil, nil).Collect(starlark.StringDict{})
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, m := range g.Order {
		order = append(order, m.Label)
	}
	if got := strings.Join(order, " "); got != "@ops//lib/z.star @deep//y.star @ops//x.star //r.star" {
		t.Errorf("got order %s", got)
	}
	// What was pinned loads without the sources.
	if _, err := FromBundle(g.Bundle, nil).Collect(starlark.StringDict{}); err != nil {
		t.Errorf("from the bundle: %v", err)
	}
	for entry, want := range map[string]string{
		"//deep.star": `deep.star:1:6: there is no library "@deep"; rutter.mod.star declares @ops, and @stdlib comes with rutter`,
		"//near.star": `near.star:1:6: there is no library "@opz"; rutter.mod.star declares @ops, and @stdlib comes with rutter; did you mean "@ops"?`,
		"//miss.star": `miss.star:1:6: @ops//z/x.star does not exist in @ops; did you mean "@ops//x.star"?`,
	} {
		if _, err := New(sources, entry, nil, nil).Collect(starlark.StringDict{}); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", entry, err, want)
		}
	}
	if g, err := New(sources, LibraryLabel("ops", "x.star"), nil, nil).Collect(starlark.StringDict{}); err != nil || g.Entry.Label != "@ops//x.star" {
		t.Errorf("a dependency's own file as the entry: got %v, %v", g, err)
	}
}

func FuzzResolve(f *testing.F) {
	for _, s := range []string{"./a.star", "../a.star", "//a/../b.star", "@stdlib//x.star", "@stdlib//../x.star", "@ops//x.star", "@ops//../x.star", "@Ops//x.star", "@//x.star", "@a--b//x.star", "/etc/a.star", `\a.star`} {
		f.Add("//lib/r.star", s)
		f.Add("@stdlib//r.star", s)
		f.Add("@ops//lib/r.star", s)
	}
	f.Fuzz(func(t *testing.T, from, module string) {
		if from != "//lib/r.star" && from != "@stdlib//r.star" && from != "@ops//lib/r.star" {
			return
		}
		label, err := Resolve(from, module)
		if err != nil {
			return
		}
		library, file := splitLabel(label)
		if (library != "" && !IsName(strings.TrimPrefix(library, "@"))) || strings.HasPrefix(file, "/") || !strings.HasSuffix(file, ".star") ||
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
