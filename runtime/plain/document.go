package plain

import (
	"bytes"

	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// Decode is a YAML (or JSON) document as a tree, within the bounds: whole numbers
// are int64, keys that occur twice are errors, and an empty document is nil. One in
// plain JSON is not parsed as YAML first, which takes ten times as long.
func (o Bounds) Decode(doc []byte) (any, error) {
	if v, ok := o.plain(doc); ok {
		return v, nil
	}
	j, err := o.JSON(doc)
	if err != nil || len(bytes.TrimSpace(j)) == 0 {
		return nil, err
	}
	p := decoder{raw: j}
	if v, ok := p.document(); ok {
		return v, nil
	}
	var v any
	err = utiljson.Unmarshal(j, &v)
	return v, err
}

// plain decodes a document that is an object in JSON and means the same in YAML.
func (o Bounds) plain(doc []byte) (any, bool) {
	if d := bytes.TrimSpace(doc); len(d) == 0 || d[0] != '{' || !readAlike(d) || o.Check(doc) != nil {
		return nil, false
	}
	p := decoder{raw: doc, strict: true}
	return p.document()
}

// readAlike reports whether doc is without the characters that JSON takes as they are
// in text and YAML does not: controls, line ends of Unicode, and marks of byte order.
func readAlike(doc []byte) bool {
	for i, c := range doc {
		if c < 0x7f || i+2 >= len(doc) {
			continue
		}
		b, d := doc[i+1], doc[i+2]
		switch {
		case c == 0x7f, c == 0xc2 && b < 0xa0, c == 0xe2 && b == 0x80 && (d == 0xa8 || d == 0xa9),
			c == 0xef && (b == 0xbb && d == 0xbf || b == 0xbf && d >= 0xbe):
			return false
		}
	}
	return true
}
