package deps

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/loader"
)

// Opened is a module with everything that it depends on, as it is locked and held
// in memory.
type Opened struct {
	*Module
	// Libraries are the dependencies by name.
	Libraries map[string]*Content
	// Deprecations are those of the dependencies; Warnings what to tell of the
	// dependencies themselves.
	Deprecations []Deprecation
	Warnings     []string

	sees map[string][]string
}

// Open takes what the lock has from this machine. It asks no network.
func (m *Manager) Open(ctx context.Context, mod *Module) (*Opened, error) {
	o := &Opened{Module: mod, Libraries: map[string]*Content{}, sees: map[string][]string{}}
	if mod.File == nil {
		return o, nil
	}
	lock := Lock{}
	if len(mod.File.Dependencies) > 0 {
		var err error
		if lock, err = ReadLock(mod.LockPath()); err != nil {
			return nil, err
		}
	}
	all, err := m.walk(ctx, mod, lock, m.here)
	if err != nil {
		return nil, err
	}
	o.sees[""] = names(mod.File)
	for _, v := range all {
		o.Libraries[v.Name] = v.content
		o.sees[v.Name] = names(v.file)
		if v.file.Deprecated != "" {
			o.Warnings = append(o.Warnings, fmt.Sprintf("dependency %s %s is deprecated: %s", v.Name, v.Version, v.file.Deprecated))
		}
		for _, d := range v.file.Deprecations {
			d.Library = "@" + v.Name
			o.Deprecations = append(o.Deprecations, d)
		}
	}
	return o, nil
}

// Declares reports whether the module itself declares a dependency, and so may load
// from it.
func (o *Opened) Declares(name string) bool { return slices.Contains(o.sees[""], name) }

func names(f *File) []string {
	var out []string
	for _, d := range f.Dependencies {
		out = append(out, d.Name)
	}
	slices.Sort(out)
	return out
}

// Loader loads from the module and its dependencies, beginning with entry, a label
// ("//up.star", "@ops//up.star").
func (o *Opened) Loader(entry string, std fs.FS, cache *loader.Cache) (*loader.Loader, error) {
	root, err := os.OpenRoot(o.Dir)
	if err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: o.Dir, Problem: "cannot be opened as runbook root", Err: err}
	}
	libs := map[string]fs.FS{}
	for name, c := range o.Libraries {
		libs[name] = c
	}
	return loader.New(loader.Sources{Root: env.RootFS(root), Stdlib: std, Libraries: libs, Sees: o.sees}, entry, cache, root.Close), nil
}

// State is a dependency with where its content is.
type State struct {
	Locked
	Place string `json:"place"` // InVendor, InFolder, InCache or Missing
	// Problem says why it would be refused; "" where it would not.
	Problem string `json:"problem,omitempty"`
}

// States are the dependencies of the lock by name. It looks at each of them, and
// stops at none.
func (m *Manager) States(ctx context.Context, mod *Module) ([]State, error) {
	lock, err := ReadLock(mod.LockPath())
	if err != nil {
		return nil, err
	}
	var out []State
	for _, l := range lock.Sorted() {
		s := State{Locked: l, Place: m.place(mod, l)}
		if _, err := m.here(ctx, mod, l); err != nil {
			s.Problem = err.Error()
		}
		out = append(out, s)
	}
	return out, nil
}
