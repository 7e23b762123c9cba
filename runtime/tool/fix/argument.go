package fix

import (
	"fmt"

	"go.starlark.net/syntax"

	"rutter.dev/rutter/runtime/deps"
)

// argument looks at the calls of a function, and at those through which it is called:
// step("name", fn, argument = …).
func (x *finder) argument(local string, d deps.Deprecation) {
	for _, c := range x.calls {
		first, called := 0, isName(c.Fn, local)
		for i := 0; i < len(c.Args) && i < 2 && !called; i++ {
			called = (isName(c.Fn, "step") || isName(c.Fn, "attempt")) && isName(c.Args[i], local)
			first = i + 1
		}
		if called {
			x.argumentOf(c, c.Args[first:], d)
		}
	}
}

// argumentOf looks at the arguments that one call gives a function.
func (x *finder) argumentOf(c *syntax.CallExpr, args []syntax.Expr, d deps.Deprecation) {
	keyword := func(name string) *syntax.Ident {
		for _, a := range c.Args {
			if b, ok := a.(*syntax.BinaryExpr); ok && b.Op == syntax.EQ && isName(b.X, name) {
				return b.X.(*syntax.Ident)
			}
		}
		return nil
	}
	what := fmt.Sprintf("argument %s of %s", d.Arg, d.Name)
	instead := ""
	if d.Use != "" {
		instead = "use " + d.Use
	}
	if id := keyword(d.Arg); id != nil {
		if d.Use == "" || keyword(d.Use) != nil { // both can't have the one name
			x.say(id.NamePos, what, d, instead)
			return
		}
		from := x.offset(id.NamePos)
		x.say(id.NamePos, what, d, instead, edit{from, from + len(d.Arg), d.Use})
		return
	}
	for i := 0; i < d.Nth && i < len(args); i++ {
		b, isBinary := args[i].(*syntax.BinaryExpr)
		u, isUnary := args[i].(*syntax.UnaryExpr)
		if isBinary && b.Op == syntax.EQ || isUnary && (u.Op == syntax.STAR || u.Op == syntax.STARSTAR) {
			return
		}
		if i == d.Nth-1 {
			at, _ := args[i].Span()
			x.say(at, what+", given by its place,", d, instead)
		}
	}
}
