package plain

import (
	"strings"
	"unicode"

	"go.yaml.in/yaml/v2"
)

// foldAfter is the column after which the general encoder folds text at a space.
const foldAfter = 80

// text writes ASCII text in the style that the general encoder chooses for it. Its
// lines after the first begin in column at; fold is false for names, which have one.
func (w *yamlWriter) text(s string, at int, fold bool) {
	has := marksOf(s)
	switch {
	case has.lines && fold && !has.special && !has.spaceBreak && s[len(s)-1] != ' ':
		w.literal(s, at)
	case has.lines || has.special || !stringAsIs(s):
		w.doubleQuoted(s, at, fold)
	case has.indicators || s[0] == ' ' || s[len(s)-1] == ' ':
		w.singleQuoted(s, at, fold)
	default:
		w.folded(s, at, fold)
	}
}

// marks are what decide in which style text can be written.
type marks struct {
	lines      bool // it has line ends
	spaceBreak bool // one of them comes after a space
	special    bool // it has control characters
	indicators bool // it has characters that mean something to YAML
}

func marksOf(s string) (f marks) {
	f.indicators = strings.HasPrefix(s, "---") || strings.HasPrefix(s, "...")
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\n':
			f.lines = true
			f.spaceBreak = f.spaceBreak || i > 0 && s[i-1] == ' '
		case c < ' ':
			f.special = true
		case i == 0:
			f.indicators = f.indicators || strings.IndexByte("#,[]{}&*!|>'\"%@`", c) >= 0 || strings.IndexByte("?:-", c) >= 0 && blankAt(s, 1)
		case c == ':':
			f.indicators = f.indicators || blankAt(s, i+1)
		case c == '#':
			f.indicators = f.indicators || s[i-1] == ' ' || s[i-1] == '\n'
		}
	}
	return f
}

// blankAt reports whether a blank, or nothing, is at i.
func blankAt(s string, i int) bool { return i >= len(s) || s[i] == ' ' || s[i] == '\t' }

// stringAsIs reports whether s is read as a string where it is not quoted. What
// begins like a number or a time is for the general encoder to say.
func stringAsIs(s string) bool {
	if s == "" {
		return false
	}
	switch c := s[0]; {
	case strings.IndexByte("yYnNtTfFoO~", c) >= 0:
		return len(s) > 5 || !otherwise(s)
	case c == '+' || c == '-' || c == '.' || c >= '0' && c <= '9':
		text, err := yaml.Marshal(strings.ReplaceAll(s, "\n", " "))
		return err == nil && text[0] != '"'
	}
	return true
}

// otherwise reports whether s is what YAML 1.1 has for true, false or null.
func otherwise(s string) bool {
	switch s {
	case "y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON",
		"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF",
		"~", "null", "Null", "NULL":
		return true
	}
	return false
}

// full reports whether a line is so long that it is folded at the next space.
func (w *yamlWriter) full() bool { return len(w.b)-w.line > foldAfter }

// folded writes s with line ends for single spaces, where lines get long.
func (w *yamlWriter) folded(s string, at int, fold bool) {
	if !fold {
		w.b = append(w.b, s...)
		return
	}
	for {
		i := strings.IndexByte(s, ' ')
		if i < 0 {
			w.b = append(w.b, s...)
			return
		}
		w.b = append(w.b, s[:i]...)
		spaces := 1 // the last character is none
		for s[i+spaces] == ' ' {
			spaces++
		}
		if spaces == 1 && w.full() {
			w.start(at)
		} else {
			w.b = append(w.b, s[i:i+spaces]...)
		}
		s = s[i+spaces:]
	}
}

func (w *yamlWriter) singleQuoted(s string, at int, fold bool) {
	w.b = append(w.b, '\'')
	for i := range len(s) {
		switch {
		case s[i] == ' ' && fold && w.full() && i > 0 && i < len(s)-1 && s[i-1] != ' ' && s[i+1] != ' ':
			w.start(at)
			continue
		case s[i] == '\'':
			w.b = append(w.b, '\'')
		}
		w.b = append(w.b, s[i])
	}
	w.b = append(w.b, '\'')
}

func (w *yamlWriter) doubleQuoted(s string, at int, fold bool) {
	w.b = append(w.b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			w.b = append(w.b, '\\', c)
		case c < ' ':
			w.b = append(w.b, yamlEscape(c)...)
		case c == ' ' && fold && w.full() && i > 0 && i < len(s)-1 && s[i-1] != ' ':
			w.start(at)
			if s[i+1] == ' ' {
				w.b = append(w.b, '\\')
			}
		default:
			w.b = append(w.b, c)
		}
	}
	w.b = append(w.b, '"')
}

// yamlEscape is how a control character is written between double quotes.
func yamlEscape(c byte) string {
	switch c {
	case 0:
		return `\0`
	case 7:
		return `\a`
	case 8:
		return `\b`
	case '\t':
		return `\t`
	case '\n':
		return `\n`
	case '\v':
		return `\v`
	case '\f':
		return `\f`
	case '\r':
		return `\r`
	case 0x1b:
		return `\e`
	}
	const digits = "0123456789ABCDEF"
	return `\x` + string([]byte{digits[c>>4], digits[c&15]})
}

// literal writes a block of text, which ends its own last line if s does.
func (w *yamlWriter) literal(s string, at int) {
	w.b = append(w.b, '|')
	if s[0] == ' ' || s[0] == '\n' {
		w.b = append(w.b, '0'+yamlStep)
	}
	switch {
	case s[len(s)-1] != '\n':
		w.b = append(w.b, '-')
	case len(s) == 1 || s[len(s)-2] == '\n':
		w.b = append(w.b, '+')
	}
	w.end()
	for rest := s; rest != ""; {
		var l string
		l, rest, _ = strings.Cut(rest, "\n")
		ended := len(l) < len(s) && (rest != "" || s[len(s)-1] == '\n')
		if l != "" {
			w.start(at)
			w.b = append(w.b, l...)
		}
		if ended {
			w.b = append(w.b, '\n')
			w.line = len(w.b)
		}
	}
}

// naturally orders names as the general encoder does: letters after all else, and
// numbers in them by their values.
func naturally(a, b string) int {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	switch {
	case i == len(a) || i == len(b):
		return len(a) - len(b)
	case isLower(a[i]) && isLower(b[i]): // nearly always
		return int(a[i]) - int(b[i])
	case before([]rune(a), []rune(b)):
		return -1
	}
	return 1
}

func isLower(c byte) bool { return c >= 'a' && c <= 'z' }

func before(a, b []rune) bool {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	if i == len(a) || i == len(b) {
		return len(a) < len(b)
	}
	switch x, y := unicode.IsLetter(a[i]), unicode.IsLetter(b[i]); {
	case x && y:
		return a[i] < b[i]
	case x || y:
		return y
	}
	var start int64
	if a[i] == '0' || b[i] == '0' { // which count for nothing at the front of a number
		for j := i - 1; j >= 0 && unicode.IsDigit(a[j]); j-- {
			if a[j] != '0' {
				start = 1
				break
			}
		}
	}
	m, endA := number(a, i, start)
	n, endB := number(b, i, start)
	switch {
	case m != n:
		return m < n
	case endA != endB:
		return endA < endB
	}
	return a[i] < b[i]
}

// number reads the digits from i on, and says where they end.
func number(s []rune, i int, n int64) (value int64, end int) {
	for ; i < len(s) && unicode.IsDigit(s[i]); i++ {
		n = n*10 + int64(s[i]-'0')
	}
	return n, i
}
