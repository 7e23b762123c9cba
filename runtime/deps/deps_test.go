package deps

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/diag"
)

// world is a repository with a module "main" in it, beside others.
type world struct {
	t    *testing.T
	dir  string // of the repository
	home string
	runs int // of git
	env  map[string]string
	m    *Manager
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), home: t.TempDir()}
	w.env = map[string]string{"PATH": os.Getenv("PATH"), "HOME": w.home}
	w.m = New(Options{
		Cache: filepath.Join(t.TempDir(), "cache"), API: 1, Rutter: "1.2.0", Getenv: func(k string) string { return w.env[k] },
		Git: func(ctx context.Context, c Command) ([]byte, error) { w.runs++; return Run(ctx, c) },
	})
	return w
}

// offline makes every use of git a failure.
func (w *world) offline() {
	w.m.o.Git = func(context.Context, Command) ([]byte, error) { return nil, errors.New("there is no network") }
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *world) write(files map[string]string) { w.t.Helper(); write(w.t, w.dir, files) }

func (w *world) module() *Module {
	w.t.Helper()
	mod, err := Find(w.dir, w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	return mod
}

func (w *world) lock() Lock {
	w.t.Helper()
	_, lock, err := w.m.LockAll(w.t.Context(), w.module())
	if err != nil {
		w.t.Fatal(err)
	}
	return lock
}

// load opens the module and collects up.star.
func (w *world) load() (map[string]string, error) {
	w.t.Helper()
	mod, err := Find(w.dir, w.dir)
	if err != nil {
		return nil, err
	}
	o, err := w.m.Open(w.t.Context(), mod)
	if err != nil {
		return nil, err
	}
	l, err := o.Loader("//up.star", nil, nil)
	if err != nil {
		return nil, err
	}
	g, err := l.Collect(starlark.StringDict{})
	if err = errors.Join(err, l.Close()); err != nil {
		return nil, err
	}
	return g.Bundle.Files, nil
}

// refused expects an error of exit code 2 that says all of these.
func (w *world) refused(err error, want ...string) {
	w.t.Helper()
	if err == nil || diag.ExitCode(err) != diag.Usage {
		w.t.Fatalf("got %v, want a usage error", err)
	}
	for _, text := range want {
		if !strings.Contains(err.Error(), text) {
			w.t.Errorf("got %v, want it to say %q", err, text)
		}
	}
}

// gitRepo is a git repository with commits.
type gitRepo struct {
	t   *testing.T
	dir string
}

func newRepo(t *testing.T) *gitRepo {
	t.Helper()
	r := &gitRepo{t, t.TempDir()}
	r.git("init", "-q", "-b", "main")
	return r
}

func (r *gitRepo) url() string { return "file://" + r.dir }

func (r *gitRepo) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "protocol.file.allow=always", "-c", "core.fsync=none", "-c", "gc.auto=0", "-c", "maintenance.auto=false"}, args...)...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull)
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit replaces the files and commits them.
func (r *gitRepo) commit(files map[string]string) string {
	r.t.Helper()
	write(r.t, r.dir, files)
	r.git("add", "-A")
	r.git("commit", "-qm", "x", "--allow-empty")
	return r.git("rev-parse", "HEAD")
}

// version commits a module of one file at a version, with more declarations.
func (r *gitRepo) version(name, version string, more ...string) string {
	r.t.Helper()
	return r.commit(map[string]string{
		"rutter.mod.star": module(name, version, more...),
		name + ".star":    fmt.Sprintf("v = %q\n", version),
	})
}

func module(name, version string, more ...string) string {
	return fmt.Sprintf("module(name = %q, version = %q)\n", name, version) + strings.Join(more, "\n") + "\n"
}

func needs(name, version, url, commit string) string {
	return fmt.Sprintf("dependency(%q, version = %q, git = %q, commit = %q)", name, version, url, commit)
}

func TestGitDependency(t *testing.T) {
	w, r := newWorld(t), newRepo(t)
	c := r.commit(map[string]string{
		"rutter.mod.star":       module("ops", "1.4.0"),
		"lib/a.star":            "load(\"//lib/b.star\", \"b\")\na = b\n",
		"lib/b.star":            "b = 1\n",
		"lib/a_test.star":       "no module",
		"testdata/x.star":       "no module",
		"inner/x.star":          "another module",
		"inner/rutter.mod.star": module("inner", "0.1.0"),
		"README.md":             "nothing",
	})
	r.version("ops", "1.5.0") // what comes later changes nothing
	w.write(map[string]string{
		"rutter.mod.star": module("main", "1.0.0", needs("ops", "1.4.0", r.url(), c)),
		"up.star":         "load(\"@ops//lib/a.star\", \"a\")\nx = a\n",
		"rutter.lock":     "toolchain istio-1.30.3-linux-amd64.tar.gz sha256:" + strings.Repeat("0", 64) + "\n",
	})
	_, err := w.load()
	w.refused(err, "rutter.mod.star:2:1: dependency ops is not in rutter.lock")
	if w.runs != 0 {
		t.Errorf("opening ran git %d times", w.runs)
	}
	lock := w.lock()
	if l := lock["ops"]; l.Version.String() != "1.4.0" || l.Source.Commit != c {
		t.Errorf("locked %v", lock)
	}
	text, err := os.ReadFile(filepath.Join(w.dir, "rutter.lock"))
	if err != nil || !strings.Contains(string(text), "toolchain istio-1.30.3") || !strings.Contains(string(text), "dependency ops 1.4.0 "+lock["ops"].Digest+" git "+r.url()+" "+c+"\n") {
		t.Errorf("the lock file: %s, %v", text, err)
	}
	w.offline()
	files, err := w.load()
	if err != nil || len(files) != 3 || files["@ops//lib/b.star"] != "b = 1\n" {
		t.Fatalf("loaded %v, %v", files, err)
	}
	if again := w.lock(); again["ops"].line() != lock["ops"].line() { // without a network
		t.Errorf("locked again: %v", again)
	}
	// What is in the cache is not believed.
	cached := filepath.Join(w.m.cachePath(lock["ops"].Digest), "lib", "b.star")
	if err := os.WriteFile(cached, []byte("b = 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = w.load()
	w.refused(err, "is not what rutter.lock has: its content is sha256:", "expected "+lock["ops"].Digest)
	if _, err := w.m.Fetch(t.Context(), w.module()); err == nil || !strings.Contains(err.Error(), "there is no network") {
		t.Errorf("fetched: %v", err)
	}
	w.m.o.Git = Run
	if got, err := w.m.Fetch(t.Context(), w.module()); err != nil || len(got) != 1 {
		t.Errorf("fetched %v, %v", got, err)
	}
	if _, err := w.load(); err != nil {
		t.Error(err)
	}
}

func TestChangedHashRefuses(t *testing.T) {
	w, r := newWorld(t), newRepo(t)
	c := r.version("ops", "1.4.0")
	w.write(map[string]string{
		"rutter.mod.star":        module("main", "1.0.0", needs("ops", "1.4.0", r.url(), c), `dependency("shared", path = "shared")`),
		"up.star":                "load(\"@ops//ops.star\", \"v\")\nload(\"@shared//s.star\", \"s\")\n",
		"shared/rutter.mod.star": module("shared", "0.1.0"),
		"shared/s.star":          "s = 1\n",
	})
	lock := w.lock()
	// The folder changes.
	w.write(map[string]string{"shared/s.star": "s = 2\n"})
	_, err := w.load()
	w.refused(err, "rutter.mod.star:3:1: dependency shared 0.1.0: shared is not what rutter.lock has")
	w.lock()
	if _, err := w.load(); err != nil {
		t.Error(err)
	}
	// The lock names another digest than what the repository has.
	wrong := "sha256:" + strings.Repeat("1", 64)
	lockPath := filepath.Join(w.dir, "rutter.lock")
	text, err := os.ReadFile(lockPath)
	if err != nil {
		t.Fatal(err)
	}
	w.write(map[string]string{"rutter.lock": strings.Replace(string(text), lock["ops"].Digest, wrong, 1)})
	_, err = w.load()
	w.refused(err, "dependency ops 1.4.0: is not on this machine")
	_, err = w.m.Fetch(t.Context(), w.module())
	w.refused(err, r.url()+" at "+c+" is not what rutter.lock has", "expected "+wrong)
	if _, _, err = w.m.LockAll(t.Context(), w.module()); err == nil {
		t.Error("a changed hash was locked")
	}
	// The same version at another commit, with other content.
	w.write(map[string]string{"rutter.lock": string(text)})
	other := r.commit(map[string]string{"ops.star": "v = \"changed\"\n"})
	w.write(map[string]string{"rutter.mod.star": module("main", "1.0.0", needs("ops", "1.4.0", r.url(), other), `dependency("shared", path = "shared")`)})
	_, err = w.load()
	w.refused(err, "is asked for at commit "+other+", and rutter.lock has "+c)
	_, _, err = w.m.LockAll(t.Context(), w.module())
	w.refused(err, "dependency ops 1.4.0", "a version's content does not change")
}

func TestMinimumVersionSelection(t *testing.T) {
	w := newWorld(t)
	base, a, b := newRepo(t), newRepo(t), newRepo(t)
	b10 := base.version("base", "1.0.0")
	b12 := base.version("base", "1.2.0")
	b13 := base.version("base", "1.3.0") // nobody asks for it
	a10 := a.version("a", "1.0.0", needs("base", "1.2.0", base.url(), b12))
	bb := b.version("b", "1.0.0", needs("base", "1.0.0", base.url(), b10))
	w.write(map[string]string{
		"rutter.mod.star": module("main", "1.0.0", needs("a", "1.0.0", a.url(), a10), needs("b", "1.0.0", b.url(), bb)),
		"up.star":         "load(\"@a//a.star\", \"v\")\n",
	})
	lock := w.lock()
	if got := lock["base"].Version.String(); got != "1.2.0" || len(lock) != 3 {
		t.Fatalf("base %s in %v, want 1.2.0", got, lock)
	}
	if _, err := w.load(); err != nil {
		t.Error(err)
	}
	// What a dependency depends on is not one's own to load.
	w.write(map[string]string{"up.star": "load(\"@base//base.star\", \"v\")\n"})
	if _, err := w.load(); err == nil || !strings.Contains(err.Error(), `there is no library "@base"; rutter.mod.star declares @a, @b`) {
		t.Errorf("got %v", err)
	}
	// The module itself asks for a higher one: the lock is stale, then follows.
	w.write(map[string]string{"rutter.mod.star": module("main", "1.0.0", needs("a", "1.0.0", a.url(), a10), needs("base", "1.3.0", base.url(), b13))})
	_, err := w.load()
	w.refused(err, "dependency base is asked for in version 1.3.0, and rutter.lock has 1.2.0")
	if lock = w.lock(); lock["base"].Version.String() != "1.3.0" || len(lock) != 2 {
		t.Errorf("locked %v", lock)
	}
	if files, err := w.load(); err != nil || files["@base//base.star"] != "v = \"1.3.0\"\n" {
		t.Errorf("loaded %v, %v", files, err)
	}
}

func TestSelectionRefuses(t *testing.T) {
	w := newWorld(t)
	base, a, other := newRepo(t), newRepo(t), newRepo(t)
	b1 := base.version("base", "1.0.0")
	b2 := base.version("base", "2.0.0")
	o1 := other.version("base", "1.1.0")
	for _, tc := range []struct {
		name string
		deps []string
		want string
	}{
		{"another major version", []string{needs("a", "1.0.0", a.url(), a.version("a", "1.0.0", needs("base", "2.0.0", base.url(), b2))), needs("base", "1.0.0", base.url(), b1)}, "versions that don't go together"},
		{"another place", []string{needs("a", "1.1.0", a.url(), a.version("a", "1.1.0", needs("base", "1.1.0", other.url(), o1))), needs("base", "1.0.0", base.url(), b1)}, "is asked for from two places"},
		{"another version than said", []string{needs("base", "1.5.0", base.url(), b1)}, "is of version 1.0.0 at commit"},
		{"another name", []string{needs("bass", "1.0.0", base.url(), b1)}, "calls the module base; expected the name by which it was asked for, bass"},
		{"no such commit", []string{needs("base", "1.0.0", base.url(), strings.Repeat("1", 40))}, ""},
		{"no commit", []string{needs("base", "1.0.0", base.url(), base.git("rev-parse", "HEAD^{tree}"))}, "is a tree, no commit"},
		{"no repository", []string{needs("base", "1.0.0", base.url()+"-none", b1)}, ""},
		{"no module", []string{needs("base", "1.0.0", base.url(), b1)[:0] + fmt.Sprintf("dependency(%q, version = %q, git = %q, commit = %q, folder = %q)", "base", "1.0.0", base.url(), b1, "sub")}, "has no rutter.mod.star"},
		{"itself", []string{needs("a", "1.2.0", a.url(), a.version("a", "1.2.0", needs("main", "1.0.0", base.url(), b1)))}, "is the module that is run"},
		{"a later rutter", []string{needs("a", "1.3.0", a.url(), a.commit(map[string]string{"rutter.mod.star": `module("a", version = "1.3.0", requires = ">=2")`}))}, "requires rutter >=2, and this is 1.2.0"},
		{"a later language", []string{needs("a", "1.4.0", a.url(), a.commit(map[string]string{"rutter.mod.star": `module("a", version = "1.4.0", api = 2)`}))}, "language levels up to 1"},
		{"a folder outside of its repository", []string{needs("a", "1.5.0", a.url(), a.version("a", "1.5.0", `dependency("base", path = "../base")`))}, "leads outside of the repository"},
		{"a folder outside of this one", []string{`dependency("base", path = "../base")`}, "leads outside of"},
		{"itself as a folder", []string{`dependency("base", path = ".")`}, "is the module itself"},
		{"a folder that is not there", []string{`dependency("base", path = "none")`}, "path none can't be taken"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.write(map[string]string{"rutter.mod.star": module("main", "1.0.0", tc.deps...), "rutter.lock": ""})
			_, _, err := w.m.LockAll(t.Context(), w.module())
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "rutter.mod.star:") {
				t.Errorf("got %v, want %q with its place", err, tc.want)
			}
			if b, err := os.ReadFile(filepath.Join(w.dir, "rutter.lock")); err != nil || len(b) > 0 {
				t.Errorf("the lock file was written: %s, %v", b, err)
			}
		})
	}
}

// TestFolderSettlesIt: the module's own folder takes the place of what others ask
// for from elsewhere.
func TestFolderSettlesIt(t *testing.T) {
	w := newWorld(t)
	base, a := newRepo(t), newRepo(t)
	b := base.version("base", "1.2.0")
	ac := a.version("a", "1.0.0", needs("base", "1.2.0", base.url(), b))
	w.write(map[string]string{
		"rutter.mod.star":      module("main", "1.0.0", needs("a", "1.0.0", a.url(), ac), `dependency("base", path = "base")`),
		"up.star":              "load(\"@base//base.star\", \"v\")\n",
		"base/rutter.mod.star": module("base", "1.1.0"),
		"base/base.star":       "v = \"mine\"\n",
	})
	_, _, err := w.m.LockAll(t.Context(), w.module())
	w.refused(err, "is of version 1.1.0, and @a 1.0.0 asks for 1.2.0")
	w.write(map[string]string{"base/rutter.mod.star": module("base", "1.3.0")})
	w.lock()
	if files, err := w.load(); err != nil || files["@base//base.star"] != "v = \"mine\"\n" {
		t.Errorf("loaded %v, %v", files, err)
	}
}

// TestFoldersOfARepository: a git module reaches its neighbours by path, at the same
// commit.
func TestFoldersOfARepository(t *testing.T) {
	w, r := newWorld(t), newRepo(t)
	c := r.commit(map[string]string{
		"ops/rutter.mod.star":    module("ops", "1.0.0", `dependency("common", path = "../common")`),
		"ops/o.star":             "load(\"@common//c.star\", \"c\")\no = c\n",
		"common/rutter.mod.star": module("common", "0.3.1"),
		"common/c.star":          "c = 1\n",
	})
	w.write(map[string]string{
		"rutter.mod.star": fmt.Sprintf("dependency(%q, version = %q, git = %q, commit = %q, folder = %q)\n", "ops", "1.0.0", r.url(), c, "ops"),
		"up.star":         "load(\"@ops//o.star\", \"o\")\n",
	})
	lock := w.lock()
	if got := lock["common"].Source; got != (Source{Git: r.url(), Commit: c, Folder: "common"}) {
		t.Errorf("common is from %v", got)
	}
	w.offline()
	if files, err := w.load(); err != nil || files["@common//c.star"] != "c = 1\n" {
		t.Errorf("loaded %v, %v", files, err)
	}
}

func TestVendor(t *testing.T) {
	w, r := newWorld(t), newRepo(t)
	c := r.version("ops", "1.4.0")
	w.write(map[string]string{
		"rutter.mod.star": module("main", "1.0.0", needs("ops", "1.4.0", r.url(), c)),
		"up.star":         "load(\"@ops//ops.star\", \"v\")\n",
		"vendor/other/x":  "somebody else's",
	})
	w.lock()
	got, err := w.m.VendorAll(t.Context(), w.module())
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	// Neither cache nor network is needed any more.
	w.offline()
	if err := os.RemoveAll(w.m.o.Cache); err != nil {
		t.Fatal(err)
	}
	if files, err := w.load(); err != nil || files["@ops//ops.star"] != "v = \"1.4.0\"\n" {
		t.Errorf("loaded %v, %v", files, err)
	}
	if again := w.lock(); len(again) != 1 {
		t.Errorf("locked %v", again)
	}
	// A change in vendor/ is refused, and put right by vendoring again.
	w.write(map[string]string{"vendor/ops/ops.star": "v = \"evil\"\n"})
	_, err = w.load()
	w.refused(err, "dependency ops 1.4.0: vendor/ops is not what rutter.lock has")
	w.m.o.Git = Run
	if _, err := w.m.VendorAll(t.Context(), w.module()); err != nil {
		t.Fatal(err)
	}
	if files, err := w.load(); err != nil || files["@ops//ops.star"] != "v = \"1.4.0\"\n" {
		t.Errorf("loaded %v, %v", files, err)
	}
	// So is a file more, and a link out of the module.
	w.write(map[string]string{"vendor/ops/more.star": "x = 1\n"})
	_, err = w.load()
	w.refused(err, "is not what rutter.lock has")
	outside := t.TempDir()
	if err := errors.Join(os.RemoveAll(filepath.Join(w.dir, "vendor")), os.Symlink(outside, filepath.Join(w.dir, "vendor"))); err != nil {
		t.Fatal(err)
	}
	write(t, outside, map[string]string{"ops/rutter.mod.star": module("ops", "1.4.0"), "ops/ops.star": "v = \"1.4.0\"\n"})
	_, err = w.load()
	w.refused(err, "vendor/ops can't be taken")
	if _, err := w.m.VendorAll(t.Context(), w.module()); err == nil {
		t.Error("vendoring wrote through a link")
	}
	if err := os.Remove(filepath.Join(w.dir, "vendor")); err != nil {
		t.Fatal(err)
	}
	// What is no dependency any more goes, and nothing else.
	w.write(map[string]string{"vendor/other/x": "somebody else's"})
	if _, err := w.m.VendorAll(t.Context(), w.module()); err != nil {
		t.Fatal(err)
	}
	w.write(map[string]string{"rutter.mod.star": module("main", "1.0.0"), "up.star": "x = 1\n"})
	if lock := w.lock(); len(lock) != 0 {
		t.Errorf("locked %v", lock)
	}
	if _, err := w.m.VendorAll(t.Context(), w.module()); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(w.dir, "vendor", "*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "other" {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestStates(t *testing.T) {
	w, r := newWorld(t), newRepo(t)
	w.write(map[string]string{
		"rutter.mod.star":        module("main", "1.0.0", needs("ops", "1.4.0", r.url(), r.version("ops", "1.4.0")), `dependency("shared", path = "shared")`),
		"shared/rutter.mod.star": module("shared", "0.1.0"),
	})
	w.lock()
	state := func() string {
		t.Helper()
		all, err := w.m.States(t.Context(), w.module())
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, s := range all {
			out = append(out, fmt.Sprint(s.Name, " ", s.Place, " ", s.Problem != ""))
		}
		return strings.Join(out, ", ")
	}
	if got := state(); got != "ops cache false, shared folder false" {
		t.Error(got)
	}
	if err := os.RemoveAll(w.m.o.Cache); err != nil {
		t.Fatal(err)
	}
	w.write(map[string]string{"shared/x.star": ""})
	if got := state(); got != "ops missing true, shared folder true" {
		t.Error(got)
	}
}

// TestServerWithoutCommits: where a server gives no single commit, all of its
// branches and tags are fetched, of which the commit is one.
func TestServerWithoutCommits(t *testing.T) {
	w, r := newWorld(t), newRepo(t)
	c := r.version("ops", "1.0.0")
	r.version("ops", "1.1.0")
	whole := 0
	w.m.o.Git = func(ctx context.Context, c Command) ([]byte, error) {
		if slices.Contains(c.Args, "--depth=1") {
			return nil, errors.New("server does not allow request for unadvertised object")
		}
		if slices.Contains(c.Args, "fetch") {
			whole++
		}
		return Run(ctx, c)
	}
	got, err := w.m.fetch(t.Context(), Source{Git: r.url(), Commit: c, Folder: "."})
	if err != nil || got.Text("ops.star") != "v = \"1.0.0\"\n" || whole != 1 {
		t.Errorf("got %v, %v, after %d whole fetches", got, err, whole)
	}
	// No git, and one that is asked to end.
	w.m.o.Getenv = func(string) string { return "" }
	if _, err := w.m.fetch(t.Context(), Source{Git: r.url(), Commit: c, Folder: "."}); err == nil || !strings.Contains(err.Error(), "there is no git in PATH") {
		t.Errorf("got %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := newWorld(t).m.fetch(ctx, Source{Git: r.url(), Commit: c, Folder: "."}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
