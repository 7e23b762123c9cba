package istioctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/mesh"
)

type proxyStatusArgs struct {
	Namespace string `star:"namespace" doc:"only the proxies in it; all if not given"`
}

// proxyState is one proxy of istioctl.proxy_status.
type proxyState struct {
	Pod       string            `json:"pod"`
	Namespace string            `json:"namespace"`
	Kind      string            `json:"kind"`
	Workload  string            `json:"workload"`
	Version   string            `json:"version"`
	Revision  string            `json:"revision"`
	Ready     bool              `json:"ready"`
	Istiod    string            `json:"istiod"` // pod that it is connected to; "" where that is not known
	Sync      map[string]string `json:"sync"`   // by xDS type; empty where it is not known
}

// proxyStatus is the value of istioctl.proxy_status.
type proxyStatus struct {
	// Source is "istiod" where every istiod was asked, "pods" where none could be.
	Source       string       `json:"source"`
	Why          string       `json:"why"` // why istiod was not asked
	Proxies      []proxyState `json:"proxies"`
	Disconnected []string     `json:"disconnected"` // pods that no istiod knows; only with source istiod
	Stale        []string     `json:"stale"`        // "pod.namespace: type: state"
}

func proxyStatusSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[proxyStatusArgs]{
		Name: "istioctl.proxy_status", Returns: "struct(source, why, proxies, disconnected, stale)",
		Doc: `Every proxy of the mesh, and whether it took the configuration that istiod sent.
Living istiods are asked through a port forward; source is "istiod" then. Where
none answers the pods are counted instead, which says nothing of configuration:
source is "pods", and why says what was in the way. A simulated cluster and a
rehearsal always count pods.`,
		Example: `istioctl.proxy_status(namespace = "shop").stale`,
		Do: func(c *builtin.Call, a *proxyStatusArgs) (any, error) {
			o := mesh.CensusOptions{}
			if a.Namespace != "" {
				o.Namespaces = []string{a.Namespace}
			}
			px, err := mesh.Census(c.Ctx, c.Reader, o)
			if err != nil {
				return nil, err
			}
			planes, err := mesh.ControlPlanes(c.Ctx, c.Reader)
			if err != nil {
				return nil, err
			}
			synced, err := synchronized(c, planes)
			if err != nil && c.Ctx.Err() != nil {
				return nil, err
			}
			return statusOf(px, synced, err), nil
		},
	})
}

// synchronized asks the istiods of all namespaces that have one.
func synchronized(c *builtin.Call, planes []mesh.ControlPlane) ([]lib.ProxySync, error) {
	if len(planes) == 0 {
		return nil, errors.New("no control plane is here")
	}
	cr, ok := c.Reader.(cluster.ConfigReader)
	if !ok {
		return nil, lib.ErrNoForward
	}
	ctx, cancel := context.WithTimeoutCause(c.Ctx, lib.SyncTimeout, fmt.Errorf("no istiod answered within %s", lib.SyncTimeout))
	defer cancel()
	var out []lib.ProxySync
	seen := map[string]bool{}
	for _, p := range planes {
		if seen[p.Namespace] {
			continue
		}
		seen[p.Namespace] = true
		got, err := lib.SyncStatus(ctx, cr.ReadOnlyConfig(), p.Namespace)
		if err != nil {
			return nil, err
		}
		out = append(out, got...)
	}
	return out, nil
}

// statusOf joins what the pods say with what istiods say of them.
func statusOf(px []mesh.Proxy, synced []lib.ProxySync, err error) *proxyStatus {
	s := &proxyStatus{Source: "istiod", Proxies: []proxyState{}, Disconnected: []string{}, Stale: []string{}}
	if err != nil {
		s.Source, s.Why = "pods", err.Error()
	}
	by := map[string]lib.ProxySync{}
	for _, p := range synced {
		by[p.Proxy] = p
	}
	for _, p := range px {
		id := p.Pod + "." + p.Namespace
		st := proxyState{
			Pod: p.Pod, Namespace: p.Namespace, Kind: string(p.Kind), Workload: p.Owner.String(),
			Version: p.Version, Revision: p.Revision, Ready: p.Ready, Sync: map[string]string{},
		}
		got, known := by[id]
		if known {
			st.Istiod, st.Sync = got.Istiod, got.Types
			for t, state := range got.Types {
				if state == "STALE" || strings.HasPrefix(state, "REJECTED") {
					s.Stale = append(s.Stale, fmt.Sprintf("%s: %s: %s", id, t, state))
				}
			}
		} else if err == nil {
			s.Disconnected = append(s.Disconnected, id)
		}
		s.Proxies = append(s.Proxies, st)
	}
	slices.Sort(s.Stale)
	return s
}
