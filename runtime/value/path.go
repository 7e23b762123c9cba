package value

import (
	"fmt"
	"strconv"
	"strings"

	"go.starlark.net/starlark"
)

// objectGet is o.get(path, default = None). The path is dotted
// ("spec.replicas"); list elements are numbers ("spec.containers[0].image" or
// "spec.containers.0.image"); a key with dots in it goes in brackets and quotes
// (`metadata.labels["app.kubernetes.io/name"]`). A key of the object itself
// that equals the whole path wins, so labels.get("app.kubernetes.io/name")
// works; what has a slash is never a path, so that labels.get("istio.io/rev") is
// absent where there is a label istio. What is absent or null gives the default; a
// path through something that is neither object nor list is an error.
func objectGet(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	o := b.Receiver().(*Object)
	var path string
	var deflt starlark.Value = starlark.None
	if err := starlark.UnpackArgs("get", args, kwargs, "path", &path, "default?", &deflt); err != nil {
		return nil, err
	}
	v, ok, err := o.Lookup(path)
	if err != nil {
		return nil, err
	}
	if !ok {
		return deflt, nil
	}
	return v, nil
}

// Lookup finds the value at a path as o.get takes it. ok is false for what is
// absent or null.
func (o *Object) Lookup(path string) (v starlark.Value, ok bool, err error) {
	if x, found := o.m[path]; found {
		return o.child(path, x), x != nil, nil
	}
	if dotted, _, _ := strings.Cut(path, "["); strings.Contains(dotted, "/") {
		return nil, false, nil // the name of a label or an annotation
	}
	segs, err := splitPath(path)
	if err != nil {
		return nil, false, fmt.Errorf("%s: get: %w", o.at.subject(), err)
	}
	var cur starlark.Value = o
	done := o.at.path()
	for _, s := range segs {
		switch c := cur.(type) {
		case *Object:
			x, found := c.m[s]
			if !found || x == nil {
				return nil, false, nil
			}
			cur = c.child(s, x)
		case starlark.Indexable:
			if _, isString := cur.(starlark.String); isString {
				return nil, false, o.wrongShape(done, cur, s)
			}
			i, convErr := strconv.Atoi(s)
			if convErr != nil {
				return nil, false, fmt.Errorf("%s: %s is a list; got %q, want a number", o.at.subject(), done, s)
			}
			if i < 0 || i >= c.Len() {
				return nil, false, nil
			}
			if cur = c.Index(i); cur == starlark.None {
				return nil, false, nil
			}
		default:
			return nil, false, o.wrongShape(done, cur, s)
		}
		done = join(done, s)
	}
	return cur, true, nil
}

func (o *Object) wrongShape(path string, v starlark.Value, seg string) error {
	return fmt.Errorf("%s: %s is a %s and has no %q", o.at.subject(), path, v.Type(), seg)
}

// splitPath cuts `a.b[0]["c.d"]` into its segments.
func splitPath(path string) ([]string, error) {
	var segs []string
	rest := path
	for rest != "" {
		switch {
		case strings.HasPrefix(rest, "["):
			seg, after, err := bracket(path, rest)
			if err != nil {
				return nil, err
			}
			segs, rest = append(segs, seg), after
		default:
			end := strings.IndexAny(rest, ".[")
			if end < 0 {
				end = len(rest)
			}
			if end == 0 {
				return nil, fmt.Errorf("path %q has an empty part", path)
			}
			segs, rest = append(segs, rest[:end]), rest[end:]
		}
		if after, dotted := strings.CutPrefix(rest, "."); dotted {
			if after == "" || strings.HasPrefix(after, "[") {
				return nil, fmt.Errorf("path %q has an empty part", path)
			}
			rest = after
		}
	}
	if len(segs) == 0 {
		return nil, fmt.Errorf("the path is empty")
	}
	return segs, nil
}

// bracket reads [0], ["key"] or ['key'] at the start of rest.
func bracket(path, rest string) (seg, after string, err error) {
	if len(rest) > 2 && (rest[1] == '"' || rest[1] == '\'') {
		end := strings.Index(rest[2:], string(rest[1])+"]")
		if end < 0 {
			return "", "", fmt.Errorf("path %q: a bracket is not closed", path)
		}
		return rest[2 : 2+end], rest[2+end+2:], nil
	}
	inside, after, ok := strings.Cut(rest[1:], "]")
	if !ok {
		return "", "", fmt.Errorf("path %q: a bracket is not closed", path)
	}
	if _, err := strconv.Atoi(inside); err != nil {
		return "", "", fmt.Errorf("path %q: got [%s], want a number or a quoted key in brackets", path, inside)
	}
	return inside, after, nil
}
