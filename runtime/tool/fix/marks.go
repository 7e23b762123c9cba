package fix

import (
	"regexp"
	"slices"
	"strings"

	"go.starlark.net/syntax"

	"rutter.dev/rutter/runtime/deps"
	"rutter.dev/rutter/runtime/loader"
)

// A module says in its own source what it will not keep, in the docstrings of its
// functions, where whoever reads it sees it:
//
//	def roll(size = 1, batch = None):
//	    """Restarts.
//
//	    Args:
//	      size: how many at once.
//	      batch: deprecated since 1.3.0: use size.
//
//	    Deprecated since 1.4.0: use roll_out of //waves.star.
//	    """
//
// "use NAME", with or without a file of the same module and library, is a rename, and
// rewritten as long as the other function can be called in the same way. Any other
// text is for a person.
var (
	markText   = regexp.MustCompile(`^[Dd]eprecated(?: since ([0-9][0-9A-Za-z.-]*))?: *(.*)$`)
	renameText = regexp.MustCompile(`^use ([A-Za-z_][A-Za-z0-9_]*)(?: of (//[A-Za-z0-9_./-]+\.star))?\.?$`)
	argument   = regexp.MustCompile(`^\*{0,2}([A-Za-z_][A-Za-z0-9_]*): *(.*)$`)
	section    = regexp.MustCompile(`^[A-Z][a-z]+:$`)
)

// marks are the deprecations in the source of the module called label; none where it
// can't be read or does not parse, which the loader says.
func marks(label string, read func(label string) (string, bool)) []deps.Deprecation {
	library, file, _ := strings.Cut(label, "//")
	defs := functions(label, read)
	var out []deps.Deprecation
	for _, def := range defs {
		doc := docOf(def)
		if doc == "" {
			continue
		}
		own, args := markedIn(doc)
		about := deps.Deprecation{Library: library, File: file, Name: def.Name.Name}
		if m := markText.FindStringSubmatch(own); m != nil {
			d := about
			d.Since = m[1]
			d.Use, d.Moved, d.Note = renameOf(m[2], func(name, moved string) bool {
				there := defs
				if moved != "" {
					there = functions(library+"//"+moved, read)
				}
				return sameCall(def, find(there, name))
			})
			out = append(out, d)
		}
		for i, p := range def.Params {
			m := markText.FindStringSubmatch(args[paramName(p)])
			if m == nil {
				continue
			}
			d := about
			d.Arg, d.Since, d.Nth = paramName(p), m[1], i+1
			d.Use, d.Moved, d.Note = renameOf(m[2], func(name, moved string) bool {
				return moved == "" && slices.ContainsFunc(def.Params, func(o syntax.Expr) bool { return paramName(o) == name })
			})
			out = append(out, d)
		}
	}
	return out
}

// renameOf takes a text apart: the new name and file of a rename that fits, else all
// of it as a note.
func renameOf(text string, fits func(name, moved string) bool) (use, moved, note string) {
	m := renameText.FindStringSubmatch(text)
	if m == nil {
		return "", "", strings.TrimSuffix(text, ".")
	}
	moved = strings.TrimPrefix(m[2], "//")
	if !fits(m[1], moved) {
		return "", "", strings.TrimSuffix(text, ".") + ", which is called in another way"
	}
	return m[1], moved, ""
}

// functions are those that a module defines at its top.
func functions(label string, read func(label string) (string, bool)) []*syntax.DefStmt {
	src, ok := read(label)
	if !ok {
		return nil
	}
	f, err := (&syntax.FileOptions{}).Parse(loader.Filename(label), src, 0)
	if err != nil {
		return nil
	}
	var out []*syntax.DefStmt
	for _, s := range f.Stmts {
		if def, ok := s.(*syntax.DefStmt); ok {
			out = append(out, def)
		}
	}
	return out
}

func find(defs []*syntax.DefStmt, name string) *syntax.DefStmt {
	for _, d := range defs {
		if d.Name.Name == name {
			return d
		}
	}
	return nil
}

// docOf is the docstring of a function; "" where it has none.
func docOf(def *syntax.DefStmt) string {
	if e, ok := def.Body[0].(*syntax.ExprStmt); ok {
		if l, ok := e.X.(*syntax.Literal); ok && l.Token == syntax.STRING {
			return l.Value.(string)
		}
	}
	return ""
}

// markedIn is the mark of the function in a docstring, "" without one, and what the
// docstring says of each argument. A text goes on in the lines below it, up to an
// empty one or the next section.
func markedIn(doc string) (own string, args map[string]string) {
	args = map[string]string{}
	in, name, depth := "", "", 0 // the section and its indent, and the argument, that a line goes on with
	for raw := range strings.Lines(doc) {
		line := strings.TrimSpace(raw)
		indent := len(raw) - len(strings.TrimLeft(raw, " \t"))
		m := argument.FindStringSubmatch(line)
		switch {
		case line == "":
			in, name = "", ""
		case section.MatchString(line) && line != "Deprecated:":
			in, name, depth = line, "", indent
		case markText.MatchString(line) && line[0] == 'D' && (in != "Args:" || indent <= depth):
			in, own = "mark", line
		case in == "mark":
			own = strings.TrimSuffix(own, " ") + " " + line
		case in == "Args:" && m != nil:
			name = m[1]
			args[name] = m[2]
		case in == "Args:" && name != "":
			args[name] += " " + line
		}
	}
	return own, args
}

// paramName is the name of a parameter; "" for a star alone.
func paramName(p syntax.Expr) string {
	switch p := p.(type) {
	case *syntax.Ident:
		return p.Name
	case *syntax.BinaryExpr:
		return paramName(p.X)
	case *syntax.UnaryExpr:
		if p.X != nil {
			return p.Op.String() + paramName(p.X)
		}
		return p.Op.String()
	}
	return ""
}

// sameCall reports whether every call of old is a call of fresh with the same meaning
// of its arguments: the parameters of old come first in fresh, with their defaults, and
// what fresh has besides has defaults.
func sameCall(old, fresh *syntax.DefStmt) bool {
	if fresh == nil || len(fresh.Params) < len(old.Params) {
		return false
	}
	for i, p := range fresh.Params {
		_, optional := p.(*syntax.BinaryExpr)
		switch {
		case i >= len(old.Params):
			if !optional {
				return false
			}
		case paramText(p) != paramText(old.Params[i]):
			return false
		}
	}
	return true
}

// paramText is a parameter as far as it can be compared: its name, and its default
// where that is plain.
func paramText(p syntax.Expr) string {
	b, ok := p.(*syntax.BinaryExpr)
	if !ok {
		return paramName(p)
	}
	return paramName(p) + "=" + exprText(b.Y)
}

// exprText is an expression written plainly; two that are alike have the same, but for
// those that nobody gives as a default, which are like no other.
func exprText(e syntax.Expr) string {
	switch e := e.(type) {
	case *syntax.Ident:
		return e.Name
	case *syntax.Literal:
		return e.Raw
	case *syntax.UnaryExpr:
		return e.Op.String() + exprText(e.X)
	case *syntax.ParenExpr:
		return exprText(e.X)
	case *syntax.ListExpr:
		return "[" + exprTexts(e.List) + "]"
	case *syntax.TupleExpr:
		return "(" + exprTexts(e.List) + ")"
	case *syntax.DictExpr:
		return "{" + exprTexts(e.List) + "}"
	case *syntax.DictEntry:
		return exprText(e.Key) + ":" + exprText(e.Value)
	}
	at, _ := e.Span()
	return at.String()
}

func exprTexts(list []syntax.Expr) string {
	var out []string
	for _, e := range list {
		out = append(out, exprText(e))
	}
	return strings.Join(out, ",")
}
