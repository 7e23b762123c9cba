package effect

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/cluster"
)

// Delta is what an effect changed: the difference between the normal forms of
// its before-image and of what it made, as a JSON merge patch (RFC 7396). It is
// kept in the journal, because a rollback takes back what the run changed and
// nothing that somebody else has changed since. Nil where nothing changed.
func Delta(before, after *cluster.Object) map[string]any {
	if before == nil || after == nil {
		return nil
	}
	return difference(normal(before), normal(after))
}

// Patched is the normal form of before with the delta made.
func Patched(before *cluster.Object, delta map[string]any) *cluster.Object {
	m := normal(before)
	patch(m, delta)
	return &cluster.Object{Object: m}
}

func normal(o *cluster.Object) map[string]any {
	return cluster.Normalize(o, cluster.NormalizeOptions{}).Object
}

func difference(a, b map[string]any) map[string]any {
	out := map[string]any{}
	for k := range a {
		if _, ok := b[k]; !ok {
			out[k] = nil
		}
	}
	for k, now := range b {
		was, ok := a[k]
		if ok && reflect.DeepEqual(was, now) {
			continue
		}
		x, isX := was.(map[string]any)
		y, isY := now.(map[string]any)
		if isX && isY {
			out[k] = difference(x, y)
			continue
		}
		out[k] = now
	}
	return out
}

func patch(m, delta map[string]any) {
	for k, v := range delta {
		d, isMap := v.(map[string]any)
		switch {
		case v == nil:
			delete(m, k)
		case isMap:
			inner, ok := m[k].(map[string]any)
			if !ok {
				inner = map[string]any{}
			}
			patch(inner, d)
			m[k] = inner
		default:
			m[k] = v
		}
	}
}

// Foreign is a field that the run changed and that somebody else has changed
// since.
type Foreign struct {
	Field string `json:"field"`
	// Was is what it was before the run, Made what the run made of it, and Now
	// what it is; nil where it is not there.
	Was  any `json:"was"`
	Made any `json:"made"`
	Now  any `json:"now"`
}

// Revert takes back in live what led from before to after, three ways: a field
// that is as the run made it becomes what it was; one that is what it was
// stays; one that is something else was changed by somebody since, and is
// listed, and overwritten only if overwrite is set. What the run did not
// change is not touched. Lists whose items all have a name of their own are
// gone through by name, others are taken as a whole.
func Revert(live, before, after *cluster.Object, overwrite bool) (*cluster.Object, []Foreign) {
	r := &reverter{overwrite: overwrite}
	out := live.DeepCopy()
	r.maps("", normal(before), normal(after), out.Object)
	slices.SortFunc(r.foreign, func(a, b Foreign) int { return strings.Compare(a.Field, b.Field) })
	return out, r.foreign
}

type reverter struct {
	overwrite bool
	foreign   []Foreign
}

// field is a value that may not be there.
type field struct {
	v  any
	ok bool
}

func (f field) is(g field) bool { return f.ok == g.ok && reflect.DeepEqual(f.v, g.v) }

// maps reverts within live, key by key.
func (r *reverter) maps(path string, before, after, live map[string]any) {
	keys := maps.Clone(after)
	maps.Copy(keys, before)
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		b, inB := before[k]
		a, inA := after[k]
		l, inL := live[k]
		got := r.one(join(path, k), field{b, inB}, field{a, inA}, field{l, inL})
		if got.ok {
			live[k] = got.v
		} else {
			delete(live, k)
		}
	}
}

// one gives what the field is to be.
func (r *reverter) one(path string, before, after, live field) field {
	switch {
	case before.is(after), live.is(before):
		return live
	case live.is(after):
		return before.copied()
	}
	if b, a, l, ok := asMaps(before, after, live); ok {
		r.maps(path, b, a, l)
		return field{l, len(l) > 0 || before.ok}
	}
	if b, a, l, ok := asNamed(before, after, live); ok {
		return r.named(path, before, live, b, a, l)
	}
	r.foreign = append(r.foreign, Foreign{Field: path, Was: before.v, Made: after.v, Now: live.v})
	if r.overwrite {
		return before.copied()
	}
	return live
}

func (f field) copied() field {
	if !f.ok {
		return f
	}
	o := cluster.Object{Object: map[string]any{"v": f.v}}
	return field{o.DeepCopy().Object["v"], true}
}

// asMaps takes three values as maps, an absent one as an empty map.
func asMaps(fs ...field) (b, a, l map[string]any, ok bool) {
	out := make([]map[string]any, len(fs))
	for i, f := range fs {
		m, isMap := f.v.(map[string]any)
		if f.ok && !isMap {
			return nil, nil, nil, false
		}
		if m == nil {
			m = map[string]any{}
		}
		out[i] = m
	}
	return out[0], out[1], out[2], true
}

// named reverts a list whose items are told apart by name.
func (r *reverter) named(path string, before, live field, b, a, l map[string]any) field {
	keys := maps.Clone(a)
	maps.Copy(keys, b)
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		bv, inB := b[k]
		av, inA := a[k]
		lv, inL := l[k]
		got := r.one(path+"["+k+"]", field{bv, inB}, field{av, inA}, field{lv, inL})
		if got.ok {
			l[k] = got.v
		} else {
			delete(l, k)
		}
	}
	list := []any{}
	for _, from := range []field{before, live} {
		items, _ := from.v.([]any)
		for _, item := range items {
			name := nameOf(item)
			if v, ok := l[name]; ok {
				list = append(list, v)
				delete(l, name)
			}
		}
	}
	return field{list, len(list) > 0 || before.ok}
}

// asNamed takes three lists as maps by the name of their items.
func asNamed(fs ...field) (b, a, l map[string]any, ok bool) {
	out := make([]map[string]any, len(fs))
	for i, f := range fs {
		out[i] = map[string]any{}
		list, isList := f.v.([]any)
		if f.ok && !isList {
			return nil, nil, nil, false
		}
		for _, item := range list {
			name := nameOf(item)
			if _, twice := out[i][name]; name == "" || twice {
				return nil, nil, nil, false
			}
			out[i][name] = item
		}
	}
	return out[0], out[1], out[2], true
}

func nameOf(item any) string {
	m, _ := item.(map[string]any)
	name, _ := m["name"].(string)
	return name
}

// join writes a path as a person reads it; a key with dots stands in brackets.
func join(path, key string) string {
	switch {
	case strings.ContainsAny(key, "./"):
		return fmt.Sprintf("%s[%s]", path, key)
	case path == "":
		return key
	}
	return path + "." + key
}

// Differing names the fields in which the normal forms of two objects differ.
func Differing(a, b *cluster.Object) []string {
	r := &reverter{}
	// What is neither what it was nor what it became is listed; with "nothing"
	// for what it became, that is every difference.
	collect("", normal(a), normal(b), r)
	var out []string
	for _, f := range r.foreign {
		out = append(out, f.Field)
	}
	slices.Sort(out)
	return out
}

func collect(path string, a, b map[string]any, r *reverter) {
	keys := maps.Clone(b)
	maps.Copy(keys, a)
	for k := range keys {
		x, inX := a[k]
		y, inY := b[k]
		fx, fy := field{x, inX}, field{y, inY}
		if fx.is(fy) {
			continue
		}
		p := join(path, k)
		if mx, my, _, ok := asMaps(fx, fy, field{}); ok {
			collect(p, mx, my, r)
			continue
		}
		if nx, ny, _, ok := asNamed(fx, fy, field{}); ok {
			before := len(r.foreign)
			items(p, nx, ny, r)
			if len(r.foreign) > before {
				continue // else only their order differs
			}
		}
		r.foreign = append(r.foreign, Foreign{Field: p})
	}
}

// items collects within lists by the names of what is in them.
func items(path string, a, b map[string]any, r *reverter) {
	keys := maps.Clone(b)
	maps.Copy(keys, a)
	for k := range keys {
		p := path + "[" + k + "]"
		x, isX := a[k].(map[string]any)
		y, isY := b[k].(map[string]any)
		if isX && isY {
			collect(p, x, y, r)
		} else {
			r.foreign = append(r.foreign, Foreign{Field: p})
		}
	}
}
