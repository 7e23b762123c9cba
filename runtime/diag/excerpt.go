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
	line, col := window(line, p.Col)
	out := number + " | " + line
	if col < 1 {
		return out
	}
	return out + "\n" + strings.Repeat(" ", len(number)) + " | " + padding(line, col-1) + "^"
}

// maxExcerpt is how many characters of a source line are shown.
const maxExcerpt = 240

// window is what is shown of a long line, around the column.
func window(line string, col int) (string, int) {
	if len(line) <= maxExcerpt {
		return line, col
	}
	r := []rune(line)
	from := min(max(col-1-maxExcerpt/2, 0), max(len(r)-maxExcerpt, 0))
	to := min(from+maxExcerpt, len(r))
	out := string(r[from:to])
	if to < len(r) {
		out += "…"
	}
	if from > 0 {
		return "…" + out, col - from + 1
	}
	return out, col
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
