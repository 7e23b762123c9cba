package istioctl

import (
	"context"
	"maps"
	"slices"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/mesh"
)

// revision is one revision, as istioctl.revisions returns it.
type revision struct {
	Name         string   `json:"name"`
	Version      string   `json:"version"` // of its control plane; "" where it has none in this cluster
	Namespace    string   `json:"namespace"`
	ControlPlane string   `json:"control_plane"`
	Ready        bool     `json:"ready"`
	Why          string   `json:"why"`
	Tags         []string `json:"tags"`       // that point at it
	Namespaces   []string `json:"namespaces"` // that it injects, by its name or a tag's
	Workloads    []string `json:"workloads"`  // whose pod template names it or a tag of its
	Gateways     []string `json:"gateways"`   // of the Gateway API that it keeps
	Proxies      int      `json:"proxies"`    // that it injected
	Owners       []string `json:"owners"`     // workloads of those proxies
	InUse        bool     `json:"in_use"`
}

func revisionsSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[struct{}]{
		Name: "istioctl.revisions", Returns: "list of struct(name, version, namespace, control_plane, ready, why, tags, namespaces, workloads, gateways, proxies, owners, in_use)",
		Doc: `The revisions, each with its control plane and what uses it.
Used are those that a namespace, a pod template or a gateway of the Gateway API
names, directly or through a tag, and those that injected a proxy that still
runs. Only one that nothing uses can be uninstalled.`,
		Example: `[r.name for r in istioctl.revisions() if not r.in_use]`,
		Do: func(c *builtin.Call, _ *struct{}) (any, error) {
			return findRevisions(c.Ctx, c.Reader)
		},
	})
}

func findRevisions(ctx context.Context, r cluster.Reader) ([]revision, error) {
	known, err := revisionsOf(ctx, r)
	if err != nil {
		return nil, err
	}
	planes, err := mesh.ControlPlanes(ctx, r)
	if err != nil {
		return nil, err
	}
	tags, err := allTags(ctx, r)
	if err != nil {
		return nil, err
	}
	uses, err := mesh.UsesByName(ctx, r)
	if err != nil {
		return nil, err
	}
	out := []revision{}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		rev := revision{Name: name, Namespace: known[name], Tags: []string{}, Owners: []string{}}
		for _, p := range planes {
			if p.Revision == name {
				rev.Version, rev.ControlPlane, rev.Ready, rev.Why = p.Version, p.Ref.String(), p.Ready, p.Why
			}
		}
		u := usesOf(name, tags, uses)
		for _, t := range tags {
			if t.Revision == name {
				rev.Tags = append(rev.Tags, t.Name)
			}
		}
		rev.Namespaces, rev.Workloads, rev.Gateways = orEmpty(u.Namespaces), names(u.Workloads), gatewayNames(u.Gateways)
		rev.Proxies, rev.InUse = len(u.Proxies), u.Any()
		for _, p := range u.Proxies {
			if s := p.Owner.String(); !slices.Contains(rev.Owners, s) {
				rev.Owners = append(rev.Owners, s)
			}
		}
		slices.Sort(rev.Owners)
		out = append(out, rev)
	}
	return out, nil
}

// usesOf is what uses a revision by its own name or that of a tag of its. What
// names default is the tag's where there is one.
func usesOf(name string, tags []mesh.Tag, uses map[string]mesh.Uses) mesh.Uses {
	var u mesh.Uses
	add := func(more mesh.Uses) {
		u.Namespaces = append(u.Namespaces, more.Namespaces...)
		u.Workloads = append(u.Workloads, more.Workloads...)
		u.Gateways = append(u.Gateways, more.Gateways...)
	}
	taken := name == mesh.DefaultRevision && slices.ContainsFunc(tags, func(t mesh.Tag) bool { return t.Name == name && t.Revision != name })
	if !taken {
		add(uses[name])
	}
	for _, t := range tags {
		if t.Revision == name && t.Name != name {
			add(uses[t.Name])
		}
	}
	u.Proxies = uses[name].Proxies
	slices.Sort(u.Namespaces)
	return u
}
