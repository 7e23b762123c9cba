package plain

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v2"
)

// AppendYAML appends the field name with the value v to b, exactly as
// go.yaml.in/yaml/v2 writes a document of it. A diff shows definitions of thousands
// of lines, and the general encoder, which makes events of them and looks at every
// character several times, takes longer for one than the server for its dry-run.
// What is not plain (text beyond ASCII, long names, values of other types) is left
// to it, one field at a time, so that there is one authority on how it is written.
func AppendYAML(b []byte, name string, v any) ([]byte, error) {
	w := yamlWriter{b: b, line: len(b)}
	if err := w.field(name, v, 0); err != nil {
		return b, err
	}
	w.end()
	return w.b, nil
}

// yamlStep is how far a mapping is indented below its name, and longestName how
// long a name may be that is written before a colon.
const (
	yamlStep    = 2
	longestName = 128
)

// yamlWriter writes block style. Its methods take the column of the mapping or of
// the dashes that they write in; what they write last may lack its line's end.
type yamlWriter struct {
	b    []byte
	line int // where the last line begins
}

// end ends the last line, which a block of text has done already.
func (w *yamlWriter) end() {
	if w.line != len(w.b) {
		w.b = append(w.b, '\n')
		w.line = len(w.b)
	}
}

// start begins a line.
func (w *yamlWriter) start(at int) {
	w.end()
	for range at {
		w.b = append(w.b, ' ')
	}
}

func (w *yamlWriter) field(name string, v any, at int) error {
	if !plainName(name) || !plainValue(v) {
		return w.general(map[string]any{name: v}, at, at/yamlStep)
	}
	w.text(name, at, false)
	w.b = append(w.b, ':')
	switch v := v.(type) {
	case map[string]any:
		if len(v) > 0 {
			w.start(at + yamlStep)
			return w.mapping(v, at+yamlStep)
		}
	case []any:
		if len(v) > 0 {
			w.start(at)
			return w.sequence(v, at)
		}
	}
	w.b = append(w.b, ' ')
	w.scalar(v, at)
	return nil
}

// mapping writes the fields of m; its first line has begun.
func (w *yamlWriter) mapping(m map[string]any, at int) error {
	var few [16]string // most have few fields: their names need no memory of their own
	names := slices.AppendSeq(few[:0], maps.Keys(m))
	slices.SortFunc(names, naturally)
	for i, name := range names {
		if i > 0 {
			w.start(at)
		}
		if err := w.field(name, m[name], at); err != nil {
			return err
		}
	}
	return nil
}

// sequence writes the elements of list; its first line has begun.
func (w *yamlWriter) sequence(list []any, at int) error {
	for i, v := range list {
		if i > 0 {
			w.start(at)
		}
		if err := w.element(v, at); err != nil {
			return err
		}
	}
	return nil
}

func (w *yamlWriter) element(v any, at int) error {
	if !plainValue(v) {
		return w.general(map[string]any{"-": []any{v}}, at, at/yamlStep+1)
	}
	w.b = append(w.b, '-', ' ')
	switch v := v.(type) {
	case map[string]any:
		if len(v) > 0 {
			return w.mapping(v, at+yamlStep)
		}
	case []any:
		if len(v) > 0 {
			return w.sequence(v, at+yamlStep)
		}
	}
	w.scalar(v, at)
	return nil
}

// general lets the general encoder write m in column at, by handing it m below as
// many names as that takes: where text is folded depends on its column. The first
// lines of what it writes, those of the names, are left out.
func (w *yamlWriter) general(m any, at, above int) error {
	for range at / yamlStep {
		m = map[string]any{"-": m}
	}
	text, err := yaml.Marshal(m)
	if err != nil {
		return err
	}
	for range above {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	if len(text) < at {
		return fmt.Errorf("%d bytes of YAML are fewer than its indentation", len(text))
	}
	w.b = append(w.b, text[at:]...) // its first line has begun
	w.line = len(w.b)
	return nil
}

// plainName reports whether a name is written before a colon, without folds.
func plainName(s string) bool {
	if len(s) > longestName {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// plainValue reports whether v itself, not what is in it, is written here.
func plainValue(v any) bool {
	switch v := v.(type) {
	case nil, bool, int64, float64, map[string]any, []any:
		return true
	case string:
		for i := range len(v) {
			if v[i] >= 0x7f {
				return false
			}
		}
		return true
	}
	return false
}

// scalar writes a plain value that is no mapping or sequence, or an empty one.
func (w *yamlWriter) scalar(v any, at int) {
	switch v := v.(type) {
	case nil:
		w.b = append(w.b, "null"...)
	case bool:
		w.b = strconv.AppendBool(w.b, v)
	case int64:
		w.b = strconv.AppendInt(w.b, v, 10)
	case float64:
		w.float(v)
	case string:
		w.text(v, at+yamlStep, true)
	case map[string]any:
		w.b = append(w.b, "{}"...)
	case []any:
		w.b = append(w.b, "[]"...)
	}
}

func (w *yamlWriter) float(v float64) {
	s := strconv.FormatFloat(v, 'g', -1, 64)
	switch s {
	case "+Inf":
		s = ".inf"
	case "-Inf":
		s = "-.inf"
	case "NaN":
		s = ".nan"
	}
	w.b = append(w.b, s...)
}
