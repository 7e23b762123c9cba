package event

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean makes text that came from a cluster harmless to a terminal: escape
// sequences are taken out whole, the other C0 and C1 control characters and
// Unicode's direction overrides one by one, and bytes that are not UTF-8 become
// U+FFFD. Newline and tab stay; carriage return goes, since it would let text
// overwrite what stands before it.
func Clean(s string) string {
	if clean(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == 0x1b:
			i += escape(s[i:])
			continue
		case r == 0x9b: // C1 form of ESC [
			i += n + csi(s[i+n:])
			continue
		case harmless(r):
			b.WriteRune(r)
		}
		i += n
	}
	return b.String()
}

// CleanLine is Clean for text that must stay on one line.
func CleanLine(s string) string {
	s = strings.TrimSpace(Clean(s))
	if !strings.ContainsAny(s, "\n\t") {
		return s
	}
	return strings.Join(strings.Fields(s), " ")
}

func clean(s string) bool {
	for _, r := range s {
		if !harmless(r) || r == utf8.RuneError {
			return false
		}
	}
	return true
}

func harmless(r rune) bool {
	switch {
	case r == '\n' || r == '\t':
		return true
	case unicode.IsControl(r): // C0, DEL and C1
		return false
	case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f, r == 0x2028, r == 0x2029:
		return false
	}
	return true
}

// escape is the length of the escape sequence that s begins with.
func escape(s string) int {
	if len(s) < 2 {
		return len(s)
	}
	switch c := s[1]; {
	case c == '[':
		return 2 + csi(s[2:])
	case strings.IndexByte("]PX^_", c) >= 0: // OSC, DCS, SOS, PM, APC: up to BEL or ST
		for i := 2; i < len(s); i++ {
			switch {
			case s[i] == '\n': // unterminated: don't swallow the lines after it
				return i
			case s[i] == 0x07:
				return i + 1
			case s[i] == 0x1b && i+1 < len(s) && s[i+1] == '\\':
				return i + 2
			}
		}
		return len(s)
	case c >= 0x20 && c <= 0x2f: // intermediate bytes, then a final one
		i := 1
		for i < len(s) && s[i] >= 0x20 && s[i] <= 0x2f {
			i++
		}
		return min(i+1, len(s))
	case c >= 0x30 && c <= 0x7e:
		return 2
	}
	return 1
}

// csi is the length of the rest of a control sequence: parameters,
// intermediates and one final byte.
func csi(s string) int {
	i := 0
	for i < len(s) && s[i] >= 0x20 && s[i] <= 0x3f {
		i++
	}
	if i < len(s) && s[i] >= 0x40 && s[i] <= 0x7e {
		i++
	}
	return i
}
