package diff

import (
	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/manifest"
)

type manifestsArgs struct {
	A starlark.Value `star:"a,positional" doc:"manifest before, in any form that kube.apply takes"`
	B starlark.Value `star:"b,positional" doc:"manifest after"`
}

func manifestsSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[manifestsArgs]{
		Name:    "diff.manifests",
		Doc:     "Compares two manifests, object by object. Nothing is asked of the cluster, and no approval follows from it.",
		Example: `diff.manifests(old, new).changed`,
		Returns: "diff",
		Do: func(c *builtin.Call, a *manifestsArgs) (any, error) {
			before, err := manifest.From(a.A, c.Blobs)
			if err != nil {
				return nil, &diag.Error{Code: diag.Usage, Subject: "a", Err: err}
			}
			after, err := manifest.From(a.B, c.Blobs)
			if err != nil {
				return nil, &diag.Error{Code: diag.Usage, Subject: "b", Err: err}
			}
			items, err := pairs(before, after)
			if err != nil {
				return nil, err
			}
			r := finish("manifests", items, nil)
			c.Emit(&event.Diff{ID: r.ID, Title: r.Title, Text: r.Text})
			return r, nil
		},
	})
}

// pairs compares two sets of objects by identity.
func pairs(before, after []*cluster.Object) ([]Item, error) {
	type pair struct {
		ref  cluster.Ref
		a, b *cluster.Object
	}
	all := map[string]*pair{}
	for _, o := range before {
		all[cluster.RefOf(o).ID()] = &pair{ref: cluster.RefOf(o), a: o}
	}
	for _, o := range after {
		id := cluster.RefOf(o).ID()
		if all[id] == nil {
			all[id] = &pair{ref: cluster.RefOf(o)}
		}
		all[id].b = o
	}
	var items []Item
	for _, p := range all {
		it, err := compared(p.ref, p.a, p.b)
		if err != nil {
			return nil, err
		}
		if it != nil {
			items = append(items, *it)
		}
	}
	byKind(items)
	return items, nil
}
