package plan

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"rutter.dev/rutter/runtime/cluster"
)

// changed lists the fields in which two objects differ, by path. Items of lists
// are told apart by their name, as a person would.
func changed(before, after *cluster.Object) []Field {
	if before == nil || after == nil {
		return nil
	}
	a, b := cluster.Normal(before, cluster.NormalizeOptions{}), cluster.Normal(after, cluster.NormalizeOptions{})
	var out []Field
	compare("", a.Object, b.Object, &out)
	return out
}

// Differing lists the fields in which two objects differ, as those of an effect
// are listed; nil where one of them is.
func Differing(before, after *cluster.Object) []Field {
	if before == nil || after == nil {
		return nil
	}
	return changed(plainNumbers(before), plainNumbers(after))
}

func compare(path string, a, b any, out *[]Field) {
	if reflect.DeepEqual(a, b) {
		return
	}
	if x, ok := a.(map[string]any); ok {
		if y, ok := b.(map[string]any); ok {
			compareMaps(path, x, y, out)
			return
		}
	}
	if x, ok := a.([]any); ok {
		if y, ok := b.([]any); ok && compareLists(path, x, y, out) {
			return
		}
	}
	*out = append(*out, Field{Path: path, Old: a, New: b})
}

func compareMaps(path string, a, b map[string]any, out *[]Field) {
	keys := map[string]bool{}
	for k := range a {
		keys[k] = true
	}
	for k := range b {
		keys[k] = true
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		compare(step(path, k), a[k], b[k], out)
	}
}

func step(path, key string) string {
	if path == "" {
		return key
	}
	for _, r := range key {
		if r == '.' || r == '/' {
			return path + "[" + key + "]"
		}
	}
	return path + "." + key
}

// compareLists compares lists whose items have names; false for others.
func compareLists(path string, a, b []any, out *[]Field) bool {
	x, ok := byName(a)
	if !ok {
		return false
	}
	y, ok := byName(b)
	if !ok {
		return false
	}
	keys := map[string]bool{}
	for k := range x {
		keys[k] = true
	}
	for k := range y {
		keys[k] = true
	}
	n := len(*out)
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		compare(fmt.Sprintf("%s[%s]", path, k), x[k], y[k], out)
	}
	return len(*out) > n // else only the order differs
}

func byName(list []any) (map[string]any, bool) {
	out := map[string]any{}
	for _, v := range list {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		name, ok := m["name"].(string)
		if !ok || out[name] != nil {
			return nil, false
		}
		out[name] = m
	}
	return out, len(list) > 0
}
