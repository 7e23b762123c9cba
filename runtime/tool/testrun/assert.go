package testrun

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"go.starlark.net/starlark"
	"sigs.k8s.io/yaml"

	"rutter.dev/rutter/runtime/value"
)

// equalDepth is how deep equality looks: cluster objects nest deeper than
// Starlark's usual ten levels.
const equalDepth = 100

// assertion is a failed expectation.
type assertion struct {
	message string
	detail  string // further lines
}

// Error implements error.
func (a *assertion) Error() string {
	if a.detail == "" {
		return a.message
	}
	return a.message + "\n" + a.detail
}

func about(msg, text string) string {
	if msg == "" {
		return text
	}
	return msg + ": " + text
}

func (t *test) equal(_ *starlark.Thread, a *equalArgs) (starlark.Value, error) {
	got, want := plainly(a.Got), plainly(a.Want)
	same, err := starlark.EqualDepth(got, want, equalDepth)
	if err != nil {
		return nil, fmt.Errorf("t.equal: %w", err)
	}
	if same {
		return starlark.None, nil
	}
	g, w := display(got), display(want)
	if !strings.Contains(g, "\n") && !strings.Contains(w, "\n") {
		return nil, &assertion{message: about(a.Msg, fmt.Sprintf("got %s, want %s", g, w))}
	}
	return nil, &assertion{message: about(a.Msg, "not equal"), detail: unified("want", "got", w, g)}
}

// plainly turns cluster objects into dicts and lists, which compare with
// literals. What is no data stays as it is.
func plainly(v starlark.Value) starlark.Value {
	switch v.(type) {
	case starlark.String, starlark.Bool, starlark.Int, starlark.Float, starlark.NoneType:
		return v
	}
	x, err := value.ToGo(v)
	if err != nil {
		return v
	}
	p, err := value.Plain(x)
	if err != nil {
		return v
	}
	return p
}

// display shows a value: text as it is, data of more than a line as YAML.
func display(v starlark.Value) string {
	if s, ok := starlark.AsString(v); ok {
		if strings.Contains(s, "\n") {
			return s
		}
		return v.String()
	}
	if short := v.String(); len(short) <= 100 {
		return short
	}
	x, err := value.ToGo(v)
	if err != nil {
		return v.String()
	}
	j, err := json.Marshal(x)
	if err != nil {
		return v.String()
	}
	y, err := yaml.JSONToYAML(j)
	if err != nil {
		return v.String()
	}
	return string(y)
}

func (t *test) isTrue(_ *starlark.Thread, a *trueArgs) (starlark.Value, error) {
	if a.Cond.Truth() {
		return starlark.None, nil
	}
	return nil, &assertion{message: about(a.Msg, "got "+a.Cond.String()+", want something true")}
}

func (t *test) contains(_ *starlark.Thread, a *containsArgs) (starlark.Value, error) {
	if text, ok := starlark.AsString(a.In); ok {
		part, ok := starlark.AsString(a.Part)
		if !ok {
			return nil, fmt.Errorf("t.contains: part: got %s, want a string as the text is one", a.Part.Type())
		}
		if strings.Contains(text, part) {
			return starlark.None, nil
		}
		return nil, &assertion{message: about(a.Msg, fmt.Sprintf("the text does not contain %q", part)), detail: strings.TrimRight(text, "\n")}
	}
	it, ok := a.In.(starlark.Iterable)
	if !ok {
		return nil, fmt.Errorf("t.contains: text: got %s, want a string, list or dict", a.In.Type())
	}
	part := plainly(a.Part)
	for e := range starlark.Elements(it) {
		same, err := starlark.EqualDepth(plainly(e), part, equalDepth)
		if err != nil {
			return nil, fmt.Errorf("t.contains: %w", err)
		}
		if same {
			return starlark.None, nil
		}
	}
	return nil, &assertion{message: about(a.Msg, fmt.Sprintf("%s is not in the %s", a.Part, a.In.Type())), detail: display(plainly(a.In))}
}

// maxDiff bounds the lines of a diff that are shown.
const maxDiff = 120

// unified is the unified diff of two texts.
func unified(from, to, a, b string) string {
	text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: difflib.SplitLines(a), B: difflib.SplitLines(b), FromFile: from, ToFile: to, Context: 3,
	})
	if err != nil { // writing to a string cannot fail
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if n := len(lines); n > maxDiff {
		lines = append(lines[:maxDiff], fmt.Sprintf("… %d lines more", n-maxDiff))
	}
	return strings.Join(lines, "\n")
}
