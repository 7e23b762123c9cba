package plain

import (
	"strconv"
	"unicode/utf8"

	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// maxDepth is how deeply nested an answer the decoder takes on; what is deeper
// goes to the general decoder, which has its own limit.
const maxDepth = 200

// Decode decodes an answer of the API server as k8s.io/apimachinery does:
// whole numbers are int64, others float64, the last of equal names counts.
// Objects of a server are plain JSON nearly always, and for that the general
// decoder, which goes by reflection and over every byte twice, is several times
// slower than needed. Whatever is not plain (escapes beyond the common ones,
// bytes that are no UTF-8, numbers out of range, errors) is left to it, so that
// there is one authority on what is valid.
func Decode(raw []byte) (map[string]any, error) {
	p := decoder{raw: raw}
	if v, ok := p.document(); ok {
		if m, is := v.(map[string]any); is {
			return m, nil
		}
	}
	var m map[string]any
	err := utiljson.Unmarshal(raw, &m)
	return m, err
}

// DecodeLean is Decode without metadata.managedFields of the items of a list,
// which hold a third of a pod's bytes and most of its maps. It reads over them.
func DecodeLean(raw []byte) (map[string]any, error) {
	p := decoder{raw: raw, lean: true}
	if v, ok := p.document(); ok {
		if m, is := v.(map[string]any); is {
			return m, nil
		}
	}
	return Decode(raw)
}

// itemDepth is how deep the metadata of a list's items are: the list, its items,
// an item, its metadata.
const itemDepth = 4

// decoder decodes plain JSON in one pass. Its methods report false for what they
// leave to the general decoder.
type decoder struct {
	raw    []byte
	at     int
	depth  int
	lean   bool   // managedFields of items are left out
	strict bool   // names that occur twice, and numbers that are not whole, are left, too
	under  string // name of the value that is decoded
	// Entries of the objects and elements of the arrays that are not yet
	// complete, so that each map and slice is made once and of the right size.
	fields []field
	values []any
	// unescaped is where strings that have escapes are put together.
	unescaped []byte
	// known holds strings seen before in this answer: names of fields, and
	// values such as "v1", repeat all the time.
	known [512]string
}

type field struct {
	name  string
	value any
}

func (p *decoder) document() (any, bool) {
	v, ok := p.value()
	if !ok {
		return nil, false
	}
	p.space()
	return v, p.at == len(p.raw)
}

func (p *decoder) space() {
	for p.at < len(p.raw) {
		switch p.raw[p.at] {
		case ' ', '\n', '\t', '\r':
			p.at++
		default:
			return
		}
	}
}

// next skips space and takes c, if it is what comes.
func (p *decoder) next(c byte) bool {
	p.space()
	if p.at < len(p.raw) && p.raw[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *decoder) value() (any, bool) {
	p.space()
	if p.at == len(p.raw) {
		return nil, false
	}
	switch c := p.raw[p.at]; c {
	case '{':
		return p.nested((*decoder).object)
	case '[':
		return p.nested((*decoder).array)
	case '"':
		s, ok := p.text()
		return s, ok
	case 't':
		return true, p.word("true")
	case 'f':
		return false, p.word("false")
	case 'n':
		return nil, p.word("null")
	default:
		return p.number()
	}
}

func (p *decoder) word(w string) bool {
	if end := p.at + len(w); end <= len(p.raw) && string(p.raw[p.at:end]) == w {
		p.at = end
		return true
	}
	return false
}

func (p *decoder) nested(f func(*decoder) (any, bool)) (any, bool) {
	if p.depth == maxDepth {
		return nil, false
	}
	p.at++
	p.depth++
	v, ok := f(p)
	p.depth--
	return v, ok
}

func (p *decoder) object() (any, bool) {
	first := len(p.fields)
	lean := p.lean && p.depth == itemDepth && p.under == "metadata"
	for more := false; !p.next('}'); more = true {
		if more && !p.next(',') {
			return nil, false
		}
		p.space()
		if p.at == len(p.raw) || p.raw[p.at] != '"' {
			return nil, false
		}
		name, ok := p.text()
		if !ok || !p.next(':') {
			return nil, false
		}
		if lean && name == "managedFields" {
			if !p.skip() {
				return nil, false
			}
			continue
		}
		p.under = name
		v, ok := p.value()
		if !ok {
			return nil, false
		}
		p.fields = append(p.fields, field{name, v})
	}
	m := make(map[string]any, len(p.fields)-first)
	for _, f := range p.fields[first:] {
		m[f.name] = f.value
	}
	twice := len(m) < len(p.fields)-first
	clear(p.fields[first:])
	p.fields = p.fields[:first]
	return m, !twice || !p.strict
}

func (p *decoder) array() (any, bool) {
	first := len(p.values)
	for !p.next(']') {
		if len(p.values) > first && !p.next(',') {
			return nil, false
		}
		v, ok := p.value()
		if !ok {
			return nil, false
		}
		p.values = append(p.values, v)
	}
	list := make([]any, len(p.values)-first)
	copy(list, p.values[first:])
	clear(p.values[first:])
	p.values = p.values[:first]
	return list, true
}

// skip reads over an array or object without looking at what it holds.
func (p *decoder) skip() bool {
	p.space()
	for open := 0; p.at < len(p.raw); {
		c := p.raw[p.at]
		p.at++
		switch c {
		case '[', '{':
			open++
		case ']', '}':
			open--
		case '"':
			for p.at < len(p.raw) && p.raw[p.at] != '"' {
				if p.raw[p.at] == '\\' {
					p.at++
				}
				p.at++
			}
			p.at++
		}
		if open == 0 {
			return c == ']' || c == '}'
		}
	}
	return false
}

// number takes a number as RFC 8259 §6 writes it.
func (p *decoder) number() (any, bool) {
	start := p.at
	if p.raw[p.at] == '-' {
		p.at++
	}
	from := p.at
	if n := p.digits(); n == 0 || n > 1 && p.raw[from] == '0' {
		return nil, false
	}
	whole := true
	if p.at < len(p.raw) && p.raw[p.at] == '.' {
		p.at++
		if whole = false; p.digits() == 0 {
			return nil, false
		}
	}
	if p.at < len(p.raw) && (p.raw[p.at] == 'e' || p.raw[p.at] == 'E') {
		p.at++
		if p.at < len(p.raw) && (p.raw[p.at] == '+' || p.raw[p.at] == '-') {
			p.at++
		}
		if whole = false; p.digits() == 0 {
			return nil, false
		}
	}
	if p.strict && !whole {
		return nil, false
	}
	text := string(p.raw[start:p.at])
	if whole {
		n, err := strconv.ParseInt(text, 10, 64)
		return n, err == nil
	}
	f, err := strconv.ParseFloat(text, 64)
	return f, err == nil
}

func (p *decoder) digits() int {
	start := p.at
	for p.at < len(p.raw) && p.raw[p.at] >= '0' && p.raw[p.at] <= '9' {
		p.at++
	}
	return p.at - start
}

// text takes a string whose first quote is next.
func (p *decoder) text() (string, bool) {
	p.at++
	start, ascii := p.at, true
	for ; p.at < len(p.raw); p.at++ {
		switch c := p.raw[p.at]; {
		case c == '"':
			b := p.raw[start:p.at]
			p.at++
			if !ascii && !utf8.Valid(b) {
				return "", false
			}
			return p.intern(b), true
		case c == '\\':
			return p.escaped(start)
		case c < ' ':
			return "", false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return "", false
}

// escaped takes the rest of a string that has an escape, which is next.
func (p *decoder) escaped(start int) (string, bool) {
	b := append(p.unescaped[:0], p.raw[start:p.at]...)
	defer func() { p.unescaped = b }()
	from := p.at
	for p.at < len(p.raw) {
		c := p.raw[p.at]
		p.at++
		switch {
		case c == '"':
			b = append(b, p.raw[from:p.at-1]...)
			return string(b), utf8.Valid(b)
		case c < ' ':
			return "", false
		case c != '\\':
			continue
		}
		b = append(b, p.raw[from:p.at-1]...)
		if p.at == len(p.raw) {
			return "", false
		}
		e := p.raw[p.at]
		p.at++
		switch e {
		case '"', '\\', '/':
			b = append(b, e)
		case 'n':
			b = append(b, '\n')
		case 't':
			b = append(b, '\t')
		case 'r':
			b = append(b, '\r')
		case 'u':
			r, ok := p.unicode()
			if !ok {
				return "", false
			}
			b = utf8.AppendRune(b, r)
		default:
			return "", false
		}
		from = p.at
	}
	return "", false
}

// unicode takes the four digits of an escape that stands for a character by
// itself; encoders in Go write <, > and & so.
func (p *decoder) unicode() (rune, bool) {
	if p.at+4 > len(p.raw) {
		return 0, false
	}
	n, err := strconv.ParseUint(string(p.raw[p.at:p.at+4]), 16, 16)
	if err != nil || n >= 0xd800 && n < 0xe000 {
		return 0, false
	}
	p.at += 4
	return rune(n), true
}

// intern gives one string for equal short ones.
func (p *decoder) intern(b []byte) string {
	const most = 48
	if len(b) == 0 {
		return ""
	}
	if len(b) > most {
		return string(b)
	}
	h := uint(len(b))
	for _, c := range b {
		h = h*31 + uint(c)
	}
	known := &p.known[h%uint(len(p.known))]
	if *known != string(b) {
		*known = string(b)
	}
	return *known
}
