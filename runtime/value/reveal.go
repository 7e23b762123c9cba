package value

import (
	"strings"

	"go.starlark.net/starlark"
)

// ToManifest is ToGo for an object that is to be written to a cluster. Secrets
// that stand where a Secret keeps its material are taken for what they hold;
// anywhere else they are no data, as for ToGo. What it gives must not get back to
// the script but as a cluster's object.
func ToManifest(v starlark.Value) (any, error) {
	if d, ok := v.(*starlark.Dict); ok {
		v = revealed(d)
	}
	return ToGo(v)
}

// revealed is a copy of d, a Secret or a List of some, with secrets as strings
// below data and stringData; any other dict is given as it is.
func revealed(d *starlark.Dict) *starlark.Dict {
	kind := textAt(d, "kind")
	switch {
	case kind == "Secret" && textAt(d, "apiVersion") == "v1":
		return replaced(d, func(key string, v starlark.Value) starlark.Value {
			material, ok := v.(*starlark.Dict)
			if !ok || key != "data" && key != "stringData" {
				return v
			}
			return replaced(material, func(_ string, v starlark.Value) starlark.Value {
				if s, ok := v.(*Secret); ok {
					return starlark.String(s.s)
				}
				return v
			})
		})
	case strings.HasSuffix(kind, "List"):
		return replaced(d, func(key string, v starlark.Value) starlark.Value {
			items, ok := v.(*starlark.List)
			if !ok || key != "items" {
				return v
			}
			elems := make([]starlark.Value, items.Len())
			for i := range elems {
				elems[i] = items.Index(i)
				if o, ok := elems[i].(*starlark.Dict); ok && textAt(o, "kind") == "Secret" {
					elems[i] = revealed(o)
				}
			}
			return starlark.NewList(elems)
		})
	}
	return d
}

func replaced(d *starlark.Dict, with func(key string, v starlark.Value) starlark.Value) *starlark.Dict {
	out := starlark.NewDict(d.Len())
	for _, kv := range d.Items() {
		key, _ := starlark.AsString(kv[0])
		_ = out.SetKey(kv[0], with(key, kv[1])) // it was a key before, and out is not frozen
	}
	return out
}

func textAt(d *starlark.Dict, key string) string {
	v, ok, err := d.Get(starlark.String(key))
	if err != nil || !ok {
		return ""
	}
	s, _ := starlark.AsString(v)
	return s
}
