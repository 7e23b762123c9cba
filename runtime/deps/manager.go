package deps

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/Masterminds/semver/v3"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/lockfile"
)

// maxModules bounds what one module may depend on, all told.
const maxModules = 100

// Options are what a Manager works with.
type Options struct {
	// Cache is the folder of what was fetched; "" for none.
	Cache string
	// Git fetches; Getenv is the environment that git gets a part of.
	Git    Runner
	Getenv func(string) string
	// API is this rutter's language level and Rutter its version, which modules may
	// ask for.
	API    int
	Rutter string
}

// Manager finds, locks and opens dependencies. It is safe for concurrent use, as
// are several of them on one cache.
type Manager struct{ o Options }

// New is a Manager.
func New(o Options) *Manager { return &Manager{o} }

// Module is a module on this machine.
type Module struct {
	// Dir is its folder, Repository the one at or above it that its dependencies by
	// path lie in; both absolute.
	Dir, Repository string
	// File is its rutter.mod.star; nil where it has none, and so no dependencies.
	File *File

	rel string // of Dir in Repository, with slashes
}

// LockPath is the module's lock file.
func (m *Module) LockPath() string { return filepath.Join(m.Dir, lockfile.Name) }

// Find is the module that a folder belongs to: the nearest one up to the repository
// that has a rutter.mod.star, else the repository as a module without one.
func Find(dir, repository string) (*Module, error) {
	rel, err := filepath.Rel(repository, dir)
	if err != nil || !filepath.IsLocal(rel) {
		return nil, diag.Usagef(dir, "lies outside of %s", repository)
	}
	root, err := os.OpenRoot(repository)
	if err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: repository, Problem: "cannot be opened as runbook root", Err: err}
	}
	defer func() { _ = root.Close() }() // it was only read
	for rel = filepath.ToSlash(rel); ; rel = path.Dir(rel) {
		file, err := readModFile(env.RootFS(root), path.Join(rel, loader.ModFile))
		if err != nil {
			return nil, err
		}
		if file != nil {
			return &Module{Dir: filepath.Join(repository, filepath.FromSlash(rel)), Repository: repository, File: file, rel: rel}, nil
		}
		if rel == "." {
			return &Module{Dir: repository, Repository: repository, rel: "."}, nil
		}
	}
}

// readModFile reads a module's own file; nil where there is none.
func readModFile(fsys fs.FS, name string) (*File, error) {
	if _, err := fs.Stat(fsys, name); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	f, err := readFile(fsys, name)
	if err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: loader.ModFile, Problem: "can't be read", Err: err, Changed: "nothing"}
	}
	return parseFile(loader.ModFile, f.data)
}

// source is where a dependency is that somebody asks for: of, where the asking
// module is itself.
func (m *Module) source(of Source, d Dependency) (Source, error) {
	wrong := func(format string, args ...any) (Source, error) {
		return Source{}, &diag.Error{Code: diag.Usage, Pos: d.Pos, Problem: "dependency " + d.Name + ": " + fmt.Sprintf(format, args...), Changed: "nothing"}
	}
	switch {
	case d.Git != "" && of.Git != "" && isLocalURL(d.Git) && !isLocalURL(of.Git):
		return wrong("%s asks for a repository on this machine, %s", of.Git, d.Git)
	case d.Git != "":
		return Source{Git: d.Git, Commit: d.Commit, Folder: path.Clean(d.Folder)}, nil
	case of.Git != "":
		folder := path.Join(of.Folder, d.Path)
		if !filepath.IsLocal(folder) {
			return wrong("%q leads outside of the repository %s", d.Path, of.Git)
		}
		return Source{Git: of.Git, Commit: of.Commit, Folder: folder}, nil
	}
	here := path.Join(m.rel, of.Path)
	at := path.Join(here, d.Path)
	if !filepath.IsLocal(at) {
		return wrong("%q leads outside of %s; --root names a larger folder", d.Path, m.Repository)
	}
	if at == here || at == m.rel {
		return wrong("%q is the module itself, or one that depends on it", d.Path)
	}
	rel, err := filepath.Rel(filepath.FromSlash(m.rel), filepath.FromSlash(at))
	if err != nil {
		return wrong("%q: %v", d.Path, err)
	}
	return Source{Path: filepath.ToSlash(rel)}, nil
}

func isLocalURL(s string) bool { return len(s) > 5 && s[:5] == "file:" }

// folder reads a dependency that lies in the repository.
func (m *Module) folder(s Source) (*Content, error) {
	root, err := os.OpenRoot(m.Repository)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // it was only read
	inside, err := root.OpenRoot(filepath.FromSlash(path.Join(m.rel, s.Path)))
	if err != nil {
		return nil, err
	}
	defer func() { _ = inside.Close() }() // it was only read
	return readFolder(inside)
}

// own is the rutter.mod.star of a dependency's content, which must be that of the
// module that was asked for.
func own(name string, c *Content) (*File, error) {
	f, err := parseFile("@"+name+"//"+loader.ModFile, c.files[loader.ModFile].data)
	switch {
	case err != nil:
		return nil, err
	case f.Name == "":
		return nil, diag.Usagef(f.Path, "has no module(name = …, version = …), by which others could depend on it")
	case f.Name != name:
		return nil, &diag.Error{Code: diag.Usage, Pos: f.pos, Problem: "calls the module " + f.Name, Expect: "the name by which it was asked for, " + name, Changed: "nothing"}
	}
	return f, nil
}

// usable refuses a module that this rutter is too old for, or too new.
func (m *Manager) usable(f *File) error {
	wrong := func(problem string) error {
		return &diag.Error{Code: diag.Usage, Pos: f.pos, Problem: problem, Changed: "nothing", Next: "use another rutter, or another version of the module"}
	}
	if f.API > m.o.API {
		return wrong(fmt.Sprintf("api: this rutter knows language levels up to %d, and the module wants %d", m.o.API, f.API))
	}
	if err := Requires(f.Requires, m.o.Rutter); err != nil {
		return wrong(err.Error())
	}
	return nil
}

// Requires says whether a version of rutter lies in a range; "" is any. A rutter
// that was not released ("dev") lies in every one.
func Requires(within, rutter string) error {
	if within == "" {
		return nil
	}
	c, err := semver.NewConstraint(within)
	if err != nil {
		return fmt.Errorf("requires: %q is no range of versions of rutter", within)
	}
	v, err := semver.NewVersion(rutter)
	if err != nil {
		return nil
	}
	core, err := v.SetPrerelease("") // a pre-release belongs to the version that it precedes
	if err != nil {
		return err
	}
	if !c.Check(&core) {
		return fmt.Errorf("requires rutter %s, and this is %s", within, rutter)
	}
	return nil
}

// get is what a step through dependencies takes the content of a locked one from.
type get func(ctx context.Context, m *Module, l Locked) (*Content, error)

// visit is one dependency that walk came to.
type visit struct {
	Locked
	content *Content
	file    *File
}

// walk goes along what the module depends on, as it is locked, and holds each to
// the lock and to everybody who asks for it.
func (m *Manager) walk(ctx context.Context, mod *Module, lock Lock, from get) ([]visit, error) {
	type asked struct {
		by Source
		d  Dependency
	}
	if mod.File == nil {
		return nil, nil
	}
	if err := m.usable(mod.File); err != nil {
		return nil, err
	}
	var queue []asked
	for _, d := range mod.File.Dependencies {
		queue = append(queue, asked{Source{Path: "."}, d})
	}
	var out []visit
	seen := map[string]bool{}
	for ; len(queue) > 0; queue = queue[1:] {
		a := queue[0]
		l, err := m.satisfied(mod, lock, a.by, a.d)
		if err != nil {
			return nil, err
		}
		if seen[l.Name] {
			continue
		}
		seen[l.Name] = true
		if len(seen) > maxModules {
			return nil, diag.Usagef(loader.ModFile, "depends on more than %d modules", maxModules)
		}
		c, err := from(ctx, mod, l)
		if err != nil {
			return nil, at(a.d.Pos, err)
		}
		f, err := own(l.Name, c)
		if err != nil {
			return nil, err
		}
		if !f.Version.Equal(l.Version) {
			return nil, &diag.Error{Code: diag.Usage, Pos: f.pos, Problem: "is of version " + f.Version.String(), Expect: l.Version.String() + ", as rutter.lock has it", Changed: "nothing", Next: "rutter deps lock"}
		}
		if err := m.usable(f); err != nil {
			return nil, err
		}
		out = append(out, visit{l, c, f})
		for _, d := range f.Dependencies {
			queue = append(queue, asked{l.Source, d})
		}
	}
	return out, nil
}

// at places an error that has no place yet.
func at(pos diag.Pos, err error) error {
	var d *diag.Error
	if errors.As(err, &d) && d.Pos.File == "" {
		cp := *d
		cp.Pos = pos
		if cp.Subject != "" {
			cp.Problem, cp.Subject = cp.Subject+": "+cp.Problem, ""
		}
		return &cp
	}
	return err
}

// satisfied is the locked version of a dependency, where it is what is asked for.
func (m *Manager) satisfied(mod *Module, lock Lock, by Source, d Dependency) (Locked, error) {
	wrong := func(format string, args ...any) (Locked, error) {
		return Locked{}, &diag.Error{Code: diag.Usage, Pos: d.Pos, Problem: "dependency " + d.Name + " " + fmt.Sprintf(format, args...), Changed: "nothing", Next: "rutter deps lock"}
	}
	if d.Name == mod.File.Name {
		return wrong("is the module that is run, which nothing it depends on may depend on")
	}
	l, ok := lock[d.Name]
	if !ok {
		return wrong("is not in %s", lockfile.Name)
	}
	main := by == Source{Path: "."}
	if !main && mod.replaces(d.Name) {
		by, d.Path, d.Git = Source{Path: "."}, mod.path(d.Name), ""
	}
	s, err := mod.source(by, d)
	if err != nil {
		return Locked{}, err
	}
	switch {
	case s.origin() != l.Source.origin():
		return wrong("comes from %s, and %s has it from %s", s, lockfile.Name, l.Source)
	case !compatible(d.Version, l.Version):
		return wrong("is asked for in version %s, and %s has %s", d.Version, lockfile.Name, l.Version)
	case main && s.Git != "" && d.Version.Equal(l.Version) && s.Commit != l.Source.Commit:
		return wrong("is asked for at commit %s, and %s has %s", s.Commit, lockfile.Name, l.Source.Commit)
	}
	return l, nil
}

// replaces reports whether the module itself says that a dependency is a folder:
// then it is that for everybody.
func (m *Module) replaces(name string) bool { return m.path(name) != "" }

func (m *Module) path(name string) string {
	for _, d := range m.File.Dependencies {
		if d.Name == name {
			return d.Path
		}
	}
	return ""
}
