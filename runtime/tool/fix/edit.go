package fix

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.starlark.net/syntax"

	"rutter.dev/rutter/runtime/diag"
)

// edit replaces source[from:to].
type edit struct {
	from, to int
	text     string
}

func (x *finder) pos(p syntax.Position) diag.Pos {
	return diag.Pos{File: x.name, Line: int(p.Line), Col: int(p.Col)}
}

func lineStarts(src string) []int {
	out := []int{0}
	for i := range len(src) {
		if src[i] == '\n' {
			out = append(out, i+1)
		}
	}
	return out
}

// offset is the byte at a position, whose column counts runes.
func (x *finder) offset(p syntax.Position) int {
	at := x.lines[min(max(int(p.Line), 1), len(x.lines))-1]
	for range p.Col - 1 {
		_, n := utf8.DecodeRuneInString(x.src[at:])
		at += n
	}
	return at
}

func (x *finder) literalEnd(l *syntax.Literal) int { return x.offset(l.TokenPos) + len(l.Raw) }

func (x *finder) literal(l *syntax.Literal, text string) edit {
	return edit{x.offset(l.TokenPos), x.literalEnd(l), fmt.Sprintf("%q", text)}
}

// elementStart is where "name" or local = "name" of a load begins, elementEnd where
// it ends, quotes included.
func (x *finder) elementStart(l *syntax.LoadStmt, i int) int {
	at := x.offset(l.To[i].NamePos)
	if l.To[i] == l.From[i] {
		at-- // the quote
	}
	return at
}

func (x *finder) elementEnd(l *syntax.LoadStmt, i int) int {
	at := x.offset(l.From[i].NamePos) // after the quote
	return at + strings.IndexByte(x.src[at:], x.src[at-1]) + 1
}

// rewritten is the source with all edits. One that would touch what another one
// does already is left out, with its finding.
func (x *finder) rewritten() string {
	type owned struct {
		edit
		of int
	}
	var all []owned
	for i, f := range x.found {
		fits := true
		for _, e := range f.edits {
			for _, o := range all {
				fits = fits && (e.to <= o.from || o.to <= e.from)
			}
		}
		if x.found[i].Rewritten = fits && len(f.edits) > 0; !fits {
			continue
		}
		for _, e := range f.edits {
			all = append(all, owned{e, i})
		}
	}
	slices.SortStableFunc(all, func(a, b owned) int { return a.from - b.from })
	var out strings.Builder
	at := 0
	for _, e := range all {
		out.WriteString(x.src[at:e.from])
		out.WriteString(e.text)
		at = e.to
	}
	out.WriteString(x.src[at:])
	return out.String()
}
