package restart

import (
	"fmt"
	"strings"

	"go.starlark.net/starlark"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/value"
)

// named finds the workloads that a script names or selects.
func named(c *builtin.Call, a *workloadsArgs) ([]wish, error) {
	if (len(a.Workloads) == 0) == (a.Selector == "") {
		return nil, diag.Usagef("restart.workloads", "want either a list of workloads or a selector")
	}
	var out []wish
	seen := map[string]bool{}
	add := func(ref cluster.Ref) {
		if !seen[ref.ID()] {
			seen[ref.ID()] = true
			out = append(out, wish{ref: ref, reason: a.Reason, nodes: a.Nodes})
		}
	}
	for i, v := range a.Workloads {
		ref, err := reference(c, v, a.Namespace)
		if err != nil {
			return nil, fmt.Errorf("restart.workloads: workloads[%d]: %w", i, err)
		}
		if _, err := c.Reader.Get(c.Ctx, ref); err != nil {
			return nil, fmt.Errorf("restart.workloads: workloads[%d]: %w", i, err)
		}
		add(ref)
	}
	if a.Selector == "" {
		return out, nil
	}
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet"} {
		res, err := c.Reader.ResourceFor(c.Ctx, schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: kind})
		if err != nil {
			return nil, err
		}
		err = c.Reader.List(c.Ctx, res, cluster.ListOptions{Namespace: a.Namespace, Labels: a.Selector, MetadataOnly: true}, func(o *cluster.Object) error {
			add(cluster.Ref{Group: "apps", Version: "v1", Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName()})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func reference(c *builtin.Call, v starlark.Value, namespace string) (cluster.Ref, error) {
	switch v := v.(type) {
	case *value.Object:
		return cluster.RefOf(v.Unstructured()), nil
	case starlark.String:
		kind, name, ok := strings.Cut(string(v), "/")
		if !ok || kind == "" || name == "" {
			return cluster.Ref{}, diag.Usagef(string(v), "want KIND/NAME, such as deploy/web")
		}
		if namespace == "" {
			return cluster.Ref{}, diag.Usagef(string(v), "want its namespace too: namespace = …")
		}
		res, err := c.Reader.Resolve(c.Ctx, kind)
		if err != nil {
			return cluster.Ref{}, err
		}
		return cluster.Ref{Group: res.GVK.Group, Version: res.GVK.Version, Kind: res.GVK.Kind, Namespace: namespace, Name: name}, nil
	}
	return cluster.Ref{}, fmt.Errorf("got %s, want a name or an object", v.Type())
}
