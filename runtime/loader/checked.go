package loader

import (
	"fmt"
	"slices"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// The names under which the predeclared values hold the checked forms of what
// one operation can blow up with. No script can write them, nor define them.
const (
	// CheckedTimes is called as x * y.
	CheckedTimes = "*"
	// CheckedPercent is called as x % y.
	CheckedPercent = "%"
	// CheckedPlus is called as x + y.
	CheckedPlus = "+"
	// CheckedMore is called with x and y where x += y, and gives y: a list that is
	// added to stays the same one.
	CheckedMore = "+="
	// CheckedMethods is called on what stands before the dot of one of the
	// methods in CheckedMethod, and gives what the method is taken from.
	CheckedMethods = ".checked"
)

// checkedNames are all of them.
var checkedNames = []string{CheckedTimes, CheckedPercent, CheckedPlus, CheckedMore, CheckedMethods}

// CheckedMethod reports whether a method of strings or lists is taken through
// CheckedMethods.
func CheckedMethod(name string) bool {
	switch name {
	case "join", "replace", "format", "split", "rsplit", "splitlines", "extend":
		return true
	}
	return false
}

// check rewrites f so that each operation that can make something much larger
// than what it is given calls a function that looks at sizes first. Which ones
// these are, and why it is done so, is in ARCHITECTURE.md ("Hostile runbooks").
// Positions stay those of the operators: a call reports errors at its
// parenthesis, and is given the operator's place for it. has says which
// predeclared names there are; without the checked forms nothing is rewritten.
func check(f *syntax.File, has func(string) bool) {
	if slices.ContainsFunc(checkedNames, func(name string) bool { return !has(name) }) {
		return
	}
	c := &checker{used: map[string]bool{}}
	stmts := c.stmts(f.Stmts)
	at := syntax.MakePosition(&f.Path, 1, 1)
	f.Stmts = nil
	for _, name := range checkedNames {
		if c.used[name] {
			f.Stmts = append(f.Stmts, &syntax.AssignStmt{OpPos: at, Op: syntax.EQ, LHS: ident(global(name), at), RHS: ident(name, at)})
		}
	}
	f.Stmts = append(f.Stmts, stmts...)
}

// checker rewrites one module. used are the checked forms that it calls: each is
// a global of the module, which is found by an index, where a predeclared name is
// looked up in a map every time.
type checker struct {
	temps int
	used  map[string]bool
}

// global is the name under which a module holds a checked form.
func global(name string) string { return "0" + name }

func (c *checker) stmts(in []syntax.Stmt) []syntax.Stmt {
	if in == nil {
		return nil // no else: the parser's nodes tell that from an empty one
	}
	out := make([]syntax.Stmt, 0, len(in))
	for _, s := range in {
		out = append(out, c.stmt(s)...)
	}
	return out
}

func (c *checker) stmt(s syntax.Stmt) []syntax.Stmt {
	switch s := s.(type) {
	case *syntax.AssignStmt:
		return c.assign(s)
	case *syntax.DefStmt:
		c.exprs(s.Params)
		s.Body = c.stmts(s.Body)
	case *syntax.ExprStmt:
		s.X = c.expr(s.X)
	case *syntax.IfStmt:
		c.branches(s)
	case *syntax.ForStmt:
		s.X = c.expr(s.X)
		c.expr(s.Vars)
		s.Body = c.stmts(s.Body)
	case *syntax.WhileStmt:
		s.Cond = c.expr(s.Cond)
		s.Body = c.stmts(s.Body)
	case *syntax.ReturnStmt:
		if s.Result != nil {
			s.Result = c.expr(s.Result)
		}
	}
	return []syntax.Stmt{s}
}

// branches goes along a chain of elif, which the parser nests.
func (c *checker) branches(s *syntax.IfStmt) {
	for {
		s.Cond = c.expr(s.Cond)
		s.True = c.stmts(s.True)
		if len(s.False) == 1 {
			if next, ok := s.False[0].(*syntax.IfStmt); ok {
				s = next
				continue
			}
		}
		s.False = c.stmts(s.False)
		return
	}
}

// assign rewrites x *= y as x = x * y, and x += y as x += y once their sizes were
// looked at, with what x is taken from evaluated once, before y, as it would have
// been.
func (c *checker) assign(s *syntax.AssignStmt) []syntax.Stmt {
	s.LHS, s.RHS = c.expr(s.LHS), c.expr(s.RHS)
	op, ok := map[syntax.Token]syntax.Token{
		syntax.STAR_EQ: syntax.STAR, syntax.PERCENT_EQ: syntax.PERCENT, syntax.PLUS_EQ: syntax.PLUS,
	}[s.Op]
	if !ok || harmless(op, nil, s.RHS) {
		return []syntax.Stmt{s}
	}
	var before []syntax.Stmt
	hold := func(x syntax.Expr) syntax.Expr {
		c.temps++
		name := fmt.Sprintf("%d", c.temps)
		before = append(before, &syntax.AssignStmt{OpPos: s.OpPos, Op: syntax.EQ, LHS: ident(name, s.OpPos), RHS: x})
		return ident(name, s.OpPos)
	}
	var read syntax.Expr
	switch lhs := unparen(s.LHS).(type) {
	case *syntax.Ident:
		read = ident(lhs.Name, lhs.NamePos)
	case *syntax.IndexExpr:
		x, y := hold(lhs.X), hold(lhs.Y)
		s.LHS = &syntax.IndexExpr{X: x, Lbrack: lhs.Lbrack, Y: y, Rbrack: lhs.Rbrack}
		read = &syntax.IndexExpr{X: again(x), Lbrack: lhs.Lbrack, Y: again(y), Rbrack: lhs.Rbrack}
	case *syntax.DotExpr:
		x := hold(lhs.X)
		s.LHS = &syntax.DotExpr{X: x, Dot: lhs.Dot, NamePos: lhs.NamePos, Name: lhs.Name}
		read = &syntax.DotExpr{X: again(x), Dot: lhs.Dot, NamePos: lhs.NamePos, Name: ident(lhs.Name.Name, lhs.NamePos)}
	default: // no place to assign to: the compiler says so
		return []syntax.Stmt{s}
	}
	if op == syntax.PLUS {
		s.RHS = c.call(CheckedMore, s.OpPos, read, s.RHS)
	} else {
		s.Op, s.RHS = syntax.EQ, c.call(op.String(), s.OpPos, read, s.RHS)
	}
	return append(before, s)
}

func (c *checker) exprs(list []syntax.Expr) {
	for i, e := range list {
		list[i] = c.expr(e)
	}
}

func (c *checker) expr(e syntax.Expr) syntax.Expr {
	switch e := e.(type) {
	case *syntax.BinaryExpr:
		return c.binary(e)
	case *syntax.CallExpr:
		e.Fn = c.expr(e.Fn)
		for i, a := range e.Args {
			e.Args[i] = c.argument(a)
		}
	case *syntax.DotExpr:
		e.X = c.expr(e.X)
		if CheckedMethod(e.Name.Name) {
			e.X = c.call(CheckedMethods, e.Dot, e.X)
		}
	case *syntax.IndexExpr:
		e.X, e.Y = c.expr(e.X), c.expr(e.Y)
	case *syntax.SliceExpr:
		e.X = c.expr(e.X)
		for _, part := range []*syntax.Expr{&e.Lo, &e.Hi, &e.Step} {
			if *part != nil {
				*part = c.expr(*part)
			}
		}
	case *syntax.ParenExpr:
		e.X = c.expr(e.X)
	case *syntax.UnaryExpr:
		if e.X != nil {
			e.X = c.expr(e.X)
		}
	case *syntax.CondExpr:
		e.Cond, e.True, e.False = c.expr(e.Cond), c.expr(e.True), c.expr(e.False)
	case *syntax.LambdaExpr:
		c.exprs(e.Params)
		e.Body = c.expr(e.Body)
	case *syntax.ListExpr:
		c.exprs(e.List)
	case *syntax.TupleExpr:
		c.exprs(e.List)
	case *syntax.DictExpr:
		c.exprs(e.List)
	case *syntax.DictEntry:
		e.Key, e.Value = c.expr(e.Key), c.expr(e.Value)
	case *syntax.Comprehension:
		e.Body = c.expr(e.Body)
		for _, clause := range e.Clauses {
			switch cl := clause.(type) {
			case *syntax.ForClause:
				c.expr(cl.Vars)
				cl.X = c.expr(cl.X)
			case *syntax.IfClause:
				cl.Cond = c.expr(cl.Cond)
			}
		}
	}
	return e
}

// argument leaves the name of name = value alone; the same shape is a default
// among parameters.
func (c *checker) argument(a syntax.Expr) syntax.Expr {
	if named, ok := a.(*syntax.BinaryExpr); ok && named.Op == syntax.EQ {
		named.Y = c.expr(named.Y)
		return named
	}
	return c.expr(a)
}

// binary goes down the left side in a loop: a long sum is one deep tree.
func (c *checker) binary(e *syntax.BinaryExpr) syntax.Expr {
	if e.Op == syntax.EQ {
		e.Y = c.expr(e.Y)
		return e
	}
	var spine []*syntax.BinaryExpr
	var x syntax.Expr = e
	for {
		b, ok := x.(*syntax.BinaryExpr)
		if !ok {
			break
		}
		spine, x = append(spine, b), b.X
	}
	x = c.expr(x)
	for i := len(spine) - 1; i >= 0; i-- {
		b := spine[i]
		b.X, b.Y = x, c.expr(b.Y)
		x = b
		if (b.Op == syntax.STAR || b.Op == syntax.PERCENT || b.Op == syntax.PLUS) && !harmless(b.Op, b.X, b.Y) {
			x = c.call(b.Op.String(), b.OpPos, b.X, b.Y)
		}
	}
	return x
}

// harmless reports whether the operation's operands, as they are written, keep
// its result small: a product of numbers, a remainder or a format of one literal, a
// sum that is longer than the other operand by what is written there.
func harmless(op syntax.Token, x, y syntax.Expr) bool {
	switch op {
	case syntax.PLUS:
		return written(y) || x != nil && written(x)
	case syntax.PERCENT:
		return literal(y, syntax.INT, syntax.FLOAT, syntax.STRING) || x != nil && literal(x, syntax.INT, syntax.FLOAT)
	}
	return literal(y, syntax.FLOAT) || x != nil && (literal(x, syntax.FLOAT) || literal(x, syntax.INT) && literal(y, syntax.INT))
}

func written(e syntax.Expr) bool {
	switch unparen(e).(type) {
	case *syntax.ListExpr, *syntax.TupleExpr:
		return true
	}
	return literal(e, syntax.INT, syntax.FLOAT, syntax.STRING, syntax.BYTES)
}

func literal(e syntax.Expr, kinds ...syntax.Token) bool {
	l, ok := unparen(e).(*syntax.Literal)
	if !ok {
		return false
	}
	for _, k := range kinds {
		if l.Token == k {
			return true
		}
	}
	return false
}

func unparen(e syntax.Expr) syntax.Expr {
	for {
		p, ok := e.(*syntax.ParenExpr)
		if !ok {
			return e
		}
		e = p.X
	}
}

func ident(name string, at syntax.Position) *syntax.Ident {
	return &syntax.Ident{Name: name, NamePos: at}
}

// again is another mention of what hold gave: the resolver binds each apart.
func again(e syntax.Expr) syntax.Expr {
	id := e.(*syntax.Ident)
	return ident(id.Name, id.NamePos)
}

func (c *checker) call(name string, at syntax.Position, args ...syntax.Expr) *syntax.CallExpr {
	c.used[name] = true
	return &syntax.CallExpr{Fn: ident(global(name), at), Lparen: at, Args: args, Rparen: at}
}

// Hide takes what rewriting added out of a module's globals: the names that no
// script can write.
func Hide(globals starlark.StringDict) {
	for name := range globals {
		if name[0] >= '0' && name[0] <= '9' {
			delete(globals, name)
		}
	}
}
