package istioctl

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/mesh"
)

// tagged is one revision tag, as istioctl.tags returns it.
type tagged struct {
	Name          string   `json:"name"`
	Revision      string   `json:"revision"`
	Configuration string   `json:"configuration"` // its injection webhook; "" where only its Service is there
	Namespaces    []string `json:"namespaces"`    // whose label names it
	Workloads     []string `json:"workloads"`     // whose pod template names it
	Gateways      []string `json:"gateways"`      // of the Gateway API, which roll when it moves
}

func tagsSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[struct{}]{
		Name: "istioctl.tags", Returns: "list of struct(name, revision, configuration, namespaces, workloads, gateways)",
		Doc: `The revision tags, each with the revision that it points at and what names it.
Gateways are those of the Gateway API: istiod rolls them as soon as the tag moves.`,
		Example: `[t.name for t in istioctl.tags() if t.revision == "1-30-3"]`,
		Do: func(c *builtin.Call, _ *struct{}) (any, error) {
			tags, err := allTags(c.Ctx, c.Reader)
			if err != nil {
				return nil, err
			}
			uses, err := mesh.UsesByName(c.Ctx, c.Reader)
			if err != nil {
				return nil, err
			}
			out := []tagged{}
			for _, t := range tags {
				u := uses[t.Name]
				out = append(out, tagged{
					Name: t.Name, Revision: t.Revision, Configuration: t.Configuration,
					Namespaces: orEmpty(u.Namespaces), Workloads: names(u.Workloads), Gateways: gatewayNames(u.Gateways),
				})
			}
			return out, nil
		},
	})
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func gatewayNames(gs []mesh.ManagedGateway) []string {
	out := make([]string, len(gs))
	for i, g := range gs {
		out[i] = g.Ref.String()
	}
	return out
}

var (
	services   = schema.GroupVersionKind{Version: "v1", Kind: "Service"}
	mutating   = schema.GroupVersionKind{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "MutatingWebhookConfiguration"}
	validating = schema.GroupVersionKind{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingWebhookConfiguration"}
)

// listed are the objects of a kind that the labels select.
func listed(ctx context.Context, r cluster.Reader, gvk schema.GroupVersionKind, labels string) ([]*cluster.Object, error) {
	res, err := r.ResourceFor(ctx, gvk)
	if err != nil {
		return nil, err
	}
	var out []*cluster.Object
	err = r.List(ctx, res, cluster.ListOptions{Labels: labels}, func(o *cluster.Object) error {
		out = append(out, o)
		return nil
	})
	return out, err
}

// allTags are the tags that have a webhook, and those of which only the Service
// is there (a mesh without sidecars), by name.
func allTags(ctx context.Context, r cluster.Reader) ([]mesh.Tag, error) {
	tags, err := mesh.RevisionTags(ctx, r)
	if err != nil {
		return nil, err
	}
	svcs, err := listed(ctx, r, services, mesh.LabelTag)
	if err != nil {
		return nil, fmt.Errorf("revision tags: %w", err)
	}
	for _, s := range svcs {
		name := s.GetLabels()[mesh.LabelTag]
		if !slices.ContainsFunc(tags, func(t mesh.Tag) bool { return t.Name == name }) {
			tags = append(tags, mesh.Tag{Name: name, Revision: s.GetLabels()[mesh.LabelRev]})
		}
	}
	slices.SortFunc(tags, func(a, b mesh.Tag) int { return strings.Compare(a.Name, b.Name) })
	return tags, nil
}

// revisionsOf are the revisions that inject or have a control plane here, each
// with the namespace of its control plane; istio-system where it has none in
// this cluster.
func revisionsOf(ctx context.Context, r cluster.Reader) (map[string]string, error) {
	planes, err := mesh.ControlPlanes(ctx, r)
	if err != nil {
		return nil, err
	}
	ins, err := mesh.Injectors(ctx, r)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, in := range ins {
		if in.Tag == "" {
			out[in.Revision] = lib.IstioNamespace
		}
	}
	for _, p := range planes {
		out[p.Revision] = p.Namespace
	}
	return out, nil
}
