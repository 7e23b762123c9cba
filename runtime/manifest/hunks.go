package manifest

import (
	"strconv"
	"strings"
)

// span is a part of two texts: the same lines of both, or lines of one for lines of
// the other.
type span struct {
	same                   bool
	aFrom, aTo, bFrom, bTo int
}

// spans divides the two texts of m.
func (m *matcher) spans() []span {
	var out []span
	a, b := 0, 0
	for _, l := range m.blocks() {
		if a < l.a || b < l.b {
			out = append(out, span{false, a, l.a, b, l.b})
		}
		a, b = l.a+l.size, l.b+l.size
		if l.size > 0 {
			out = append(out, span{true, l.a, a, l.b, b})
		}
	}
	return out
}

// hunks groups what differs with its context. Where more is the same than two
// contexts, a hunk ends.
func hunks(spans []span, context int) [][]span {
	if len(spans) == 0 || len(spans) == 1 && spans[0].same {
		return nil
	}
	var out [][]span
	var hunk []span
	for i, s := range spans {
		if !s.same {
			hunk = append(hunk, s)
			continue
		}
		n := min(context, s.aTo-s.aFrom)
		before, after := span{true, s.aTo - n, s.aTo, s.bTo - n, s.bTo}, span{true, s.aFrom, s.aFrom + n, s.bFrom, s.bFrom + n}
		switch {
		case i == 0:
			hunk = append(hunk, before)
		case i == len(spans)-1:
			hunk = append(hunk, after)
		case s.aTo-s.aFrom > 2*context:
			out, hunk = append(out, append(hunk, after)), []span{before}
		default:
			hunk = append(hunk, s)
		}
	}
	return append(out, hunk)
}

// unified writes the hunks of a and b, which begin with line after+1 of each.
func unified(a, b []string, context, after int) string {
	var out strings.Builder
	for _, hunk := range hunks(newMatcher(a, b).spans(), context) {
		first, last := hunk[0], hunk[len(hunk)-1]
		out.WriteString("@@ -" + lineRange(first.aFrom, last.aTo, after) + " +" + lineRange(first.bFrom, last.bTo, after) + " @@\n")
		for _, s := range hunk {
			if s.same {
				prefixed(&out, " ", a[s.aFrom:s.aTo])
				continue
			}
			prefixed(&out, "-", a[s.aFrom:s.aTo])
			prefixed(&out, "+", b[s.bFrom:s.bTo])
		}
	}
	return out.String()
}

func prefixed(out *strings.Builder, sign string, lines []string) {
	for _, l := range lines {
		out.WriteString(sign)
		out.WriteString(l)
	}
}

// lineRange is how a hunk names lines: none by the one before, and one without its
// count.
func lineRange(from, to, after int) string {
	switch n := to - from; n {
	case 0:
		return strconv.Itoa(after+from) + ",0"
	case 1:
		return strconv.Itoa(after + from + 1)
	default:
		return strconv.Itoa(after+from+1) + "," + strconv.Itoa(n)
	}
}
