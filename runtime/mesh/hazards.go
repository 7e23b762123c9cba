package mesh

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/Masterminds/semver/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/knowledge"
)

// Hazard is something in a mesh that an upgrade would come to grief over, and
// that no request of the upgrade shows by itself.
type Hazard struct {
	Problem string // names the object first
	Next    string // what to do about it
}

// Hazards looks for what real upgrades came to grief over, before one to the
// target (GUIDE §4 rows 3, 12 to 15, 18 and 22), given its proxies: roots of trust that differ, node
// agents that are too old, pods that would start past Istio CNI, injectors that
// overlap, sidecars that are injected into what holds one, and load balancers that send traffic to gateways that are gone. Each
// look reads on its own; the first that cannot is the error.
func Hazards(ctx context.Context, r cluster.Reader, k *knowledge.Base, target *semver.Version, px []Proxy) ([]Hazard, error) {
	var out []Hazard
	for _, look := range []func() ([]Hazard, error){
		func() ([]Hazard, error) { return rootsApart(ctx, r) },
		func() ([]Hazard, error) { return agentsBehind(ctx, r, k, target) },
		func() ([]Hazard, error) { return racingNodes(ctx, r, px) },
		func() ([]Hazard, error) { return injectedTwice(ctx, r) },
		func() ([]Hazard, error) { return shortDrains(ctx, r) },
	} {
		found, err := look()
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// rootsApart: an istiod that starts anew signs with the CA that it finds then. If
// that is another than the proxies trust, those that restart no longer talk to
// those that do not (istio/istio#47650, #46600).
func rootsApart(ctx context.Context, r cluster.Reader) ([]Hazard, error) {
	t, err := Trust(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("roots of trust: %w", err)
	}
	var out []Hazard
	for _, d := range t.Differences {
		out = append(out, Hazard{
			Problem: "roots of trust differ: " + d,
			Next:    "end the rotation of the CA first: let every part trust both roots, and restart what trusts one; never in an upgrade",
		})
	}
	return out, nil
}

// agentsBehind: Istio CNI and ztunnel of 1.x serve under an istiod of 1.x or
// 1.x+1, and pods that an older agent set up may not work with a newer ztunnel
// (istio/ztunnel#1360). That holds for upgrades by revision too, since a node has
// one agent.
func agentsBehind(ctx context.Context, r cluster.Reader, k *knowledge.Base, target *semver.Version) ([]Hazard, error) {
	var out []Hazard
	seen := map[string]bool{}
	for _, selector := range []string{"k8s-app=istio-cni-node", "app.kubernetes.io/name=ztunnel", "app=ztunnel"} { // the last up to 1.23
		err := list(ctx, r, daemonSets, cluster.ListOptions{Labels: selector}, func(o *cluster.Object) error {
			version, err := semver.NewVersion(agentVersion(o))
			if err != nil || seen[cluster.RefOf(o).ID()] {
				return nil // a digest or a private tag: nothing can be said of it
			}
			seen[cluster.RefOf(o).ID()] = true
			if err := CheckSkew(k, target, version, InPlace); err != nil {
				out = append(out, Hazard{
					Problem: fmt.Sprintf("%s is %s: %v", cluster.RefOf(o), version, err),
					Next:    "upgrade the agents of the nodes first, one minor version at a time, and restart the pods that they set up",
				})
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("node agents: %w", err)
		}
	}
	return out, nil
}

// agentVersion is the version of a DaemonSet's first image that names one.
func agentVersion(o *cluster.Object) string {
	cs, _, err := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
	if err != nil {
		return ""
	}
	for _, c := range cs {
		if m, ok := c.(map[string]any); ok {
			if v := ImageVersion(text(m, "image")); v != "" {
				return v
			}
		}
	}
	return ""
}

// racingNodes: while the CNI agent of a node is replaced, pods can start there
// that it has not set up, and send traffic past their sidecar. Either it repairs
// them afterwards, or a taint keeps them away meanwhile (istio/istio#14327,
// #51176). Without sidecars that count on it there is no race to lose.
func racingNodes(ctx context.Context, r cluster.Reader, px []Proxy) ([]Hazard, error) {
	if !slices.ContainsFunc(px, func(p Proxy) bool { return p.Kind == Sidecar }) {
		return nil, nil
	}
	var agents []*cluster.Object
	err := list(ctx, r, daemonSets, cluster.ListOptions{Labels: "k8s-app=istio-cni-node"}, func(o *cluster.Object) error {
		agents = append(agents, o)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("istio CNI: %w", err)
	}
	var out []Hazard
	for _, o := range agents {
		ref := cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: o.GetNamespace(), Name: "istio-cni-config"}
		cm, err := r.Get(ctx, ref)
		if errors.Is(err, cluster.ErrNotFound) {
			continue // an agent that is set up otherwise
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ref, err)
		}
		data, _, err := unstructured.NestedStringMap(cm.Object, "data")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ref, err)
		}
		if data["REPAIR_ENABLED"] != "false" {
			continue
		}
		tainted, err := untaints(ctx, r)
		if err != nil || tainted {
			return nil, err
		}
		out = append(out, Hazard{
			Problem: fmt.Sprintf("%s repairs no pods, and no taint keeps them away from a node while its agent is replaced: they would start outside of the mesh", cluster.RefOf(o)),
			Next:    "values.cni.repair.enabled=true, or values.pilot.taint.enabled=true with the taint on new nodes, before the upgrade",
		})
	}
	return out, nil
}

// untaints reports whether an istiod takes the taint cni.istio.io/not-ready off
// nodes whose agent is ready.
func untaints(ctx context.Context, r cluster.Reader) (bool, error) {
	on := false
	err := list(ctx, r, deployments, cluster.ListOptions{Labels: "app=istiod"}, func(o *cluster.Object) error {
		env, _ := container(o, "discovery", "spec", "template", "spec", "containers")["env"].([]any)
		on = on || slices.ContainsFunc(env, func(e any) bool {
			m, _ := e.(map[string]any)
			return m["name"] == "PILOT_ENABLE_NODE_UNTAINT_CONTROLLERS" && m["value"] == "true"
		})
		return nil
	})
	return on, err
}
