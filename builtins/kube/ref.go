package kube

import (
	"context"
	"fmt"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/value"
)

// resolve names the object that a runbook means by "deploy/istiod" or by an
// object that it holds.
func resolve(ctx context.Context, r cluster.Reader, v starlark.Value, namespace string) (cluster.Ref, error) {
	if o, ok := v.(*value.Object); ok {
		ref := cluster.RefOf(o.Unstructured())
		if ref.Kind == "" || ref.Name == "" {
			return cluster.Ref{}, diag.Usagef("object", "has no kind and name, so it names no object of the cluster")
		}
		return ref, nil
	}
	name, ok := starlark.AsString(v)
	if !ok {
		return cluster.Ref{}, diag.Usagef(v.Type(), "names no object; want a string such as \"deploy/istiod\", or an object")
	}
	resource, object, err := cluster.ParseRef(name)
	if err != nil {
		return cluster.Ref{}, &diag.Error{Code: diag.Usage, Err: err}
	}
	if object == "" {
		return cluster.Ref{}, diag.Usagef(name, "names a resource and no object; write it as in \"deploy/istiod\", or use kube.list")
	}
	res, err := r.Resolve(ctx, resource)
	if err != nil {
		return cluster.Ref{}, err
	}
	if res.Namespaced && namespace == "" {
		return cluster.Ref{}, diag.Usagef(name, "%s live in a namespace; give namespace = \"…\"", res)
	}
	return res.ResourceRef(namespace, object), nil
}

// shown is o as a runbook gets it: a Secret comes without its material, of
// which only the keys are there.
func shown(o *cluster.Object) *value.Object {
	if !manifest.HoldsMaterial(o) {
		return value.FromUnstructured(o)
	}
	n := manifest.Mask(o)
	keys := []any{}
	for _, k := range manifest.Keys(o) {
		keys = append(keys, k)
	}
	n.Object["keys"] = keys
	delete(n.Object, "data")
	delete(n.Object, "stringData")
	return value.FromUnstructured(n)
}

func optional(c *builtin.Call, ref cluster.Ref) (*cluster.Object, error) {
	o, err := c.Reader.Get(c.Ctx, ref)
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return o, nil
}
