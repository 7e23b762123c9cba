package knowledge

import (
	"fmt"
	"slices"
	"strings"
)

// maxSteps bounds a path, and so the work that one costs.
const maxSteps = 32

// path says where in an object values are:
//
//	spec.ports[].targetPort                    of every element
//	spec.template.spec.containers[name=proxy]  of those with that name
//	metadata.annotations["example.com/key"]    a key with dots
//	spec.*.tls                                 any key
//	**.outlierDetection                        at any depth, here too
type path []step

type stepKind int

const (
	byKey    stepKind = iota // the value of key
	anyKey                   // every value of a map
	anyDepth                 // the value itself and all within it
	elements                 // every element of a list
	filtered                 // the elements whose key has value
)

type step struct {
	kind       stepKind
	key, value string
}

// parsePath reads a path.
func parsePath(text string) (path, error) {
	if text == "" {
		return nil, fmt.Errorf("an empty path")
	}
	var out path
	for rest := text; rest != ""; {
		if len(out) >= maxSteps {
			return nil, fmt.Errorf("path %q: more than %d steps", text, maxSteps)
		}
		var (
			s   step
			err error
		)
		if rest[0] == '[' {
			s, rest, err = bracket(rest)
		} else {
			if len(out) > 0 {
				if rest[0] != '.' {
					return nil, fmt.Errorf("path %q: want . or [ before %q", text, rest)
				}
				rest = rest[1:]
			}
			s, rest, err = word(rest)
		}
		if err != nil {
			return nil, fmt.Errorf("path %q: %w", text, err)
		}
		if s.kind == anyDepth && slices.ContainsFunc(out, func(o step) bool { return o.kind == anyDepth }) {
			return nil, fmt.Errorf("path %q: ** twice", text) // it would cost the square of the object's size
		}
		out = append(out, s)
	}
	return out, nil
}

func word(text string) (step, string, error) {
	end := strings.IndexAny(text, ".[")
	if end < 0 {
		end = len(text)
	}
	w, rest := text[:end], text[end:]
	switch {
	case w == "":
		return step{}, "", fmt.Errorf("a key is missing before %q", text)
	case w == "*":
		return step{kind: anyKey}, rest, nil
	case w == "**":
		return step{kind: anyDepth}, rest, nil
	case strings.ContainsAny(w, `*]"=`):
		return step{}, "", fmt.Errorf("%q is no key; write one with such characters as [\"key\"]", w)
	}
	return step{key: w}, rest, nil
}

func bracket(text string) (step, string, error) {
	if strings.HasPrefix(text, `["`) {
		key, rest, ok := strings.Cut(text[2:], `"]`)
		if !ok || key == "" {
			return step{}, "", fmt.Errorf(`%q is no ["key"]`, text)
		}
		return step{key: key}, rest, nil
	}
	in, rest, ok := strings.Cut(text[1:], "]")
	if !ok {
		return step{}, "", fmt.Errorf("%q is not closed", text)
	}
	if in == "" {
		return step{kind: elements}, rest, nil
	}
	key, value, ok := strings.Cut(in, "=")
	if !ok || key == "" {
		return step{}, "", fmt.Errorf(`[%s] is none of [], [key=value], ["key"]`, in)
	}
	return step{kind: filtered, key: key, value: value}, rest, nil
}

// values are those at p in v.
func (p path) values(v any) []any {
	now := []any{v}
	for _, s := range p {
		var next []any
		for _, v := range now {
			next = s.from(v, next)
		}
		if now = next; len(now) == 0 {
			return nil
		}
	}
	return now
}

func (s step) from(v any, out []any) []any {
	switch s.kind {
	case byKey:
		if m, ok := v.(map[string]any); ok {
			if x, ok := m[s.key]; ok && x != nil {
				out = append(out, x)
			}
		}
	case anyKey:
		out = append(out, children(v, false)...)
	case elements, filtered:
		for _, x := range children(v, true) {
			if s.kind == filtered {
				m, ok := x.(map[string]any)
				if got, scalar := textOf(m[s.key]); !ok || !scalar || got != s.value {
					continue
				}
			}
			out = append(out, x)
		}
	case anyDepth:
		out = append(out, v)
		for _, x := range slices.Concat(children(v, false), children(v, true)) {
			out = s.from(x, out)
		}
	}
	return out
}

// children are the values of a map in the order of its keys, or with list the
// elements of a list.
func children(v any, list bool) []any {
	if list {
		l, _ := v.([]any)
		return l
	}
	m, _ := v.(map[string]any)
	keys := make([]string, 0, len(m))
	for k, x := range m {
		if x != nil {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	out := make([]any, len(keys))
	for i, k := range keys {
		out[i] = m[k]
	}
	return out
}

// textOf is how a scalar is written; ok is false for anything else.
func textOf(v any) (text string, ok bool) {
	switch x := v.(type) {
	case string:
		return x, true
	case bool, int, int64, uint64, float64:
		return fmt.Sprint(x), true
	}
	return "", false
}
