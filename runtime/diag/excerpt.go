package diag

import (
	"fmt"
	"strings"
)

// Excerpt is the source line of p, which the caller has, with a caret below its
// column: what Error.Source holds. "" for an empty line.
func Excerpt(p Pos, line string) string {
	if line == "" {
		return ""
	}
	number := fmt.Sprint(p.Line)
	out := number + " | " + line
	if p.Col < 1 {
		return out
	}
	return out + "\n" + strings.Repeat(" ", len(number)) + " | " + padding(line, p.Col-1) + "^"
}

// padding is as wide as the first n characters of line; tabs stay tabs.
func padding(line string, n int) string {
	var b strings.Builder
	for _, r := range line {
		if n == 0 {
			break
		}
		n--
		if r == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String()
}
