// Package fix finds what a runbook uses that will not be kept, says what to use
// instead, and rewrites what can be rewritten without changing what the runbook
// does. What is deprecated is said by the rutter.mod.star of dependencies, by the
// docstrings of functions that are loaded, and by the declarations of builtins.
package fix

import (
	"fmt"
	"slices"
	"strings"

	"go.starlark.net/syntax"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/deps"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/loader"
)

// Finding is one use of something deprecated, or one thing that is missing.
type Finding struct {
	Pos     diag.Pos
	Problem string // "check is deprecated since 1.3.0"
	Instead string // "use precheck"; "" where nothing takes its place
	// Rewritten says that Source's result has the new form.
	Rewritten bool
	// Minor says that it is worth a rewrite and no warning.
	Minor bool

	edits []edit
	load  *syntax.LoadStmt // that is taken apart, if any
}

// String is one line: position, problem, what to do.
func (f Finding) String() string {
	s := f.Problem
	if p := f.Pos.String(); p != "" {
		s = p + ": " + s
	}
	if f.Instead != "" {
		s += "; " + f.Instead
	}
	return s
}

// Rules are what is deprecated.
type Rules struct {
	// API is the present language level, which a runbook that names none is given.
	API          int
	Dependencies []deps.Deprecation
	Builtins     []*builtin.Spec
	// Read gives the source of a module that is loaded, for the marks in it; nil for
	// none.
	Read func(label string) (src string, ok bool)
}

// Source looks at a module's source, called label, and gives its findings in the
// order of lines, and the source with what could be rewritten. A source that does
// not parse is an error with its position.
func Source(label, src string, rules Rules) ([]Finding, string, error) {
	found, out, err := once(label, src, rules)
	if err != nil {
		return nil, "", err
	}
	// One statement is rewritten in one way at a time.
	left := map[string]bool{}
	for now := out; ; {
		last, next, err := once(label, now, rules)
		if err != nil {
			return nil, "", fmt.Errorf("rewritten, it does not parse: %w", err)
		}
		out = now
		if next != now {
			now = next
			continue
		}
		for _, f := range last {
			left[f.Problem] = true
		}
		break
	}
	for i, f := range found {
		found[i].Rewritten = !left[f.Problem]
	}
	return found, out, nil
}

// once finds and rewrites what can be rewritten at once.
func once(label, src string, rules Rules) ([]Finding, string, error) {
	name := loader.Filename(label)
	f, err := (&syntax.FileOptions{}).Parse(name, src, 0)
	if err != nil {
		return nil, "", &diag.Error{Code: diag.Usage, Err: err, Changed: "nothing"}
	}
	x := &finder{label: label, name: name, src: src, file: f, lines: lineStarts(src), rules: rules}
	x.scan()
	for _, s := range f.Stmts {
		if l, ok := s.(*syntax.LoadStmt); ok {
			x.load(l)
		}
	}
	x.builtins()
	x.level()
	slices.SortStableFunc(x.found, func(a, b Finding) int {
		if a.Pos.Line != b.Pos.Line {
			return a.Pos.Line - b.Pos.Line
		}
		return a.Pos.Col - b.Pos.Col
	})
	return x.found, x.rewritten(), nil
}

// finder goes through one file.
type finder struct {
	label, name, src string
	file             *syntax.File
	lines            []int // where each line starts
	rules            Rules
	found            []Finding

	uses  map[string][]*syntax.Ident // by name: mentions, without names of keywords and attributes
	bound map[string]int             // how often a name is bound: loads, assignments, parameters
	calls []*syntax.CallExpr
	dots  []*syntax.DotExpr
}

// scan collects the mentions of names.
func (x *finder) scan() {
	x.uses, x.bound = map[string][]*syntax.Ident{}, map[string]int{}
	keywords := map[*syntax.Ident]bool{}
	syntax.Walk(x.file, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.LoadStmt:
			for _, to := range n.To {
				x.bound[to.Name]++
			}
			return false
		case *syntax.CallExpr:
			x.calls = append(x.calls, n)
			for _, a := range n.Args {
				if b, ok := a.(*syntax.BinaryExpr); ok && b.Op == syntax.EQ {
					if id, ok := b.X.(*syntax.Ident); ok {
						keywords[id] = true
					}
				}
			}
		case *syntax.DotExpr:
			x.dots = append(x.dots, n)
			keywords[n.Name] = true
		case *syntax.DefStmt:
			x.bound[n.Name.Name]++
			x.bind(n.Params...)
		case *syntax.LambdaExpr:
			x.bind(n.Params...)
		case *syntax.AssignStmt:
			x.bind(n.LHS)
		case *syntax.ForStmt:
			x.bind(n.Vars)
		case *syntax.ForClause:
			x.bind(n.Vars)
		case *syntax.Ident:
			if !keywords[n] {
				x.uses[n.Name] = append(x.uses[n.Name], n)
			}
		}
		return true
	})
}

// bind counts the names that expressions on a left side bind.
func (x *finder) bind(list ...syntax.Expr) {
	for _, e := range list {
		switch e := e.(type) {
		case *syntax.Ident:
			x.bound[e.Name]++
		case *syntax.ParenExpr:
			x.bind(e.X)
		case *syntax.TupleExpr:
			x.bind(e.List...)
		case *syntax.ListExpr:
			x.bind(e.List...)
		case *syntax.UnaryExpr: // *args
			x.bind(e.X)
		case *syntax.BinaryExpr: // name = default
			x.bind(e.X)
		}
	}
}

// load looks at one load statement.
func (x *finder) load(l *syntax.LoadStmt) {
	target, err := loader.Resolve(x.label, l.ModuleName())
	if err != nil {
		return // the loader says so
	}
	library, file, _ := strings.Cut(target, "//")
	for _, d := range x.deprecations(target) {
		switch {
		case d.Library != library || d.File != file:
		case d.Name == "":
			x.movedFile(l, d)
		default:
			for i, from := range l.From {
				if from.Name == d.Name {
					x.symbol(l, i, d)
				}
			}
		}
	}
}

// deprecations are those that may concern a load from the module called target. What
// a rutter.mod.star says of a name takes the place of what its docstring says.
func (x *finder) deprecations(target string) []deps.Deprecation {
	out := slices.Clone(x.rules.Dependencies)
	if x.rules.Read == nil {
		return out
	}
	for _, m := range marks(target, x.rules.Read) {
		if !slices.ContainsFunc(out, func(d deps.Deprecation) bool {
			return d.Library == m.Library && d.File == m.File && d.Name == m.Name && d.Arg == m.Arg
		}) {
			out = append(out, m)
		}
	}
	return out
}

// say adds a finding about something that a dependency deprecated.
func (x *finder) say(at syntax.Position, what string, d deps.Deprecation, instead string, edits ...edit) {
	f := Finding{Pos: x.pos(at), Problem: what + " is deprecated", Instead: instead, Rewritten: len(edits) > 0, edits: edits}
	if d.Since != "" {
		f.Problem += " since " + d.Since
	}
	if d.Note != "" {
		f.Instead = strings.TrimPrefix(f.Instead+", "+d.Note, ", ")
	}
	x.found = append(x.found, f)
}

// movedFile is a load from a file that is elsewhere now.
func (x *finder) movedFile(l *syntax.LoadStmt, d deps.Deprecation) {
	what := d.Library + "//" + d.File
	if d.Moved == "" {
		x.say(l.Module.TokenPos, what, d, "")
		return
	}
	now := d.Library + "//" + d.Moved
	x.say(l.Module.TokenPos, what, d, "use "+now, x.literal(l.Module, now))
}

// symbol is a load of something that has another name or place now, or of a function
// one of whose arguments has another name.
func (x *finder) symbol(l *syntax.LoadStmt, i int, d deps.Deprecation) {
	local := l.To[i].Name
	if d.Arg != "" {
		x.argument(local, d)
		return
	}
	what := fmt.Sprintf("%s of %s//%s", d.Name, d.Library, d.File)
	if d.Use == "" && d.Moved == "" {
		x.say(l.From[i].NamePos, what, d, "")
		return
	}
	use, file := d.Name, d.File
	if d.Use != "" {
		use = d.Use
	}
	if d.Moved != "" {
		file = d.Moved
	}
	instead := "use " + use
	if d.Moved != "" {
		instead += " of " + d.Library + "//" + file
	}
	text, renames := x.renamed(l, i, use)
	var edits []edit
	switch {
	case d.Moved == "":
		edits = []edit{{x.elementStart(l, i), x.elementEnd(l, i), text}}
	case len(l.To) == 1:
		edits = []edit{x.literal(l.Module, d.Library+"//"+file), {x.elementStart(l, i), x.elementEnd(l, i), text}}
	case slices.ContainsFunc(x.found, func(f Finding) bool { return f.load == l }): // another time
	default: // the others stay
		before := x.literalEnd(l.Module)
		if i > 0 {
			before = x.elementEnd(l, i-1)
		}
		line := fmt.Sprintf("load(%q, %s)\n", d.Library+"//"+file, text)
		start := x.offset(l.Load)
		edits = []edit{{start, start, line}, {before, x.elementEnd(l, i), ""}}
	}
	if edits != nil {
		edits = append(edits, renames...)
	}
	x.say(l.From[i].NamePos, what, d, instead, edits...)
	if d.Moved != "" {
		x.found[len(x.found)-1].load = l
	}
}

// renamed is how the element of a load is written with another original name. Where
// the local name is the old one, and the new one is free in the file, uses follow;
// else the local name stays.
func (x *finder) renamed(l *syntax.LoadStmt, i int, use string) (text string, renames []edit) {
	local := l.To[i].Name
	aliased := l.To[i] != l.From[i]
	free := x.bound[use] == 0 && len(x.uses[use]) == 0 && x.bound[local] == 1
	switch {
	case use == local:
		return fmt.Sprintf("%q", use), nil
	case aliased || !free:
		return fmt.Sprintf("%s = %q", local, use), nil
	}
	for _, id := range x.uses[local] {
		from := x.offset(id.NamePos)
		renames = append(renames, edit{from, from + len(local), use})
	}
	return fmt.Sprintf("%q", use), renames
}

func isName(e syntax.Expr, name string) bool {
	id, ok := e.(*syntax.Ident)
	return ok && id.Name == name
}

// builtins looks at mentions of builtins that are retired.
func (x *finder) builtins() {
	for _, s := range x.rules.Builtins {
		old := s.Retired()
		if old == nil || x.bound[s.Module()] > 0 || s.Module() == "" && x.bound[s.Name] > 0 {
			continue
		}
		for _, at := range x.mentions(s) {
			f := Finding{Pos: x.pos(at), Problem: s.Name + " is deprecated since api " + fmt.Sprint(old.Since), Instead: "use " + old.Use, Rewritten: true}
			from := x.offset(at)
			f.edits = []edit{{from, from + len(s.Name), old.Use}}
			x.found = append(x.found, f)
		}
	}
}

// mentions are the places at which a builtin is named, written plainly.
func (x *finder) mentions(s *builtin.Spec) []syntax.Position {
	var out []syntax.Position
	if s.Module() == "" {
		for _, id := range x.uses[s.Name] {
			out = append(out, id.NamePos)
		}
		return out
	}
	for _, d := range x.dots {
		at, _ := d.Span()
		if isName(d.X, s.Module()) && d.Name.Name == s.Short() && strings.HasPrefix(x.src[x.offset(at):], s.Name) {
			out = append(out, at)
		}
	}
	return out
}

// level finds a runbook that names no language level: it says what it was written for
// before there is another one.
func (x *finder) level() {
	for _, s := range x.file.Stmts {
		e, ok := s.(*syntax.ExprStmt)
		if !ok {
			continue
		}
		c, ok := e.X.(*syntax.CallExpr)
		if !ok || !isName(c.Fn, "runbook") || x.bound["runbook"] > 0 {
			continue
		}
		var version syntax.Expr
		has := false
		for _, a := range c.Args {
			if b, ok := a.(*syntax.BinaryExpr); ok && b.Op == syntax.EQ {
				has = has || isName(b.X, "api")
				if isName(b.X, "version") {
					version = b.Y
				}
			}
		}
		if has || version == nil {
			continue
		}
		start, end := version.Span()
		at := x.offset(end)
		text := fmt.Sprintf(", api = %d", x.rules.API)
		if line := x.src[x.lines[start.Line-1]:]; strings.HasPrefix(strings.TrimLeft(line, " \t"), "version") { // a line of its own
			text = ",\n" + line[:len(line)-len(strings.TrimLeft(line, " \t"))] + fmt.Sprintf("api = %d", x.rules.API)
		}
		x.found = append(x.found, Finding{
			Pos: x.pos(c.Lparen), Problem: "the runbook names no language level", Instead: fmt.Sprintf("say api = %d", x.rules.API),
			Rewritten: true, Minor: true, edits: []edit{{at, at, text}},
		})
	}
}
