package loader

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/env"
)

const (
	maxFile  = 1 << 20 // bytes of one module
	maxFiles = 500     // modules of one runbook
)

// options are those of every module: explicit, because the zero value and the
// library's legacy globals may change under us.
func options() *syntax.FileOptions {
	return &syntax.FileOptions{
		Set: true, While: false, TopLevelControl: false, GlobalReassign: false,
		LoadBindsGlobally: false, Recursion: false,
	}
}

// Loader reads the modules of one entry file. It is safe for use by one
// goroutine at a time.
type Loader struct {
	entry string
	open  func(label string) (io.ReadCloser, error)
	names func(library string) []string // files of a library, for "did you mean"
	sees  func(from, library string) error
	cache *Cache
	done  func() error
	held  []fs.FileInfo // files that it refuses
}

// Withhold makes the loader refuse files, by whatever name they are reached:
// those of the organization's policy, which no runbook may read.
func (l *Loader) Withhold(files []fs.FileInfo) { l.held = append(l.held, files...) }

// errWithheld is the error of a file that the loader was told to refuse.
var errWithheld = errors.New("belongs to the organization's policy, which no runbook may read")

// Cache keeps compiled modules by label, content and predeclared names, for any
// number of loaders. It is safe for concurrent use.
type Cache struct {
	mu sync.Mutex
	m  map[cacheKey]*Module
}

type cacheKey struct {
	label       string
	content     [sha256.Size]byte
	predeclared string
}

// NewCache is an empty cache.
func NewCache() *Cache { return &Cache{m: map[cacheKey]*Module{}} }

// Module is one compiled source file.
type Module struct {
	Label   string
	Source  string
	Doc     string // the module's docstring
	Program *starlark.Program
	Globals []string // names that it defines, in order
}

// Dir loads from a folder: entry is a path within root. Symbolic links that
// lead out of root are refused by the operating system's rules (os.Root). std
// holds the standard library and may be nil. A nil cache means one's own.
// Close releases the folder.
func Dir(root, entry string, std fs.FS, cache *Cache) (*Loader, error) {
	r, err := os.OpenRoot(root)
	if err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: root, Problem: "cannot be opened as runbook root", Err: err}
	}
	return FS(env.RootFS(r), filepath.ToSlash(entry), std, cache, r.Close), nil
}

// FS loads from any file system; closer may be nil.
func FS(root fs.FS, entry string, std fs.FS, cache *Cache, closer func() error) *Loader {
	return New(Sources{Root: root, Stdlib: std}, Label(entry), cache, closer)
}

// Sources are the places that modules come from.
type Sources struct {
	Root   fs.FS // of the runbook: "//dir/file.star"
	Stdlib fs.FS // "@stdlib//file.star"; may be nil
	// Libraries are the dependencies by name: "@name//dir/file.star". One with a
	// method Names() []string is asked for its files that way.
	Libraries map[string]fs.FS
	// Sees are the names of the dependencies that the modules of a library may
	// load, those that it declares; "" is the runbook's own root.
	Sees map[string][]string
}

// Label is how an entry file below the root is called among modules.
func Label(entry string) string { return "//" + path.Clean(strings.TrimPrefix(entry, "./")) }

// LibraryLabel is how a file of a dependency is called among modules.
func LibraryLabel(name, file string) string { return "@" + name + "//" + path.Clean(file) }

// New loads from sources, beginning with the module entry, a label. closer may
// be nil, and a nil cache means one's own.
func New(s Sources, entry string, cache *Cache, closer func() error) *Loader {
	pick := func(library string) fs.FS {
		switch library {
		case "":
			return s.Root
		case stdlib:
			return s.Stdlib
		}
		return s.Libraries[library[1:]]
	}
	return &Loader{
		entry: entry,
		cache: orNew(cache),
		done:  closer,
		open: func(label string) (io.ReadCloser, error) {
			library, file := splitLabel(label)
			from := pick(library)
			if from == nil {
				return nil, fs.ErrNotExist
			}
			return from.Open(file)
		},
		names: func(library string) []string { return starFiles(pick(library)) },
		sees: func(from, library string) error {
			from = strings.TrimPrefix(from, "@")
			if library == "" || library == stdlib || library == "@"+from || slices.Contains(s.Sees[from], library[1:]) {
				return nil
			}
			return undeclared(from, library, s.Sees[from])
		},
	}
}

// undeclared is the error of a load from a library that the loading module does
// not declare: what its dependencies depend on is not its own.
func undeclared(from, library string, declared []string) error {
	what := "no dependency"
	if len(declared) > 0 {
		what = "@" + strings.Join(declared, ", @")
	}
	err := fmt.Sprintf("there is no library %q; %s declares %s, and @stdlib comes with rutter", library, modFileOf(from), what)
	if near := diag.Nearest(library[1:], append(declared[:len(declared):len(declared)], stdlib[1:])); near != "" {
		err += fmt.Sprintf("; did you mean \"@%s\"?", near)
	}
	return errors.New(err)
}

// ModFile is where a module tree declares itself and what it depends on.
const ModFile = "rutter.mod.star"

func modFileOf(library string) string {
	if library == "" {
		return ModFile
	}
	return "the " + ModFile + " of @" + library
}

// FromBundle loads from a pinned bundle and nothing else.
func FromBundle(b *Bundle, cache *Cache) *Loader {
	return &Loader{
		entry: b.Entry,
		cache: orNew(cache),
		open: func(label string) (io.ReadCloser, error) {
			src, ok := b.Files[label]
			if !ok {
				return nil, fs.ErrNotExist
			}
			return io.NopCloser(strings.NewReader(src)), nil
		},
		names: func(library string) []string {
			var out []string
			for l := range b.Files {
				if lib, file := splitLabel(l); lib == library {
					out = append(out, file)
				}
			}
			return out
		},
		sees: func(string, string) error { return nil }, // it was asked when the bundle was made
	}
}

// Close releases what Dir opened.
func (l *Loader) Close() error {
	if l.done == nil {
		return nil
	}
	return l.done()
}

func orNew(c *Cache) *Cache {
	if c == nil {
		return NewCache()
	}
	return c
}

// starFiles lists the modules of a file system, up to a bound; what cannot be
// read is left out, since this only serves a suggestion.
func starFiles(fsys fs.FS) []string {
	var out []string
	if fsys == nil {
		return nil
	}
	if l, ok := fsys.(interface{ Names() []string }); ok {
		return l.Names()
	}
	seen := 0
	_ = fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		seen++
		if seen > 5000 {
			return fs.SkipAll
		}
		if err == nil && !d.IsDir() && strings.HasSuffix(p, ".star") {
			out = append(out, p)
		}
		if err == nil && d.IsDir() && p != "." && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		return nil
	})
	return out
}

// Graph is an entry file with everything that it loads, compiled.
type Graph struct {
	Entry   *Module
	Modules map[string]*Module
	Order   []*Module // dependencies first; the entry last
	Bundle  *Bundle
}

// SourceError is the error of a module that does not load. Err is a
// *diag.Error of this package, a syntax.Error or a resolve.ErrorList.
type SourceError struct {
	Module *Module // label and source of the file at fault; Source is "" if unreadable
	Err    error
}

// Error implements error.
func (e *SourceError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *SourceError) Unwrap() error { return e.Err }

// Collect reads and compiles the entry file and all that it loads. Errors are
// *SourceErrors.
func (l *Loader) Collect(predeclared starlark.StringDict) (*Graph, error) {
	c := &collector{
		l: l, predeclared: predeclared, names: strings.Join(predeclared.Keys(), ","),
		g: &Graph{Modules: map[string]*Module{}, Bundle: &Bundle{Entry: l.entry, Files: map[string]string{}}},
	}
	m, err := c.visit(l.entry, nil, nil)
	if err != nil {
		return nil, err
	}
	c.g.Entry = m
	return c.g, nil
}

type collector struct {
	l           *Loader
	predeclared starlark.StringDict
	names       string
	g           *Graph
}

// visit compiles label and, before it is done, all that it loads. chain is the
// path of loads that led here; at is the load statement, nil for the entry.
func (c *collector) visit(label string, chain []string, at *syntax.Position) (*Module, error) {
	if m := c.g.Modules[label]; m != nil {
		return m, nil
	}
	if len(c.g.Bundle.Files) >= maxFiles {
		return nil, c.fault(chain, at, diag.Usagef(Filename(label), "the runbook loads more than %d modules", maxFiles))
	}
	src, err := c.l.read(label)
	if err != nil {
		return nil, c.fault(chain, at, c.l.unreadable(label, err))
	}
	m, err := c.l.cache.compile(label, src, c.names, c.predeclared)
	if err != nil {
		return nil, &SourceError{Module: &Module{Label: label, Source: src}, Err: err}
	}
	c.g.Bundle.Files[label] = src
	chain = append(chain[:len(chain):len(chain)], label)
	for i := range m.Program.NumLoads() {
		name, pos := m.Program.Load(i)
		target, err := Resolve(label, name)
		if err != nil {
			return nil, c.fault(chain, &pos, &diag.Error{Code: diag.Usage, Err: err})
		}
		from, _ := splitLabel(label)
		to, _ := splitLabel(target)
		if err := c.l.sees(from, to); err != nil {
			return nil, c.fault(chain, &pos, &diag.Error{Code: diag.Usage, Err: err})
		}
		if err := cycle(chain, target); err != nil {
			return nil, c.fault(chain, &pos, err)
		}
		if _, err := c.visit(target, chain, &pos); err != nil {
			return nil, err
		}
	}
	c.g.Modules[label] = m
	c.g.Order = append(c.g.Order, m)
	return m, nil
}

// fault places err at the load statement that led to it.
func (c *collector) fault(chain []string, at *syntax.Position, err *diag.Error) error {
	if at == nil {
		return &SourceError{Module: &Module{Label: c.l.entry}, Err: err}
	}
	err.Pos = diag.Pos{File: at.Filename(), Line: int(at.Line), Col: int(at.Col)}
	if err.Subject != "" {
		err.Problem = err.Subject + " " + err.Problem
		err.Subject = ""
	}
	label := chain[len(chain)-1]
	return &SourceError{Module: &Module{Label: label, Source: c.g.Bundle.Files[label]}, Err: err}
}

func cycle(chain []string, target string) *diag.Error {
	for i, l := range chain {
		if l != target {
			continue
		}
		var names []string
		for _, m := range append(chain[i:len(chain):len(chain)], target) {
			names = append(names, Filename(m))
		}
		return &diag.Error{Code: diag.Usage, Problem: "modules load each other in a cycle: " + strings.Join(names, " → ")}
	}
	return nil
}

func (l *Loader) read(label string) (src string, err error) {
	f, err := l.open(label)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := l.withheld(f); err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxFile {
		return "", fmt.Errorf("is larger than %d bytes", maxFile)
	}
	return string(b), nil
}

// withheld refuses an open file that the loader was told to refuse.
func (l *Loader) withheld(f io.Reader) error {
	file, ok := f.(fs.File)
	if !ok || len(l.held) == 0 {
		return nil // a bundle holds what was let through before
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(l.held, func(h fs.FileInfo) bool { return os.SameFile(h, info) }) {
		return errWithheld
	}
	return nil
}

func (l *Loader) unreadable(label string, err error) *diag.Error {
	library, file := splitLabel(label)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e := diag.Usagef(Filename(label), "does not exist in %s", where(library))
		if near := nearestFile(file, l.names(library)); near != "" {
			e.Problem += fmt.Sprintf("; did you mean %q?", library+"//"+near)
		}
		return e
	case errors.Is(err, errWithheld):
		return diag.Usagef(Filename(label), "%s", err.Error())
	case strings.Contains(err.Error(), "escapes"):
		// os.Root has no sentinel for this (its error text is "path escapes from parent").
		return diag.Usagef(Filename(label), "leads outside %s", where(library))
	}
	e := diag.Usagef(Filename(label), "cannot be read")
	e.Err = err
	return e
}

// nearestFile finds a file of the same name elsewhere, or of a similar path or
// name.
func nearestFile(file string, have []string) string {
	for _, h := range have {
		if path.Base(h) == path.Base(file) {
			return h
		}
	}
	if near := diag.Nearest(file, have); near != "" {
		return near
	}
	byBase := map[string]string{}
	var bases []string
	for _, h := range have {
		byBase[path.Base(h)] = h
		bases = append(bases, path.Base(h))
	}
	return byBase[diag.Nearest(path.Base(file), bases)]
}

func (c *Cache) compile(label, src, names string, predeclared starlark.StringDict) (*Module, error) {
	key := cacheKey{label: label, content: sha256.Sum256([]byte(src)), predeclared: names}
	c.mu.Lock()
	m := c.m[key]
	c.mu.Unlock()
	if m != nil {
		return m, nil
	}
	m, err := compile(label, src, predeclared.Has)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.m[key] = m
	c.mu.Unlock()
	return m, nil
}

// compile parses, rewrites and resolves a module. A source that one of them
// panics on is an error of that source.
func compile(label, src string, has func(string) bool) (m *Module, err error) {
	defer func() {
		if p := recover(); p != nil {
			m, err = nil, diag.Usagef(Filename(label), "can't be compiled: %v", p)
		}
	}()
	f, err := options().Parse(Filename(label), src, 0)
	if err != nil {
		return nil, err
	}
	m = &Module{Label: label, Source: src, Doc: docstring(f), Globals: globals(f)}
	check(f, has)
	if m.Program, err = starlark.FileProgram(f, has); err != nil {
		return nil, err
	}
	return m, nil
}

func docstring(f *syntax.File) string {
	if len(f.Stmts) == 0 {
		return ""
	}
	if s, ok := f.Stmts[0].(*syntax.ExprStmt); ok {
		if lit, ok := s.X.(*syntax.Literal); ok && lit.Token == syntax.STRING {
			return strings.TrimSpace(lit.Value.(string))
		}
	}
	return ""
}

func globals(f *syntax.File) []string {
	var out []string
	for _, s := range f.Stmts {
		switch s := s.(type) {
		case *syntax.DefStmt:
			out = append(out, s.Name.Name)
		case *syntax.AssignStmt:
			if id, ok := s.LHS.(*syntax.Ident); ok {
				out = append(out, id.Name)
			}
		}
	}
	return out
}
