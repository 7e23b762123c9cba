package deps

import (
	"fmt"
	"strings"

	"github.com/Masterminds/semver/v3"
	"go.starlark.net/syntax"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/loader"
)

const (
	maxModFile = 64 << 10 // bytes of a rutter.mod.star
	maxDeclare = 500      // calls in one
	maxDepth   = 200      // of brackets
)

// File is what a rutter.mod.star declares.
type File struct {
	Path string // as positions name it

	// Name is what dependents call the module; "" for one that none can have.
	Name    string
	Version *semver.Version // nil where Name is ""
	// API is the language level that it was written for, Requires a range of
	// versions of rutter; 0 and "" for any.
	API      int
	Requires string
	// Deprecated says what to use in the module's place; "" while it is kept.
	Deprecated string

	Dependencies []Dependency
	Deprecations []Deprecation

	pos diag.Pos // of module(…)
}

// Dependency is one dependency(…): what a module asks for.
type Dependency struct {
	Name string
	// Version is the lowest that will do; nil for a folder's own.
	Version *semver.Version
	// Path is a folder as the file names it, or Git a repository with a Commit, and
	// Folder in it.
	Path, Git, Commit, Folder string

	Pos diag.Pos
}

// Deprecation is one deprecated(…): what a module will not keep.
type Deprecation struct {
	Library string // of the module, "@name"; set by who collects them
	File    string // within the module, "preflight.star"
	Name    string // of a function or value in it; "" for all of the file
	Arg     string // of that function; "" for all of it
	Nth     int    // where that is among the function's parameters, from 1; 0 if unknown
	// Use is the new name of the value or argument, Moved the file in which it is
	// now; "" where there is no such.
	Use, Moved string
	Since      string
	Note       string // in words
}

// parseFile reads a rutter.mod.star. It is no program: the file may hold nothing but
// a docstring and calls of module, dependency and deprecated with literal keyword
// arguments, so that reading it takes time in proportion to its length.
func parseFile(path string, src []byte) (*File, error) {
	if len(src) > maxModFile {
		return nil, diag.Usagef(path, "is larger than %d bytes", maxModFile)
	}
	if deep(src) {
		return nil, diag.Usagef(path, "nests brackets deeper than %d", maxDepth)
	}
	f, err := (&syntax.FileOptions{}).Parse(path, src, 0)
	if err != nil {
		return nil, &diag.Error{Code: diag.Usage, Err: err} // it begins with its position
	}
	if len(f.Stmts) > maxDeclare {
		return nil, diag.Usagef(path, "declares more than %d things", maxDeclare)
	}
	out := &File{Path: path}
	for i, s := range f.Stmts {
		e, ok := s.(*syntax.ExprStmt)
		if !ok {
			return nil, notData(path, s)
		}
		if l, ok := e.X.(*syntax.Literal); ok && i == 0 && l.Token == syntax.STRING {
			continue
		}
		c, err := readCall(path, e.X)
		if err != nil {
			return nil, err
		}
		if err := out.declare(c); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// deep reports whether brackets nest so deeply that the parser, which recurses,
// would need much of a stack. Strings and comments may make it say so too early,
// which nobody writes.
func deep(src []byte) bool {
	depth := 0
	for _, c := range src {
		switch c {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth--
		}
		if depth > maxDepth {
			return true
		}
	}
	return strings.Count(string(src), "not ") > maxDepth || strings.Count(string(src), "lambda") > maxDepth
}

func notData(path string, n syntax.Node) error {
	return faultAt(path, n, "is not a declaration", "module(…), dependency(…) or deprecated(…) with literal arguments: "+loader.ModFile+" is data, no program")
}

func faultAt(path string, n syntax.Node, problem, expect string) error {
	return &diag.Error{Code: diag.Usage, Pos: posOf(path, n), Problem: problem, Expect: expect, Changed: "nothing"}
}

func posOf(path string, n syntax.Node) diag.Pos {
	at, _ := n.Span()
	return diag.Pos{File: path, Line: int(at.Line), Col: int(at.Col)}
}

// call is one declaration: strings and numbers by keyword.
type call struct {
	name string
	pos  diag.Pos
	args map[string]any // string or int64
	at   map[string]diag.Pos
}

// keywords are the arguments of each declaration.
var keywords = map[string][]string{
	"module":     {"name", "version", "api", "requires", "deprecated"},
	"dependency": {"name", "version", "path", "git", "commit", "folder"},
	"deprecated": {"file", "name", "argument", "use", "moved", "since", "note"},
}

func readCall(path string, e syntax.Expr) (*call, error) {
	x, ok := e.(*syntax.CallExpr)
	if !ok {
		return nil, notData(path, e)
	}
	fn, ok := x.Fn.(*syntax.Ident)
	if !ok || keywords[fn.Name] == nil {
		return nil, notData(path, e)
	}
	c := &call{name: fn.Name, pos: posOf(path, x), args: map[string]any{}, at: map[string]diag.Pos{}}
	for i, a := range x.Args {
		key, v := "", a
		if b, ok := a.(*syntax.BinaryExpr); ok && b.Op == syntax.EQ {
			id, ok := b.X.(*syntax.Ident)
			if !ok {
				return nil, notData(path, a)
			}
			key, v = id.Name, b.Y
		} else if i == 0 {
			key = keywords[fn.Name][0] // the subject, as everywhere in the language
		}
		if err := c.set(path, key, a, v); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *call) set(path, key string, at syntax.Node, v syntax.Expr) error {
	known := false
	for _, k := range keywords[c.name] {
		known = known || k == key
	}
	l, ok := v.(*syntax.Literal)
	switch {
	case !known:
		problem := fmt.Sprintf("%s has no argument %q", c.name, key)
		if key == "" {
			problem = c.name + " takes its arguments by keyword"
		} else if near := diag.Nearest(key, keywords[c.name]); near != "" {
			problem += fmt.Sprintf("; did you mean %q?", near)
		}
		return faultAt(path, at, problem, strings.Join(keywords[c.name], ", "))
	case !ok:
		return faultAt(path, v, "is not a literal", "a text or a number: "+loader.ModFile+" is data, no program")
	case c.args[key] != nil:
		return faultAt(path, at, key+" is given twice", "")
	}
	switch x := l.Value.(type) {
	case string:
		if (key == "api") || strings.ContainsFunc(x, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) || len(x) > 1000 {
			return faultAt(path, v, key+" is not what it can be", map[bool]string{true: "a number", false: "at most 1000 printable characters"}[key == "api"])
		}
		c.args[key] = x
	case int64:
		if key != "api" {
			return faultAt(path, v, key+" is a number", "a text")
		}
		c.args[key] = x
	default:
		return faultAt(path, v, key+" is neither text nor a number", "")
	}
	c.at[key] = posOf(path, v)
	return nil
}

func (c *call) text(key string) string { s, _ := c.args[key].(string); return s }

func (c *call) fault(key, problem, expect string) error {
	pos, ok := c.at[key]
	if !ok {
		pos = c.pos
	}
	return &diag.Error{Code: diag.Usage, Pos: pos, Problem: problem, Expect: expect, Changed: "nothing"}
}

// version reads an argument as a version, nil where it is not given.
func (c *call) version(key string) (*semver.Version, error) {
	if c.text(key) == "" {
		return nil, nil
	}
	v, err := semver.StrictNewVersion(c.text(key))
	if err != nil || v.Metadata() != "" {
		return nil, c.fault(key, fmt.Sprintf("%s: %q is no version", c.name, c.text(key)), "MAJOR.MINOR.PATCH, such as 1.4.0")
	}
	return v, nil
}

func (f *File) declare(c *call) error {
	switch c.name {
	case "module":
		return f.module(c)
	case "dependency":
		return f.dependency(c)
	}
	return f.deprecated(c)
}

func (f *File) module(c *call) error {
	if f.pos.Line != 0 {
		return c.fault("", "module is declared twice", "one module(…) in a file")
	}
	f.pos = c.pos
	f.Name, f.Requires, f.Deprecated = c.text("name"), c.text("requires"), c.text("deprecated")
	if !loader.IsName(f.Name) || f.Name == "stdlib" {
		return c.fault("name", fmt.Sprintf("module: %q is no name for a module", f.Name), "lower-case letters, digits and single dashes, and not stdlib")
	}
	var err error
	if f.Version, err = c.version("version"); err != nil {
		return err
	}
	if f.Version == nil {
		return c.fault("", "module "+f.Name+" has no version", `version = "1.0.0"`)
	}
	if n, ok := c.args["api"].(int64); ok {
		if f.API = int(n); n < 1 || n > 1000 {
			return c.fault("api", fmt.Sprintf("api: %d is no language level", n), "a number from 1 on")
		}
	}
	if f.Requires != "" {
		if _, err := semver.NewConstraint(f.Requires); err != nil {
			return c.fault("requires", fmt.Sprintf("requires: %q is no range of versions of rutter", f.Requires), `one such as ">=1.2"`)
		}
	}
	return nil
}

func (f *File) dependency(c *call) error {
	d := Dependency{Name: c.text("name"), Path: c.text("path"), Git: c.text("git"), Commit: c.text("commit"), Folder: c.text("folder"), Pos: c.pos}
	if !loader.IsName(d.Name) || d.Name == "stdlib" {
		return c.fault("name", fmt.Sprintf("dependency: %q is no name of a module", d.Name), "the name that the dependency's own "+loader.ModFile+" gives it: lower-case letters, digits and single dashes")
	}
	for _, other := range f.Dependencies {
		if other.Name == d.Name {
			return c.fault("name", "dependency "+d.Name+" is declared twice", "")
		}
	}
	var err error
	if d.Version, err = c.version("version"); err != nil {
		return err
	}
	switch {
	case (d.Path == "") == (d.Git == ""):
		return c.fault("", "dependency "+d.Name+" is neither a folder nor a repository", "path = …, or git = … with commit = …")
	case d.Path != "":
		if d.Commit != "" || d.Folder != "" {
			return c.fault("", "dependency "+d.Name+" is a folder", "path = … alone, or with version = …")
		}
		if err := validPath(d.Path, true); err != nil {
			return c.fault("path", "dependency "+d.Name+": "+err.Error(), "a folder of this repository, relative to the one of "+loader.ModFile)
		}
	default:
		if d.Version == nil {
			return c.fault("", "dependency "+d.Name+" has no version", `version = "…", the lowest that will do: the one that the module has at that commit`)
		}
		if err := ValidURL(d.Git); err != nil {
			return c.fault("git", "dependency "+d.Name+": "+err.Error(), "https://…, ssh://… or git@host:path, and on this machine file:///…")
		}
		if !validCommit(d.Commit) {
			return c.fault("commit", fmt.Sprintf("dependency %s: %q is no commit", d.Name, d.Commit), "all 40 (or 64) lower-case hex digits of one: branches and tags move")
		}
		if d.Folder == "" {
			d.Folder = "."
		}
		if err := validPath(d.Folder, false); err != nil {
			return c.fault("folder", "dependency "+d.Name+": "+err.Error(), "a folder of that repository")
		}
	}
	f.Dependencies = append(f.Dependencies, d)
	return nil
}

func (f *File) deprecated(c *call) error {
	d := Deprecation{
		File: strings.TrimPrefix(c.text("file"), "//"), Name: c.text("name"), Arg: c.text("argument"), Use: c.text("use"),
		Moved: strings.TrimPrefix(c.text("moved"), "//"), Since: c.text("since"), Note: c.text("note"),
	}
	for key, file := range map[string]string{"file": d.File, "moved": d.Moved} {
		if file == "" && key == "moved" {
			continue
		}
		if err := validPath(file, false); err != nil || !strings.HasSuffix(file, ".star") {
			return c.fault(key, fmt.Sprintf("deprecated: %q is no file of this module", file), `one such as "//preflight.star"`)
		}
	}
	for key, name := range map[string]string{"name": d.Name, "use": d.Use, "argument": d.Arg} {
		if name != "" && !isIdentifier(name) {
			return c.fault(key, fmt.Sprintf("deprecated: %q is no name in Starlark", name), "")
		}
	}
	switch {
	case d.Use == "" && d.Moved == "" && d.Note == "":
		return c.fault("", "deprecated says nothing of what to use instead", "use = NAME, moved = FILE, or note = …")
	case d.Use != "" && d.Name == "":
		return c.fault("use", "deprecated: use is the new name of something in the file", "name = …, the old one")
	case d.Arg != "" && (d.Name == "" || d.Moved != ""):
		return c.fault("argument", "deprecated: an argument is one of a function that stays where it is", "name = …, the function, and no moved = …")
	}
	f.Deprecations = append(f.Deprecations, d)
	return nil
}

// isIdentifier reports whether s is a name that a script can write.
func isIdentifier(s string) bool {
	for i, c := range s {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
