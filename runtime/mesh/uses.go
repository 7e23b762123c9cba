package mesh

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
)

// Uses is what names one revision or revision tag, or was injected by it.
type Uses struct {
	// Namespaces whose label gives it to pods without one of their own:
	// istio.io/rev, or istio-injection=enabled for the name default.
	Namespaces []string `json:"namespaces"`
	// Workloads whose pod template names it in istio.io/rev.
	Workloads []cluster.Ref `json:"workloads"`
	// Gateways of the Gateway API, waypoints among them, that istiod keeps a
	// workload for and that choose it by istio.io/rev, their own or their
	// namespace's.
	Gateways []ManagedGateway `json:"gateways"`
	// Proxies that it injected, by owner; of a revision only, since a pod does
	// not remember the tag.
	Proxies []Proxy `json:"-"`
}

// ManagedGateway is a Gateway of the Gateway API and the workload that istiod
// keeps for it. That workload is not injected: istiod writes it itself, and so
// rolls it as soon as another revision is in charge (istio/istio#59959).
type ManagedGateway struct {
	Ref      cluster.Ref `json:"ref"`
	Workload cluster.Ref `json:"workload"` // empty while istiod has not made it
}

// Any reports whether anything uses it. Proxies count.
func (u Uses) Any() bool {
	return len(u.Namespaces)+len(u.Workloads)+len(u.Gateways)+len(u.Proxies) > 0
}

// Summary says in words what uses it, with up to three names of each sort.
func (u Uses) Summary() string {
	var parts []string
	some := func(what string, names []string) {
		if n := len(names); n > 0 {
			const most = 3
			more := ""
			if n > most {
				names, more = names[:most], fmt.Sprintf(" and %d more", n-most)
			}
			if n > 1 {
				what += "s"
			}
			parts = append(parts, fmt.Sprintf("%d %s (%s%s)", n, what, strings.Join(names, ", "), more))
		}
	}
	some("namespace", u.Namespaces)
	some("pod template", refNames(u.Workloads))
	var gws []string
	for _, g := range u.Gateways {
		gws = append(gws, g.Ref.Namespace+"/"+g.Ref.Name)
	}
	some("Gateway API gateway", gws)
	if n := len(u.Proxies); n > 0 {
		owners := map[string]bool{}
		var names []string
		for _, p := range u.Proxies {
			if s := p.Owner.String(); !owners[s] {
				owners[s] = true
				names = append(names, s)
			}
		}
		slices.Sort(names)
		parts = append(parts, fmt.Sprintf("%d proxies (%s)", n, brief(names)))
	}
	return strings.Join(parts, ", ")
}

func brief(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

func refNames(refs []cluster.Ref) []string {
	out := make([]string, len(refs))
	for i, r := range refs {
		out[i] = r.String()
	}
	return out
}

var (
	statefulSets   = schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "StatefulSet"}
	daemonSets     = schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "DaemonSet"}
	gatewayAPI     = schema.GroupVersionKind{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "Gateway"}
	gatewayClasses = schema.GroupVersionKind{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "GatewayClass"}
)

// UsesByName finds what uses each revision and tag, by name. A name that
// nothing uses is not in the map. What says nothing (no label on a gateway or
// its namespace) is the name default's, as istiod's tag watcher has it
// (pkg/revisions of the Istio module).
func UsesByName(ctx context.Context, r cluster.Reader) (map[string]Uses, error) {
	out := map[string]Uses{}
	spaces, err := namespaceUses(ctx, r, out)
	if err != nil {
		return nil, fmt.Errorf("uses of revisions: %w", err)
	}
	deployed, err := templateUses(ctx, r, out)
	if err != nil {
		return nil, fmt.Errorf("uses of revisions: %w", err)
	}
	if err := gatewayUses(ctx, r, out, spaces, deployed); err != nil {
		return nil, fmt.Errorf("uses of revisions: %w", err)
	}
	px, err := Census(ctx, r, CensusOptions{})
	if err != nil {
		return nil, err
	}
	for _, p := range px {
		u := out[p.Revision]
		u.Proxies = append(u.Proxies, p)
		out[p.Revision] = u
	}
	for name, u := range out {
		slices.Sort(u.Namespaces)
		slices.SortFunc(u.Workloads, func(a, b cluster.Ref) int { return cmp.Compare(a.ID(), b.ID()) })
		slices.SortFunc(u.Gateways, func(a, b ManagedGateway) int { return cmp.Compare(a.Ref.ID(), b.Ref.ID()) })
		out[name] = u
	}
	return out, nil
}

// ManagedGateways are the gateways that istiod keeps a workload for, by the
// revision or tag that they name, as in Uses. Without any, nothing else is read.
func ManagedGateways(ctx context.Context, r cluster.Reader) (map[string][]ManagedGateway, error) {
	some := false
	err := list(ctx, r, gatewayAPI, cluster.ListOptions{MetadataOnly: true, MaxItems: 1}, func(*cluster.Object) error {
		some = true
		return nil
	})
	if err != nil || !some {
		return nil, err
	}
	uses := map[string]Uses{}
	spaces, err := namespaceUses(ctx, r, uses)
	if err != nil {
		return nil, err
	}
	deployed, err := templateUses(ctx, r, uses)
	if err != nil {
		return nil, err
	}
	if err := gatewayUses(ctx, r, uses, spaces, deployed); err != nil {
		return nil, err
	}
	out := map[string][]ManagedGateway{}
	for name, u := range uses {
		if len(u.Gateways) > 0 {
			slices.SortFunc(u.Gateways, func(a, b ManagedGateway) int { return cmp.Compare(a.Ref.ID(), b.Ref.ID()) })
			out[name] = u.Gateways
		}
	}
	return out, nil
}

// namespaceUses also returns the label istio.io/rev of each namespace.
func namespaceUses(ctx context.Context, r cluster.Reader, out map[string]Uses) (map[string]string, error) {
	revs := map[string]string{}
	err := list(ctx, r, namespaces, cluster.ListOptions{MetadataOnly: true}, func(o *cluster.Object) error {
		l := o.GetLabels()
		revs[o.GetName()] = l[LabelRev]
		name := l[LabelRev]
		switch l[LabelInjection] { // it wins over istio.io/rev
		case "enabled":
			name = DefaultRevision
		case "disabled":
			name = ""
		}
		if name != "" {
			u := out[name]
			u.Namespaces = append(u.Namespaces, o.GetName())
			out[name] = u
		}
		return nil
	})
	return revs, err
}

// templateUses also returns the workload of each managed gateway, by "namespace/gateway".
func templateUses(ctx context.Context, r cluster.Reader, out map[string]Uses) (map[string]cluster.Ref, error) {
	deployed := map[string]cluster.Ref{}
	for _, gvk := range []schema.GroupVersionKind{deployments, statefulSets, daemonSets} {
		err := list(ctx, r, gvk, cluster.ListOptions{}, func(o *cluster.Object) error {
			l := o.GetLabels()
			if l[LabelGatewayOwner] != "" {
				deployed[o.GetNamespace()+"/"+l[LabelGatewayName]] = cluster.RefOf(o)
				return nil
			}
			if l["app"] == "istiod" { // a control plane is no use of itself
				return nil
			}
			t, _, err := unstructured.NestedStringMap(o.Object, "spec", "template", "metadata", "labels")
			if err != nil {
				return fmt.Errorf("%s: %w", cluster.RefOf(o), err)
			}
			if name := t[LabelRev]; name != "" && t[LabelPodInject] != "false" {
				u := out[name]
				u.Workloads = append(u.Workloads, cluster.RefOf(o))
				out[name] = u
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return deployed, nil
}

func gatewayUses(ctx context.Context, r cluster.Reader, out map[string]Uses, spaces map[string]string, deployed map[string]cluster.Ref) error {
	managed := map[string]bool{"istio": true, "istio-waypoint": true, "istio-east-west": true}
	err := list(ctx, r, gatewayClasses, cluster.ListOptions{}, func(o *cluster.Object) error {
		c, _, err := unstructured.NestedString(o.Object, "spec", "controllerName")
		managed[o.GetName()] = strings.HasPrefix(c, "istio.io/") && c != "istio.io/unmanaged-gateway"
		return err
	})
	if err != nil {
		return err
	}
	return list(ctx, r, gatewayAPI, cluster.ListOptions{}, func(o *cluster.Object) error {
		class, _, err := unstructured.NestedString(o.Object, "spec", "gatewayClassName")
		if err != nil {
			return fmt.Errorf("%s: %w", cluster.RefOf(o), err)
		}
		w, made := deployed[o.GetNamespace()+"/"+o.GetName()]
		if !managed[class] && !made {
			return nil
		}
		name, ok := o.GetLabels()[LabelRev]
		if !ok {
			name = spaces[o.GetNamespace()]
		}
		name = orDefault(name)
		u := out[name]
		u.Gateways = append(u.Gateways, ManagedGateway{Ref: cluster.RefOf(o), Workload: w})
		out[name] = u
		return nil
	})
}
