package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"rutter.dev/rutter/runtime/plain"
)

// NormalizeOptions say what else Normalize leaves in or out.
type NormalizeOptions struct {
	KeepStatus bool
}

// serverMetadata is written by the API server and differs between two equal objects.
var serverMetadata = [...]string{
	"managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink",
	"deletionTimestamp", "deletionGracePeriodSeconds",
}

// bookkeeping are annotations of tools and controllers, not of the user.
var bookkeeping = [...]string{
	AnnotationRun, AnnotationEffect,
	"kubectl.kubernetes.io/last-applied-configuration",
	"deployment.kubernetes.io/revision",        // deployment controller
	"deprecated.daemonset.template.generation", // API server, for apps/v1beta1 clients
}

// Normalize is a copy of o without what the server, its controllers and rutter
// itself write on it: two objects that mean the same have the same normal form.
func Normalize(o *Object, opts NormalizeOptions) *Object {
	return &Object{Object: runtime.DeepCopyJSON(Normal(o, opts).Object)}
}

// Normal is Normalize without the copy, to be read only: it shares with o what it
// leaves as it is, which of a definition is nearly all.
func Normal(o *Object, opts NormalizeOptions) *Object {
	n := &Object{Object: make(map[string]any, len(o.Object))}
	for k, v := range o.Object {
		if md, is := v.(map[string]any); is && k == "metadata" {
			n.Object[k] = ofUser(md)
		} else if k != "status" || opts.KeepStatus {
			n.Object[k] = v
		}
	}
	if _, is := n.Object["metadata"].(map[string]any); is {
		for _, path := range templates {
			dropNullTimestamp(n.Object, path)
		}
	}
	return n
}

// templates are where the metadata of pod templates are.
var templates = [][]string{
	{"spec", "template", "metadata"},
	{"spec", "jobTemplate", "metadata"},
	{"spec", "jobTemplate", "spec", "template", "metadata"},
}

// Unmanaged is o without managedFields, to be read only: it shares the rest with o.
func Unmanaged(o *Object) *Object {
	n := &Object{Object: maps.Clone(o.Object)}
	if md, ok := n.Object["metadata"].(map[string]any); ok {
		md = maps.Clone(md)
		delete(md, "managedFields")
		n.Object["metadata"] = md
	}
	return n
}

// ofUser is metadata without what the server writes, and without bookkeeping.
func ofUser(md map[string]any) map[string]any {
	out := make(map[string]any, len(md))
	for k, v := range md {
		if !slices.Contains(serverMetadata[:], k) {
			out[k] = v
		}
	}
	if ann, ok := out["annotations"].(map[string]any); ok {
		ann = maps.Clone(ann)
		for _, k := range bookkeeping {
			delete(ann, k)
		}
		out["annotations"] = ann
		if len(ann) == 0 {
			delete(out, "annotations")
		}
	}
	if labels, ok := out["labels"].(map[string]any); ok && len(labels) == 0 {
		delete(out, "labels")
	}
	return out
}

// dropNullTimestamp removes the `creationTimestamp: null` that typed clients
// write into templates. What is on the way to it is copied first.
func dropNullTimestamp(o map[string]any, path []string) {
	v, found, err := unstructured.NestedFieldNoCopy(o, path...)
	md, ok := v.(map[string]any)
	if err != nil || !found || !ok {
		return
	}
	if ts, has := md["creationTimestamp"]; !has || ts != nil {
		return
	}
	for _, k := range path {
		next, _ := o[k].(map[string]any) // found above
		next = maps.Clone(next)
		o[k], o = next, next
	}
	delete(o, "creationTimestamp")
}

// CanonicalJSON encodes decoded JSON with sorted keys, no insignificant space
// and no HTML escapes: equal values give equal bytes.
func CanonicalJSON(v any) ([]byte, error) {
	b, err := plain.EncodeBare(v)
	if err != nil {
		return nil, fmt.Errorf("canonical JSON: %w", err)
	}
	return b, nil
}

// Same reports whether the normal forms of two objects, status left out, are the
// same, as their digests are.
func Same(a, b *Object) bool {
	return sameValue(Normal(a, NormalizeOptions{}).Object, Normal(b, NormalizeOptions{}).Object)
}

func sameValue(a, b any) bool {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) || (x == nil) != (y == nil) {
			return false
		}
		for k, v := range x {
			if w, there := y[k]; !there || !sameValue(v, w) {
				return false
			}
		}
		return true
	case []any:
		y, ok := b.([]any)
		return ok && (x == nil) == (y == nil) && slices.EqualFunc(x, y, sameValue)
	case string:
		y, ok := b.(string)
		return ok && x == y
	case nil, bool, int64:
		if a == b {
			return true
		}
	}
	// Numbers of two kinds are written alike.
	x, err := plain.EncodeBare(a)
	if err != nil {
		return false
	}
	y, err := plain.EncodeBare(b)
	return err == nil && string(x) == string(y)
}

// Digest identifies the normal form of an object, status left out: "sha256:…".
// A nil object (absent) has the digest "absent".
func Digest(o *Object) (string, error) {
	if o == nil {
		return "absent", nil
	}
	raw, err := CanonicalJSON(Normal(o, NormalizeOptions{}).Object)
	if err != nil {
		return "", fmt.Errorf("%s: %w", RefOf(o), err)
	}
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}
