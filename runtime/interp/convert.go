package interp

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	startime "go.starlark.net/lib/time"
	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/value"
)

func (p *Param) hint() string {
	if p.Kind == "enum" {
		return strings.Join(p.Values, "|")
	}
	return strings.ToUpper(p.Kind)
}

// convert makes the typed value of plain data; text is what --set gave, to be
// parsed by the parameter's kind.
func (p *Param) convert(x any, text bool) (starlark.Value, error) {
	s, isString := x.(string)
	switch p.Kind {
	case "string", "enum", "duration", "version", "secret":
		if !isString {
			return nil, p.mistyped(x)
		}
		return p.fromString(s)
	case "int":
		return p.toInt(x, s, text)
	case "bool":
		if v, ok := x.(bool); ok {
			return starlark.Bool(v), nil
		}
		if text && (s == "true" || s == "false") {
			return starlark.Bool(s == "true"), nil
		}
		if text {
			return nil, fmt.Errorf("got %q, want true or false", s)
		}
	case "list":
		if text && !strings.HasPrefix(s, "[") {
			return listOf(s), nil
		}
		if text {
			x = fromJSON(s)
		}
		if l, ok := x.([]any); ok {
			return value.Plain(l)
		}
	case "dict":
		if text && !strings.HasPrefix(s, "{") {
			return dictOf(s)
		}
		if text {
			x = fromJSON(s)
		}
		if m, ok := x.(map[string]any); ok {
			return value.Plain(m)
		}
	}
	if text {
		return nil, fmt.Errorf("got %q, want %s", s, map[string]string{"list": `a,b or a JSON list such as ["a","b"]`, "dict": `a=1,b=x or a JSON object such as {"a":1}`}[p.Kind])
	}
	return nil, p.mistyped(x)
}

// fromJSON is the decoded text; the text itself where it is no JSON, which is
// the wrong type for whatever asked.
func fromJSON(s string) any {
	x, err := value.DecodeJSON([]byte(s))
	if err != nil {
		return s
	}
	return x
}

func (p *Param) fromString(s string) (starlark.Value, error) {
	switch p.Kind {
	case "duration":
		d, err := value.ParseDuration(s)
		return startime.Duration(d), err
	case "version":
		return value.ParseVersion(s)
	case "enum":
		for _, v := range p.Values {
			if v == s {
				return starlark.String(s), nil
			}
		}
		if near := diag.Nearest(s, p.Values); near != "" {
			return nil, fmt.Errorf("got %q; did you mean %q? one of: %s", s, near, strings.Join(p.Values, ", "))
		}
		return nil, fmt.Errorf("got %q, want one of: %s", s, strings.Join(p.Values, ", "))
	}
	if p.Kind == "secret" {
		return p.hidden(s)
	}
	if p.Pattern != "" && !p.pattern.MatchString(s) {
		return nil, fmt.Errorf("got %q, which does not match %s", s, p.Pattern)
	}
	return starlark.String(s), nil
}

// maxSecret bounds a secret, in bytes: the API server takes no larger Secret.
const maxSecret = 1 << 20

// hidden is a secret parameter's value. What is wrong with it is told without it.
func (p *Param) hidden(s string) (starlark.Value, error) {
	switch {
	case s == "":
		return nil, errors.New("is empty")
	case len(s) > maxSecret:
		return nil, fmt.Errorf("is larger than %d bytes", maxSecret)
	case p.Pattern != "" && !p.pattern.MatchString(s):
		return nil, fmt.Errorf("what was given does not match %s", p.Pattern)
	}
	return value.NewSecret(s), nil
}

func (p *Param) toInt(x any, s string, text bool) (starlark.Value, error) {
	var n int64
	switch v := x.(type) {
	case string:
		var err error
		if n, err = strconv.ParseInt(s, 10, 64); err != nil || !text {
			return nil, fmt.Errorf("got %q, want an int", s)
		}
	case int:
		n = int64(v)
	case int64:
		n = v
	case float64: // JSON and YAML decoders give whole numbers as floats
		if v != math.Trunc(v) || math.Abs(v) >= 1<<53 {
			return nil, fmt.Errorf("got %v, want an int", v)
		}
		n = int64(v)
	case json.Number:
		var err error
		if n, err = v.Int64(); err != nil {
			return nil, fmt.Errorf("got %s, want an int", v)
		}
	default:
		return nil, p.mistyped(x)
	}
	if p.Min != nil && n < *p.Min {
		return nil, fmt.Errorf("got %d, want at least %d", n, *p.Min)
	}
	if p.Max != nil && n > *p.Max {
		return nil, fmt.Errorf("got %d, want at most %d", n, *p.Max)
	}
	return starlark.MakeInt64(n), nil
}

func (p *Param) mistyped(x any) error {
	got := "null"
	if v, err := value.FromGo(x); err == nil {
		got = v.Type()
		if got == "object" {
			got = "dict"
		}
		if got == "frozen_list" {
			got = "list"
		}
	}
	if f, ok := x.(float64); ok && f == math.Trunc(f) {
		got = "int"
	}
	want := p.Kind
	if want == "enum" {
		want = "one of: " + strings.Join(p.Values, ", ")
	}
	return fmt.Errorf("got %s, want %s", got, want)
}

func listOf(s string) starlark.Value {
	var elems []starlark.Value
	for _, part := range strings.Split(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			elems = append(elems, starlark.String(part))
		}
	}
	return starlark.NewList(elems)
}

// dictOf reads a=1,b=x as a dict, its values as YAML scalars (scalarOf).
func dictOf(s string) (starlark.Value, error) {
	d := starlark.NewDict(0)
	for _, part := range strings.Split(s, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		k, v, ok := strings.Cut(part, "=")
		if !ok {
			return nil, fmt.Errorf("got %q, want key=value", part)
		}
		if err := d.SetKey(starlark.String(k), scalarOf(v)); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// plainInt is an integer as all versions of YAML read it.
var plainInt = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

// scalarOf reads true, false and integers as what they are, as istioctl's and
// Helm's --set do; all else, versions such as 1.31 included, is a string, and
// quotes ("true") make one of anything.
func scalarOf(s string) starlark.Value {
	switch {
	case s == "true":
		return starlark.True
	case s == "false":
		return starlark.False
	case plainInt.MatchString(s):
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return starlark.MakeInt64(n)
		}
	case len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0]:
		return starlark.String(s[1 : len(s)-1])
	}
	return starlark.String(s)
}
