package controllers

import "k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

// condition finds a condition of a status by its type, or nil.
func condition(status any, kind string) map[string]any {
	for _, c := range items(status, "conditions") {
		if text(c, "type") == kind {
			return c.(map[string]any)
		}
	}
	return nil
}

// newCondition makes a condition that keeps the transition time of the one
// that it replaces when their status is the same.
func newCondition(old map[string]any, kind, status, reason, message, now string) map[string]any {
	c := map[string]any{"type": kind, "status": status, "lastTransitionTime": now}
	if reason != "" {
		c["reason"] = reason
	}
	if message != "" {
		c["message"] = message
	}
	if old != nil && text(old, "status") == status && has(old, "lastTransitionTime") {
		c["lastTransitionTime"] = old["lastTransitionTime"]
	}
	return c
}

// withCondition returns conditions with c in the place of the one of its
// type, or at the end; the given slice is not changed.
func withCondition(conditions []any, c map[string]any) []any {
	out := make([]any, 0, len(conditions)+1)
	done := false
	for _, o := range conditions {
		if text(o, "type") == c["type"] {
			out, done = append(out, c), true
			continue
		}
		out = append(out, o)
	}
	if !done {
		out = append(out, c)
	}
	return out
}

// withoutCondition returns conditions without the one of a type.
func withoutCondition(conditions []any, kind string) []any {
	out := make([]any, 0, len(conditions))
	for _, o := range conditions {
		if text(o, "type") != kind {
			out = append(out, o)
		}
	}
	return out
}

// isTrue reports whether obj has a condition that is True.
func isTrue(obj *unstructured.Unstructured, kind string) bool {
	return text(condition(at(obj.Object, "status"), kind), "status") == "True"
}
