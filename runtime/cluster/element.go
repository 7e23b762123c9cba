package cluster

import (
	"reflect"
	"slices"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// Element gives the element pe of the decoded JSON v, and how to put another in
// its place; nil, nil where v has no such element.
func Element(v any, pe fieldpath.PathElement) (any, func(any)) {
	switch v := v.(type) {
	case map[string]any:
		if pe.FieldName != nil {
			return v[*pe.FieldName], func(n any) { v[*pe.FieldName] = n }
		}
	case []any:
		if i := ItemOf(v, pe); i >= 0 {
			return v[i], func(n any) { v[i] = n }
		}
	}
	return nil, nil
}

// ItemOf finds the item pe of a list by what identifies it: its keys, its value or
// its place. It is -1 where there is none.
func ItemOf(list []any, pe fieldpath.PathElement) int {
	switch {
	case pe.Key != nil:
		return slices.IndexFunc(list, func(item any) bool {
			m, ok := item.(map[string]any)
			return ok && !slices.ContainsFunc(*pe.Key, func(f value.Field) bool { return !reflect.DeepEqual(m[f.Name], f.Value.Unstructured()) })
		})
	case pe.Value != nil:
		return slices.IndexFunc(list, func(item any) bool { return reflect.DeepEqual(item, (*pe.Value).Unstructured()) })
	case pe.Index != nil && *pe.Index < len(list):
		return *pe.Index
	}
	return -1
}
