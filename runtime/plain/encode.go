package plain

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"sync"
	"unicode/utf8"
)

// Encode returns exactly what encoding/json.Marshal does: names sorted, HTML
// escaped.
func Encode(v any) ([]byte, error) { return html.encode(v) }

// EncodeBare is Encode without escapes of HTML, as of a json.Encoder that does
// not escape it.
func EncodeBare(v any) ([]byte, error) { return bare.encode(v) }

// Append appends v's JSON to b.
func Append(b []byte, v any) ([]byte, error) { return html.append(b, v) }

// style is how text is written.
type style bool

const (
	html style = true // with HTML escaped
	bare style = false
)

// drafts hold text while it grows: how long it gets is known at its end.
var drafts = sync.Pool{New: func() any { return new([]byte) }}

// longestDraft is the size from which the memory of a draft is not kept.
const longestDraft = 1 << 20

func (e style) encode(v any) ([]byte, error) {
	draft, _ := drafts.Get().(*[]byte)
	b, err := e.append((*draft)[:0], v)
	if cap(b) <= longestDraft {
		*draft = b
		defer drafts.Put(draft)
	}
	if err != nil {
		return nil, err
	}
	return bytes.Clone(b), nil
}

func (e style) append(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case string:
		return e.text(b, v)
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	case map[string]any:
		return e.object(b, v)
	case []any:
		return e.array(b, v)
	}
	return e.general(b, v)
}

// general is for what is not plain.
func (e style) general(b []byte, v any) ([]byte, error) {
	if e == html {
		raw, err := json.Marshal(v)
		return append(b, raw...), err
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return append(b, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...), err
}

func (e style) object(b []byte, m map[string]any) ([]byte, error) {
	if m == nil {
		return append(b, "null"...), nil
	}
	// Most objects have few fields: their names need no memory of their own.
	var few [16]string
	names := slices.AppendSeq(few[:0], maps.Keys(m))
	slices.Sort(names)
	b = append(b, '{')
	var err error
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = e.text(b, name); err != nil {
			return b, err
		}
		b = append(b, ':')
		if b, err = e.append(b, m[name]); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

func (e style) array(b []byte, list []any) ([]byte, error) {
	if list == nil {
		return append(b, "null"...), nil
	}
	b = append(b, '[')
	var err error
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = e.append(b, v); err != nil {
			return b, err
		}
	}
	return append(b, ']'), nil
}

// text leaves control characters, the line ends of Unicode and what is no UTF-8 to
// the general encoder.
func (e style) text(b []byte, s string) ([]byte, error) {
	start := len(b)
	b = append(b, '"')
	from, whole := 0, 0 // what comes before whole is of a character that was looked at
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c < 0x7f && c != '"' && c != '\\' && (e == bare || c != '<' && c != '>' && c != '&') {
			continue
		}
		if c >= utf8.RuneSelf {
			if i < whole {
				continue
			}
			r, n := utf8.DecodeRuneInString(s[i:])
			if whole = i + n; n > 1 && r != '\u2028' && r != '\u2029' {
				continue
			}
		}
		escape := escapes(c)
		if escape == "" {
			return e.general(b[:start], s)
		}
		b = append(b, s[from:i]...)
		b = append(b, escape...)
		from = i + 1
	}
	b = append(b, s[from:]...)
	return append(b, '"'), nil
}

func escapes(c byte) string {
	switch c {
	case '"':
		return `\"`
	case '\\':
		return `\\`
	case '\n':
		return `\n`
	case '\r':
		return `\r`
	case '\t':
		return `\t`
	case '<':
		return `\u003c`
	case '>':
		return `\u003e`
	case '&':
		return `\u0026`
	}
	return ""
}
