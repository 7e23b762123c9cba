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
	n := &Object{Object: make(map[string]any, len(o.Object))}
	for k, v := range o.Object {
		if md, is := v.(map[string]any); is && k == "metadata" {
			n.Object[k] = withoutServer(md)
		} else if k != "status" || opts.KeepStatus {
			n.Object[k] = runtime.DeepCopyJSONValue(v)
		}
	}
	md, ok := n.Object["metadata"].(map[string]any)
	if !ok {
		return n
	}
	if ann, ok := md["annotations"].(map[string]any); ok {
		for _, k := range bookkeeping {
			delete(ann, k)
		}
		if len(ann) == 0 {
			delete(md, "annotations")
		}
	}
	if labels, ok := md["labels"].(map[string]any); ok && len(labels) == 0 {
		delete(md, "labels")
	}
	dropNullTimestamp(n.Object, "spec", "template", "metadata")
	dropNullTimestamp(n.Object, "spec", "jobTemplate", "metadata")
	dropNullTimestamp(n.Object, "spec", "jobTemplate", "spec", "template", "metadata")
	return n
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

// withoutServer is a copy of metadata without what the server writes.
func withoutServer(md map[string]any) map[string]any {
	out := make(map[string]any, len(md))
	for k, v := range md {
		if !slices.Contains(serverMetadata[:], k) {
			out[k] = runtime.DeepCopyJSONValue(v)
		}
	}
	return out
}

// dropNullTimestamp removes the `creationTimestamp: null` that typed clients
// write into templates.
func dropNullTimestamp(o map[string]any, path ...string) {
	v, found, err := unstructured.NestedFieldNoCopy(o, path...)
	if err != nil || !found {
		return
	}
	if md, ok := v.(map[string]any); ok {
		if ts, has := md["creationTimestamp"]; has && ts == nil {
			delete(md, "creationTimestamp")
		}
	}
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

// Digest identifies the normal form of an object, status left out: "sha256:…".
// A nil object (absent) has the digest "absent".
func Digest(o *Object) (string, error) {
	if o == nil {
		return "absent", nil
	}
	raw, err := CanonicalJSON(Normalize(o, NormalizeOptions{}).Object)
	if err != nil {
		return "", fmt.Errorf("%s: %w", RefOf(o), err)
	}
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}
