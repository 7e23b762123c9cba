package controllers

import (
	"math"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"

	"rutter.dev/rutter/runtime/sim/kinds"
)

// The accessors below read decoded JSON without copying it; what they return
// is shared with the stored object.

// at walks a path through nested maps; nil when it ends early.
func at(v any, path ...string) any {
	for _, key := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

func text(v any, path ...string) string {
	s, _ := at(v, path...).(string)
	return s
}

func flag(v any, path ...string) bool {
	b, _ := at(v, path...).(bool)
	return b
}

func table(v any, path ...string) map[string]any {
	m, _ := at(v, path...).(map[string]any)
	return m
}

func items(v any, path ...string) []any {
	l, _ := at(v, path...).([]any)
	return l
}

// number reads an integer, or otherwise when there is none.
func number(v any, otherwise int64, path ...string) int64 {
	switch n := at(v, path...).(type) {
	case int64:
		return n
	case int:
		return int64(n)
	case int32:
		return int64(n)
	case float64:
		return int64(n)
	}
	return otherwise
}

func has(v any, path ...string) bool { return at(v, path...) != nil }

// scaled resolves an int-or-percent field against a total; percentages are
// rounded up or down. otherwise is used when the field is absent or malformed.
func scaled(v any, total int64, up bool, otherwise int64) int64 {
	switch x := v.(type) {
	case string:
		s := intstr.Parse(x)
		n, err := intstr.GetScaledValueFromIntOrPercent(&s, int(total), up)
		if err != nil {
			return otherwise
		}
		return int64(n)
	case nil:
		return otherwise
	}
	n := number(v, math.MinInt64)
	if n == math.MinInt64 {
		return otherwise
	}
	return n
}

// equal compares decoded JSON.
func equal(a, b any) bool { return kinds.Equal(a, b) }

// edit is obj with a private copy of its metadata and spec, to be changed and
// passed to Update.
func edit(obj *unstructured.Unstructured) *unstructured.Unstructured {
	top := make(map[string]any, len(obj.Object))
	for k, v := range obj.Object {
		switch m := v.(type) {
		case map[string]any:
			if k == "metadata" || k == "spec" {
				top[k] = copyMap(m)
				continue
			}
		}
		top[k] = v
	}
	return &unstructured.Unstructured{Object: top}
}

// copyMap copies one level.
func copyMap(m map[string]any) map[string]any {
	out := make(map[string]any, len(m)+1)
	for k, v := range m {
		out[k] = v
	}
	return out
}

// deepCopy copies decoded JSON.
func deepCopy(v any) any {
	switch x := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, e := range x {
			out[k] = deepCopy(e)
		}
		return out
	case []any:
		out := make([]any, len(x))
		for i, e := range x {
			out[i] = deepCopy(e)
		}
		return out
	}
	return v
}

// selects reports whether a metav1.LabelSelector selects labels. A nil
// selector selects nothing, an empty one everything.
func selects(selector map[string]any, labels map[string]any) bool {
	if selector == nil {
		return false
	}
	for k, v := range table(selector, "matchLabels") {
		if labels[k] != v {
			return false
		}
	}
	for _, e := range items(selector, "matchExpressions") {
		if !expressionHolds(e, labels) {
			return false
		}
	}
	return true
}

func expressionHolds(e any, labels map[string]any) bool {
	value, present := labels[text(e, "key")]
	listed := false
	for _, v := range items(e, "values") {
		listed = listed || v == value
	}
	switch text(e, "operator") {
	case "In":
		return present && listed
	case "NotIn":
		return !present || !listed
	case "Exists":
		return present
	case "DoesNotExist":
		return !present
	}
	return false
}

// picks reports whether a Service's plain selector picks labels.
func picks(selector map[string]any, labels map[string]any) bool {
	if len(selector) == 0 {
		return false
	}
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

func labelsOf(obj *unstructured.Unstructured) map[string]any {
	return table(obj.Object, "metadata", "labels")
}

func annotationOf(obj *unstructured.Unstructured, key string) string {
	return text(obj.Object, "metadata", "annotations", key)
}

func uidOf(obj *unstructured.Unstructured) string { return text(obj.Object, "metadata", "uid") }

func deleting(obj *unstructured.Unstructured) bool {
	return has(obj.Object, "metadata", "deletionTimestamp")
}

// controllerOf returns the controller owner reference of obj, or nil.
func controllerOf(obj *unstructured.Unstructured) map[string]any {
	for _, r := range items(obj.Object, "metadata", "ownerReferences") {
		if flag(r, "controller") {
			return r.(map[string]any)
		}
	}
	return nil
}

// orNothing is obj, or an empty object when there is none.
func orNothing(obj *unstructured.Unstructured) *unstructured.Unstructured {
	if obj == nil {
		return &unstructured.Unstructured{}
	}
	return obj
}

// ownedBy makes the controller owner reference to owner.
func ownedBy(owner *unstructured.Unstructured) []any {
	return []any{map[string]any{
		"apiVersion": owner.GetAPIVersion(), "kind": owner.GetKind(),
		"name": owner.GetName(), "uid": uidOf(owner),
		"controller": true, "blockOwnerDeletion": true,
	}}
}

// olderFirst orders objects by creation time, then name.
func olderFirst(a, b *unstructured.Unstructured) int {
	if c := strings.Compare(text(a.Object, "metadata", "creationTimestamp"), text(b.Object, "metadata", "creationTimestamp")); c != 0 {
		return c
	}
	return strings.Compare(a.GetName(), b.GetName())
}
