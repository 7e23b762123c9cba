package deps

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/lockfile"
)

// Places that a dependency's content is taken from.
const (
	InVendor = "vendor"
	InFolder = "folder"
	InCache  = "cache"
	Missing  = "missing"
)

// here takes a locked dependency from this machine: from vendor/, its folder or the
// cache. What is there in another form than the locked one is refused, and not
// looked for elsewhere.
func (m *Manager) here(_ context.Context, mod *Module, l Locked) (*Content, error) {
	switch m.place(mod, l) {
	case InFolder:
		c, err := mod.folder(l.Source)
		return held(l, c, err, l.Source.Path, "look at what changed, then rutter deps lock")
	case InVendor:
		c, err := vendored(mod, l.Name)
		return held(l, c, err, path.Join(Vendor, l.Name), "look at what changed, then rutter vendor puts back what is locked")
	case InCache:
		c, err := m.cached(l.Digest)
		return held(l, c, err, m.cachePath(l.Digest), "rutter deps fetch")
	}
	return nil, &diag.Error{
		Code: diag.Usage, Subject: fmt.Sprintf("dependency %s %s", l.Name, l.Version), Problem: "is not on this machine",
		Expect: "it in " + Vendor + "/ or the cache", Changed: "nothing", Next: "rutter deps fetch, or rutter vendor to keep it in the repository",
	}
}

// place is where a locked dependency would be taken from.
func (m *Manager) place(mod *Module, l Locked) string {
	if l.Source.Git == "" {
		return InFolder
	}
	if exists(filepath.Join(mod.Dir, Vendor, l.Name)) {
		return InVendor
	}
	if m.o.Cache != "" && exists(m.cachePath(l.Digest)) {
		return InCache
	}
	return Missing
}

func exists(p string) bool {
	_, err := os.Lstat(p)
	return err == nil
}

// held refuses content whose digest is not the locked one.
func held(l Locked, c *Content, err error, where, next string) (*Content, error) {
	d := &diag.Error{Code: diag.Usage, Subject: fmt.Sprintf("dependency %s %s", l.Name, l.Version), Changed: "nothing", Next: next}
	if err != nil {
		d.Problem, d.Err = where+" can't be taken", err
		return nil, d
	}
	if got := c.Digest(); got != l.Digest {
		d.Problem = fmt.Sprintf("%s is not what %s has: its content is %s", where, lockfile.Name, got)
		d.Expect = l.Digest
		return nil, d
	}
	return c, nil
}

// vendored reads a dependency that is kept in the module.
func vendored(mod *Module, name string) (*Content, error) {
	root, err := os.OpenRoot(mod.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // it was only read
	return readBelow(root, filepath.Join(Vendor, name))
}

func readBelow(root *os.Root, dir string) (*Content, error) {
	inside, err := root.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = inside.Close() }() // it was only read
	return readFolder(inside)
}

func (m *Manager) cachePath(digest string) string {
	return filepath.Join(m.o.Cache, strings.Replace(digest, ":", "-", 1))
}

func (m *Manager) cached(digest string) (*Content, error) {
	root, err := os.OpenRoot(m.cachePath(digest))
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // it was only read
	return readFolder(root)
}

// keep puts content into the cache, as a whole. What is there under its digest and
// is something else, which somebody changed, makes way.
func (m *Manager) keep(c *Content) error {
	if m.o.Cache == "" {
		return nil
	}
	to := m.cachePath(c.Digest())
	if old, err := m.cached(c.Digest()); err == nil && old.Digest() == c.Digest() {
		return nil
	}
	if err := os.MkdirAll(m.o.Cache, 0o755); err != nil { // #nosec G301 -- sources, which everybody may read
		return err
	}
	temp, err := os.MkdirTemp(m.o.Cache, ".new-")
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(temp)
	if err == nil {
		err = errors.Join(c.write(root, "."), root.Close())
	}
	if err == nil {
		err = os.Rename(temp, to)
	}
	if err != nil { // it may be there: changed, or put there by somebody else just now
		if now, e := m.cached(c.Digest()); e == nil && now.Digest() == c.Digest() {
			return os.RemoveAll(temp)
		}
		err = errors.Join(os.RemoveAll(to), os.Rename(temp, to))
	}
	return errors.Join(err, os.RemoveAll(temp))
}

// near is here, and where it is missing or damaged in the cache, the repository.
// What that has now is held to the lock, too.
func (m *Manager) near(ctx context.Context, mod *Module, l Locked) (*Content, error) {
	c, err := m.here(ctx, mod, l)
	if err == nil || l.Source.Git == "" || m.place(mod, l) == InVendor {
		return c, err
	}
	return m.fetched(ctx, mod, l)
}

func (m *Manager) fetched(ctx context.Context, _ *Module, l Locked) (*Content, error) {
	c, err := m.fetch(ctx, l.Source)
	if err != nil {
		return nil, &diag.Error{Subject: fmt.Sprintf("dependency %s %s", l.Name, l.Version), Problem: "can't be fetched", Err: err, Changed: "nothing"}
	}
	if c, err = held(l, c, nil, l.Source.Git+" at "+l.Source.Commit, "find out who changed which of the two"); err != nil {
		return nil, err
	}
	return c, m.keep(c)
}

// Fetch brings here what the lock has and this machine has not, and says what it
// fetched.
func (m *Manager) Fetch(ctx context.Context, mod *Module) ([]Locked, error) {
	lock, err := ReadLock(mod.LockPath())
	if err != nil {
		return nil, err
	}
	var got []Locked
	_, err = m.walk(ctx, mod, lock, func(ctx context.Context, mod *Module, l Locked) (*Content, error) {
		if c, err := m.here(ctx, mod, l); err == nil {
			return c, nil
		}
		c, err := m.near(ctx, mod, l)
		if err == nil {
			got = append(got, l)
		}
		return c, err
	})
	return got, err
}

// vendorList names what Vendor has put beside it, so that what is no dependency any
// more can go without touching anything else.
const vendorList = "rutter.txt"

// VendorAll keeps what the module depends on in its folder vendor/, and says what
// is there now. Folders of the repository stay where they are.
func (m *Manager) VendorAll(ctx context.Context, mod *Module) ([]Locked, error) {
	lock, err := ReadLock(mod.LockPath())
	if err != nil {
		return nil, err
	}
	all, err := m.walk(ctx, mod, lock, func(ctx context.Context, mod *Module, l Locked) (*Content, error) {
		c, err := m.here(ctx, mod, l)
		if err == nil || l.Source.Git == "" {
			return c, err
		}
		if c, err := m.cached(l.Digest); err == nil && c.Digest() == l.Digest { // vendor/ was changed
			return c, nil
		}
		return m.fetched(ctx, mod, l)
	})
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(mod.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // what was written was closed
	var names []string
	var out []Locked
	for _, v := range all {
		if v.Source.Git == "" {
			continue
		}
		if err := place(root, v); err != nil {
			return nil, fmt.Errorf("%s: %w", path.Join(Vendor, v.Name), err)
		}
		names, out = append(names, v.Name), append(out, v.Locked)
	}
	return out, tidy(root, names)
}

// place writes a dependency below vendor/, where it is not there already.
func place(root *os.Root, v visit) error {
	to := filepath.Join(Vendor, v.Name)
	if now, err := readBelow(root, to); err == nil && now.Digest() == v.Digest {
		return nil
	}
	temp := filepath.Join(Vendor, "."+v.Name+".new")
	if err := root.RemoveAll(temp); err != nil {
		return err
	}
	if err := v.content.write(root, temp); err != nil {
		return errors.Join(err, root.RemoveAll(temp))
	}
	if err := root.RemoveAll(to); err != nil {
		return err
	}
	return root.Rename(temp, to)
}

// tidy removes what an earlier VendorAll put there and is no dependency any more.
func tidy(root *os.Root, names []string) error {
	list := filepath.Join(Vendor, vendorList)
	old, err := root.ReadFile(list)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	keep := map[string]bool{}
	for _, n := range names {
		keep[n] = true
	}
	for name := range strings.FieldsSeq(string(old)) {
		if loader.IsName(name) && !keep[name] {
			if err := root.RemoveAll(filepath.Join(Vendor, name)); err != nil {
				return err
			}
		}
	}
	switch {
	case len(names) > 0:
		return root.WriteFile(list, []byte(strings.Join(names, "\n")+"\n"), 0o644)
	case len(old) > 0:
		return root.Remove(list)
	}
	return nil
}
