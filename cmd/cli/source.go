package cli

import (
	"context"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"rutter.dev/rutter/runbooks"
	"rutter.dev/rutter/runtime/catalogue"
	"rutter.dev/rutter/runtime/deps"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/stdlib"
)

// found is a runbook, with what it loads from.
type found struct {
	*loader.Loader
	// name is how a resume finds it again, from anywhere.
	name string
	// root is the folder that its module and the folders that that depends on lie
	// in; "" for one of the catalogue.
	root string
	// sig is where a signature of it is.
	sig string
	// deps are what it depends on; nil for one of the catalogue.
	deps *deps.Opened
}

// source finds a runbook: a file, a name in the catalogue, a name in a folder, or one
// of a dependency, "@ops//upgrade"; the last three at a version, too, "…@1.2". root is
// the folder that it may load from, "" for its own.
func (a *app) source(ctx context.Context, h *host.Host, name, root string) (*found, error) {
	if root != "" {
		root = a.abs(root)
	}
	if dir, library, file, ok := ofDependency(name); ok {
		return a.dependencySource(ctx, h, a.abs(dir), library, file, root)
	}
	file := a.abs(name)
	if st, err := os.Stat(file); err == nil && !st.IsDir() {
		return a.fileSource(ctx, h, name, file, root)
	}
	ref := catalogue.Parse(name)
	names, err := catalogueFiles()
	if err != nil {
		return nil, err
	}
	if files := ref.Files(names); len(files) > 0 {
		open := func(file string) (*loader.Loader, error) {
			return loader.FS(runbooks.FS, file, stdlib.FS, h.Cache, nil), nil
		}
		file, err := pick(ctx, h, ref, files, open)
		if err != nil {
			return nil, err
		}
		l, err := open(file)
		return &found{Loader: l, name: strings.TrimSuffix(file, ".star")}, err
	}
	if f, err := a.versionSource(ctx, h, name, root); f != nil || err != nil {
		return f, err
	}
	d := &diag.Error{Code: diag.Usage, Subject: name, Problem: "no such file, and no such runbook in the catalogue", Changed: "nothing", Next: "rutter runbooks"}
	for i := range names {
		names[i] = strings.TrimSuffix(names[i], ".star")
	}
	if near := diag.Nearest(name, names); near != "" {
		d.Expect = "perhaps " + near
	}
	return nil, d
}

// dependencyName is "[DIR/]@NAME//FILE", a runbook of a dependency of the module at
// or above DIR.
var dependencyName = regexp.MustCompile(`^(?:(.*)/)?@([a-z0-9-]+)//(.+)$`)

func ofDependency(name string) (dir, library, file string, ok bool) {
	m := dependencyName.FindStringSubmatch(name)
	if m == nil || !loader.IsName(m[2]) {
		return "", "", "", false
	}
	if m[1] == "" && !strings.HasPrefix(name, "/") {
		m[1] = "."
	}
	return m[1], m[2], m[3], true
}

// opened is the module that a folder belongs to, with what it depends on. root is the
// folder that all of that lies in, "" for the repository's.
func (a *app) opened(ctx context.Context, dir, root string) (*deps.Opened, error) {
	if root == "" {
		root = rootOf(filepath.Join(dir, "x"))
	}
	mod, err := deps.Find(dir, root)
	if err != nil {
		return nil, err
	}
	return a.modules().Open(ctx, mod)
}

// modules is what finds, locks and opens dependencies.
func (a *app) modules() *deps.Manager {
	return deps.New(deps.Options{Cache: a.cacheFolder("modules"), Git: deps.Run, Getenv: a.env.Getenv, API: interp.API, Rutter: version})
}

func (a *app) fileSource(ctx context.Context, h *host.Host, name, file, root string) (*found, error) {
	if root == "" {
		root = rootOf(file)
	}
	if rel, err := filepath.Rel(root, file); err != nil || !filepath.IsLocal(rel) {
		return nil, diag.Usagef(name, "lies outside of the root folder %s", root)
	}
	o, err := a.opened(ctx, filepath.Dir(file), root)
	if err != nil {
		return nil, err
	}
	entry, err := filepath.Rel(o.Dir, file)
	if err != nil {
		return nil, err
	}
	l, err := o.Loader(loader.Label(filepath.ToSlash(entry)), h.Stdlib, h.Cache)
	return &found{Loader: l, name: file, root: root, sig: file + sigSuffix, deps: o}, err
}

// versionSource finds NAME or NAME@VERSION among the files of a folder; nil where
// there is no such file.
func (a *app) versionSource(ctx context.Context, h *host.Host, name, root string) (*found, error) {
	dir, ref := a.abs(filepath.Dir(name)), catalogue.Parse(filepath.Base(name))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil // no such folder: no such runbook
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	files := ref.Files(names)
	if len(files) == 0 {
		return nil, nil
	}
	file, err := pick(ctx, h, ref, files, func(file string) (*loader.Loader, error) {
		f, err := a.fileSource(ctx, h, name, filepath.Join(dir, file), root)
		if err != nil {
			return nil, err
		}
		return f.Loader, nil
	})
	if err != nil {
		return nil, err
	}
	return a.fileSource(ctx, h, name, filepath.Join(dir, file), root)
}

func (a *app) dependencySource(ctx context.Context, h *host.Host, dir, library, file, root string) (*found, error) {
	if root == "" {
		root = rootOf(filepath.Join(dir, "x"))
	}
	o, err := a.opened(ctx, dir, root)
	if err != nil {
		return nil, err
	}
	name := "@" + library + "//" + file
	from := o.Libraries[library]
	if from == nil || !o.Declares(library) {
		return nil, &diag.Error{
			Code: diag.Usage, Subject: name, Problem: "there is no dependency " + library, Expect: "one that " + a.shown(filepath.Join(o.Dir, loader.ModFile)) + " declares",
			Changed: "nothing", Next: "rutter deps",
		}
	}
	ref := catalogue.Parse(file)
	open := func(file string) (*loader.Loader, error) {
		return o.Loader(loader.LibraryLabel(library, file), h.Stdlib, h.Cache)
	}
	files := ref.Files(from.Names())
	if len(files) == 0 {
		d := diag.Usagef(name, "there is no such runbook in the dependency")
		if near := diag.Nearest(file, from.Names()); near != "" {
			d.Expect = "perhaps @" + library + "//" + near
		}
		d.Next = "rutter runbooks"
		return nil, d
	}
	chosen, err := pick(ctx, h, ref, files, open)
	if err != nil {
		return nil, err
	}
	l, err := open(chosen)
	return &found{
		Loader: l, name: o.Dir + "/@" + library + "//" + chosen, root: root, deps: o,
		sig: filepath.Join(o.Dir, "signatures", library, filepath.FromSlash(chosen)+sigSuffix),
	}, err
}

// pick chooses among the files that hold versions of a runbook. Which version a file
// holds it says itself, so that several are loaded.
func pick(ctx context.Context, h *host.Host, ref catalogue.Ref, files []string, open func(file string) (*loader.Loader, error)) (string, error) {
	plain := path.Clean(ref.Path) + ".star"
	if ref.Version == "" && slices.Contains(files, plain) {
		return plain, nil
	}
	var all []catalogue.Edition
	var broken error
	for _, file := range files {
		e, err := edition(ctx, h, file, open)
		if err != nil {
			broken = err // another one may be what is asked for
			continue
		}
		all = append(all, e)
	}
	chosen, err := ref.Pick(all)
	if err != nil && broken != nil {
		return "", broken
	}
	return chosen.File, err
}

func edition(ctx context.Context, h *host.Host, file string, open func(file string) (*loader.Loader, error)) (catalogue.Edition, error) {
	l, err := open(file)
	if err != nil {
		return catalogue.Edition{}, err
	}
	defer closeQuietly(l)
	rb, err := h.Load(ctx, l)
	if err != nil {
		return catalogue.Edition{}, err
	}
	e := catalogue.Edition{File: file, Version: rb.Version}
	return e, e.Agrees()
}

// catalogueFiles are the files of the catalogue that hold runbooks.
func catalogueFiles() ([]string, error) {
	var names []string
	err := fs.WalkDir(runbooks.FS, ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && catalogue.IsRunbook(p) {
			names = append(names, p)
		}
		return err
	})
	return names, err
}

// rootOf is the nearest folder above file that has rutter.yaml or .git, else the
// nearest that has a rutter.mod.star, else the file's own.
func rootOf(file string) string {
	own, module := filepath.Dir(file), ""
	for dir := own; ; dir = filepath.Dir(dir) {
		if exists(filepath.Join(dir, "rutter.yaml")) || exists(filepath.Join(dir, ".git")) {
			return dir
		}
		if module == "" && exists(filepath.Join(dir, loader.ModFile)) {
			module = dir
		}
		switch {
		case dir != filepath.Dir(dir):
		case module != "":
			return module
		default:
			return own
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
