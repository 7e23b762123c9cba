package deps

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/lockfile"
)

// TestNothingOfARepositoryIsObeyed: links, submodules, attributes, hooks and
// configuration of what is fetched, and the user's own configuration of git, have no
// say in what is read, and run nothing.
func TestNothingOfARepositoryIsObeyed(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	w, r, sub := newWorld(t), newRepo(t), newRepo(t)
	ran := filepath.Join(t.TempDir(), "ran")
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$0\" >> "+ran+"\nexec \"$@\"\n"), 0o700); err != nil { // #nosec G306 -- a program
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "secret.star")
	if err := os.WriteFile(secret, []byte("secret = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sub.commit(map[string]string{"s.star": "s = 1\n"})
	write(t, r.dir, map[string]string{
		"rutter.mod.star": module("ops", "1.0.0"),
		"a.star":          "a = \"$Format:%H$\"\n", // by export-subst another text
		"left.star":       "left = 1\n",            // by export-ignore not there
		".gitattributes":  "a.star export-subst\nleft.star export-ignore\n*.star filter=evil\n",
	})
	if err := os.Symlink(secret, filepath.Join(r.dir, "link.star")); err != nil {
		t.Fatal(err)
	}
	r.git("submodule", "--quiet", "add", "--force", sub.url(), "sub")
	c := r.commit(nil)
	evil := r.commit(map[string]string{"rutter.mod.star": module("ops", "1.0.1"), ".gitmodules": "[submodule \"x\"]\n\tpath = x\n\turl = --upload-pack=" + script + "\n\tupdate = !" + script + "\n"})
	for key, value := range map[string]string{
		"uploadpack.packObjectsHook": script, "core.fsmonitor": script, "core.hooksPath": filepath.Dir(script), "filter.evil.smudge": script,
		"core.sshCommand": script, "core.alternateRefsCommand": script,
	} {
		r.git("config", key, value)
	}
	for _, hook := range []string{"post-checkout", "reference-transaction", "pre-auto-gc", "post-merge"} {
		if err := os.Symlink(script, filepath.Join(r.dir, ".git", "hooks", hook)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, w.home, map[string]string{
		".gitconfig": fmt.Sprintf("[core]\n\tfsmonitor = %s\n\tgitProxy = %s\n[uploadpack]\n\tpackObjectsHook = %s\n[url \"ext::%s \"]\n\tinsteadOf = file://\n[protocol]\n\tallow = always\n[init]\n\ttemplateDir = %s\n",
			script, script, script, script, filepath.Join(r.dir, ".git")),
	})
	w.write(map[string]string{
		"rutter.mod.star": module("main", "1.0.0", needs("ops", "1.0.0", r.url(), c)),
		"up.star":         "load(\"@ops//a.star\", \"a\")\nload(\"@ops//left.star\", \"left\")\n",
	})
	w.lock()
	files, err := w.load()
	if err != nil || files["@ops//a.star"] != "a = \"$Format:%H$\"\n" {
		t.Errorf("loaded %v, %v", files, err)
	}
	for _, name := range []string{"link.star", "sub/s.star"} {
		w.write(map[string]string{"up.star": fmt.Sprintf("load(\"@ops//%s\", \"x\")\n", name)})
		if _, err := w.load(); err == nil || !strings.Contains(err.Error(), "does not exist in @ops") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// Git itself refuses submodules that would run something.
	w.write(map[string]string{"rutter.mod.star": module("main", "1.0.0", needs("ops", "1.0.1", r.url(), evil))})
	if _, _, err := w.m.LockAll(t.Context(), w.module()); err == nil || !strings.Contains(err.Error(), "gitmodules") {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(ran); err == nil {
		t.Errorf("it ran %s", b)
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "rutter-git-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestFoldersKeepInside: links lead nowhere, neither of a folder nor in it, and a
// pipe is not waited for.
func TestFoldersKeepInside(t *testing.T) {
	w := newWorld(t)
	outside := t.TempDir()
	write(t, outside, map[string]string{"rutter.mod.star": module("out", "1.0.0"), "o.star": "o = 1\n"})
	w.write(map[string]string{
		"rutter.mod.star":    module("main", "1.0.0", `dependency("in", path = "in")`),
		"in/rutter.mod.star": module("in", "1.0.0"),
		"up.star":            "load(\"@in//o.star\", \"o\")\n",
	})
	for _, link := range []struct{ to, at string }{{outside, "out"}, {filepath.Join(outside, "o.star"), "in/o.star"}, {outside, "in/deep"}} {
		if err := os.Symlink(link.to, filepath.Join(w.dir, link.at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(w.dir, "in", "pipe.star"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.lock()
	if _, err := w.load(); err == nil || !strings.Contains(err.Error(), "@in//o.star does not exist in @in") {
		t.Errorf("through a link: %v", err)
	}
	w.write(map[string]string{"rutter.mod.star": module("main", "1.0.0", `dependency("out", path = "out")`)})
	_, _, err := w.m.LockAll(t.Context(), w.module())
	w.refused(err, "path out can't be taken", "escapes")
	// A module's own file that is a pipe, and one that leads out.
	if err := os.Remove(filepath.Join(w.dir, "rutter.mod.star")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(w.dir, "rutter.mod.star"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Find(w.dir, w.dir)
	w.refused(err, "is no file")
	if err := os.Remove(filepath.Join(w.dir, "rutter.mod.star")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(outside, "rutter.mod.star"), filepath.Join(w.dir, "rutter.mod.star")); err != nil {
		t.Fatal(err)
	}
	_, err = Find(w.dir, w.dir)
	w.refused(err, "escapes")
}

// TestRemoteModuleNamesNoLocalRepository: what comes over a network can't make this
// machine read its own repositories.
func TestRemoteModuleNamesNoLocalRepository(t *testing.T) {
	mod := &Module{File: &File{}, rel: "."}
	d := Dependency{Name: "x", Git: "file:///home/somebody/private", Commit: strings.Repeat("1", 40), Folder: "."}
	if _, err := mod.source(Source{Git: "https://example.com/ops", Folder: "."}, d); err == nil || !strings.Contains(err.Error(), "asks for a repository on this machine") {
		t.Errorf("got %v", err)
	}
	for _, by := range []Source{{Path: "."}, {Git: "file:///srv/ops", Folder: "."}} {
		if _, err := mod.source(by, d); err != nil {
			t.Errorf("by %v: %v", by, err)
		}
	}
}

func TestValidURL(t *testing.T) {
	for _, ok := range []string{
		"https://example.com/ops/runbooks.git", "https://example.com:8443/~me/r", "ssh://git@example.com/ops.git", "ssh://git@example.com:2222/ops", "git@example.com:ops/runbooks.git", "file:///srv/git/ops",
	} {
		if err := ValidURL(ok); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{
		"", "--upload-pack=touch /tmp/x", "-u./x", "ext::sh -c touch% /tmp/x", "fd::7", "https::https://example.com/x", "transport::file:///x", "http://example.com/x", "git://example.com/x",
		"ftp://example.com/x", "file://host/x", "file:///", "file:x", "../x", "/srv/git/x", "C:/x", "https://example.com", "https://example.com/", "https:///x", "https://-oProxyCommand=x/y",
		"ssh://-oProxyCommand=touch/x", "ssh://-l@example.com/x", "-oProxyCommand=x@example.com:y", "git@-oProxyCommand=x:y", "git@example.com:--upload-pack=x", "https://user:pw@example.com/x", "https://token@example.com/x",
		"ssh://git:pw@example.com/x", "https://example.com/x?y=z", "https://example.com/x#y", "https://example.com/a/../b", "https://example.com/%2e%2e/b", "https://example.com/x y", "https://example.com/x\ny", "https://exa mple.com/x", "https://example.com/$(id)", "file:///srv/;id", "javascript:alert",
	} {
		if err := ValidURL(bad); err == nil {
			t.Errorf("%q was taken for an address", bad)
		}
	}
}

func TestModFile(t *testing.T) {
	const commit = "0123456789012345678901234567890123456789"
	f, err := parseFile("m", []byte(`"""Ours."""
# a comment
module("ops", version = "1.2.3", api = 1, requires = ">=1.0", deprecated = "use newer")
dependency("shared", path = "../shared")
dependency(name = "base", version = "0.1.0", git = "https://example.com/base.git", commit = "`+commit+`", folder = "books")
deprecated("//a.star", name = "old", use = "new", since = "1.2.0")
deprecated(file = "b.star", moved = "//c.star")
`))
	if err != nil {
		t.Fatal(err)
	}
	if f.Name != "ops" || f.Version.String() != "1.2.3" || f.API != 1 || f.Requires != ">=1.0" || f.Deprecated != "use newer" || len(f.Dependencies) != 2 || len(f.Deprecations) != 2 ||
		f.Dependencies[0].Path != "../shared" || f.Dependencies[1].Folder != "books" || f.Deprecations[0] != (Deprecation{File: "a.star", Name: "old", Use: "new", Since: "1.2.0"}) || f.Deprecations[1].Moved != "c.star" {
		t.Errorf("got %+v", f)
	}
	for _, tc := range []struct{ text, want string }{
		{"load(\"//x.star\", \"x\")", "m:1:1: is not a declaration"},
		{"x = 1", "m:1:1: is not a declaration"},
		{"def f():\n  pass", "m:1:1: is not a declaration"},
		{"print(1)", "m:1:1: is not a declaration"},
		{"[dependency(\"x\", path = \"x\") for _ in range(9)]", "m:1:1: is not a declaration"},
		{"module(name = \"a\" + \"b\", version = \"1.0.0\")", "m:1:15: is not a literal"},
		{"module(name = \"a\" * 1000000000)", "m:1:15: is not a literal"},
		{"module(**{})", "m:1:8: is not a literal"},
		{"module(\"a\", \"1.0.0\")", "m:1:13: module takes its arguments by keyword"},
		{"module(\"a\", versoin = \"1.0.0\")", `did you mean "version"?`},
		{"module(\"a\", version = \"1\")", `m:1:23: module: "1" is no version`},
		{"module(\"a\")", "m:1:1: module a has no version"},
		{"module(\"A b\", version = \"1.0.0\")", `"A b" is no name for a module`},
		{"module(\"stdlib\", version = \"1.0.0\")", `"stdlib" is no name for a module`},
		{"module(\"a\", version = \"1.0.0\", api = 0)", "m:1:38: api: 0 is no language level"},
		{"module(\"a\", version = \"1.0.0\", api = 99999999999999999999)", "api is neither text nor a number"},
		{"module(\"a\", version = \"1.0.0\", requires = \"abc\")", `requires: "abc" is no range`},
		{"module(\"a\", version = \"1.0.0\")\nmodule(\"b\", version = \"1.0.0\")", "m:2:1: module is declared twice"},
		{"dependency(\"a\")", "m:1:1: dependency a is neither a folder nor a repository"},
		{"dependency(\"a\", path = \"/etc\")", `the path "/etc" is absolute`},
		{"dependency(\"a\", path = \"a/../../b\")", "is not written plainly"},
		{"dependency(\"a\", path = \"a\\x00b\")", "path is not what it can be"},
		{"dependency(\"a\", path = \".git\")", "has a part that none should have"},
		{"dependency(\"a\", path = \"b\")\ndependency(\"a\", path = \"c\")", "m:2:12: dependency a is declared twice"},
		{"dependency(\"a\", version = \"1.0.0\", git = \"ext::sh -c id\", commit = \"" + commit + "\")", "is no address of a repository"},
		{"dependency(\"a\", version = \"1.0.0\", git = \"https://example.com/x\", commit = \"main\")", `"main" is no commit; expected all 40`},
		{"dependency(\"a\", version = \"1.0.0\", git = \"https://example.com/x\", commit = \"--output=/tmp/x\")", "is no commit"},
		{"dependency(\"a\", git = \"https://example.com/x\", commit = \"" + commit + "\")", "dependency a has no version"},
		{"dependency(\"a\", version = \"1.0.0\", git = \"https://example.com/x\", commit = \"" + commit + "\", folder = \"../x\")", "leads outside"},
		{"deprecated(\"//a.star\")", "deprecated says nothing of what to use instead"},
		{"deprecated(\"//../a.star\", note = \"x\")", "is no file of this module"},
		{"deprecated(\"//a.star\", use = \"x\")", "use is the new name of something"},
		{"module(", "m:1:8"},
		{strings.Repeat("(", 5000), "nests brackets deeper"},
		{"x = " + strings.Repeat("not ", 5000), "nests brackets deeper"},
		{strings.Repeat("#", maxModFile+1), "is larger than"},
		{strings.Repeat("module(\"a\")\n", maxDeclare+1), "declares more than"},
	} {
		_, err := parseFile("m", []byte(tc.text))
		if err == nil || diag.ExitCode(err) != diag.Usage || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%.80q: got %v, want %q", tc.text, err, tc.want)
		}
	}
}

func FuzzModFile(f *testing.F) {
	f.Add("module(\"a\", version = \"1.0.0\", api = 1)\ndependency(\"b\", path = \"../b\")\ndeprecated(\"//a.star\", name = \"x\", use = \"y\")\n")
	f.Add("dependency(\"a\", version = \"1.0.0\", git = \"git@example.com:x\", commit = \"0123456789012345678901234567890123456789\", folder = \"b\")")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := parseFile("m", []byte(text))
		if err != nil {
			if diag.ExitCode(err) != diag.Usage {
				t.Errorf("%v is no usage error", err)
			}
			return
		}
		for _, d := range file.Dependencies { // what is declared can be locked and read back
			l := Locked{Name: d.Name, Version: d.Version, Digest: "sha256:" + strings.Repeat("0", 64), Source: Source{Path: d.Path, Git: d.Git, Commit: d.Commit, Folder: d.Folder}}
			if d.Version == nil {
				continue
			}
			got, ok := parseLine(l.line())
			if !ok || got.Source != l.Source || got.Name != l.Name {
				t.Errorf("%q reads back as %v, %v", l.line(), got, ok)
			}
		}
	})
}

func FuzzLock(f *testing.F) {
	f.Add("dependency a 1.0.0 sha256:" + strings.Repeat("0", 64) + " path ../a\n")
	f.Add("dependency a 1.0.0 sha256:" + strings.Repeat("0", 64) + " git https://example.com/a " + strings.Repeat("0", 40) + " b c\n# more\ntoolchain x")
	f.Fuzz(func(t *testing.T, text string) {
		lock, err := parseLock("rutter.lock", lockfile.In(text, lockWord))
		if err != nil {
			if diag.ExitCode(err) != diag.Usage {
				t.Errorf("%v is no usage error", err)
			}
			return
		}
		for _, l := range lock {
			if l.Source.Git != "" && (ValidURL(l.Source.Git) != nil || !validCommit(l.Source.Commit)) {
				t.Errorf("took %q", l.line())
			}
		}
	})
}

// TestContentLimits: a module is small.
func TestContentLimits(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"rutter.mod.star": module("big", "1.0.0"), "big.star": strings.Repeat("#", maxFile+1)})
	read := func() error {
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		_, err = readFolder(root)
		if e := root.Close(); e != nil {
			t.Fatal(e)
		}
		return err
	}
	if err := read(); err == nil || !strings.Contains(err.Error(), "big.star is larger than") {
		t.Errorf("got %v", err)
	}
	r := newRepo(t)
	c := r.commit(map[string]string{"rutter.mod.star": module("big", "1.0.0"), "big.star": strings.Repeat("#", maxFile+1)})
	if _, err := newWorld(t).m.fetch(t.Context(), Source{Git: r.url(), Commit: c, Folder: "."}); err == nil || !strings.Contains(err.Error(), "big.star is larger than") {
		t.Errorf("got %v", err)
	}
	many := map[string]string{"big.star": ""}
	for i := range maxFiles {
		many[fmt.Sprintf("f%d.star", i)] = ""
	}
	write(t, dir, many)
	if err := read(); err == nil || !strings.Contains(err.Error(), "more than a module may") {
		t.Errorf("got %v", err)
	}
}

// TestDigestIsOfNamesAndContents: no two different modules have one digest.
func TestDigestIsOfNamesAndContents(t *testing.T) {
	digest := func(files map[string]string) string {
		c := &Content{files: map[string]*file{}}
		for name, text := range files {
			c.files[name] = &file{data: []byte(text)}
		}
		return c.Digest()
	}
	one := digest(map[string]string{"a.star": "x", "b.star": ""})
	for _, other := range []map[string]string{{"a.star": "", "b.star": "x"}, {"a.star": "x"}, {"a.starx": "", "b.star": ""}, {"a.star": "x0:", "b.star": ""}} {
		if digest(other) == one {
			t.Errorf("%v has the digest of another", other)
		}
	}
}

// TestPolicyIsWithheldFromDependencies: a folder that is declared as a dependency
// gives nobody the organization's policy, by whatever way.
func TestPolicyIsWithheldFromDependencies(t *testing.T) {
	w := newWorld(t)
	w.write(map[string]string{
		"rutter.mod.star":       module("main", "1.0.0", `dependency("rules", path = "rules")`),
		"up.star":               "load(\"@rules//rule.star\", \"x\")\n",
		"rules/rutter.mod.star": module("rules", "1.0.0"),
		"rules/rule.star":       "x = 1\n",
	})
	w.lock()
	o, err := w.m.Open(t.Context(), w.module())
	if err != nil {
		t.Fatal(err)
	}
	l, err := o.Loader("//up.star", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(w.dir, "rules", "rule.star"))
	if err != nil {
		t.Fatal(err)
	}
	l.Withhold([]os.FileInfo{info})
	_, err = l.Collect(starlark.StringDict{})
	w.refused(err, "up.star:1:6: @rules//rule.star belongs to the organization's policy")
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
