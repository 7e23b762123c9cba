package istioctl

import (
	"cmp"
	"errors"
	"fmt"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/mesh"
)

type probeArgs struct {
	Namespace string            `star:"namespace,required" doc:"namespace that the pod would be in"`
	Labels    map[string]string `star:"labels" doc:"labels of the pod, by which injectors choose"`
}

// probed is the value of istioctl.inject_probe.
type probed struct {
	Injected bool   `json:"injected"`
	Image    string `json:"image"`    // of its proxy
	Version  string `json:"version"`  // that the image's tag names
	Revision string `json:"revision"` // that injected it
	Native   bool   `json:"native"`   // the proxy is an init container
	CNI      bool   `json:"cni"`      // its network is left to Istio CNI: there is no istio-init
	Expected string `json:"expected"` // revision that the webhooks' selectors choose; "" for none
	Refused  string `json:"refused"`  // what the API server said against the pod
}

func probeSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[probeArgs]{
		Name: "istioctl.inject_probe", Returns: "struct(injected, image, version, revision, native, cni, expected, refused)",
		Doc: `Whether a new pod in a namespace would get a sidecar, and which.
A sample pod is sent to the API server as a dry-run, so that the real webhooks
answer; nothing is kept. What no dry-run shows by itself: expected is the
revision that the webhooks' selectors choose, which differs when an injector
does not answer and fails open.`,
		Example: `istioctl.inject_probe(namespace = "shop").version`,
		Do: func(c *builtin.Call, a *probeArgs) (any, error) {
			return probe(c, a)
		},
	})
}

func probe(c *builtin.Call, a *probeArgs) (*probed, error) {
	ns, err := c.Reader.Get(c.Ctx, cluster.Ref{Version: "v1", Kind: "Namespace", Name: a.Namespace})
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", a.Namespace, err)
	}
	ins, err := mesh.Injectors(c.Ctx, c.Reader)
	if err != nil {
		return nil, err
	}
	out := &probed{}
	if rev, ok := mesh.InjectingRevision(ins, ns.GetLabels(), a.Labels); ok {
		out.Expected = rev
	}
	labels := map[string]any{"app": "rutter-probe"}
	for k, v := range a.Labels {
		labels[k] = v
	}
	pod := &cluster.Object{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": "rutter-probe", "namespace": a.Namespace, "labels": labels},
		"spec": map[string]any{"containers": []any{map[string]any{
			"name": "probe", "image": "registry.k8s.io/pause:3.10",
			"securityContext": map[string]any{"allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": int64(65535)},
		}}},
	}}
	got, err := c.Reader.DryRunCreate(c.Ctx, pod, cluster.WriteOptions{})
	switch {
	case err == nil:
	case cluster.MissingRight(err) == "" && (errors.Is(err, cluster.ErrDenied) || errors.Is(err, cluster.ErrInvalid)):
		out.Refused = err.Error()
		return out, nil
	default:
		return nil, fmt.Errorf("dry-run of a pod in %s: %w", a.Namespace, err)
	}
	px, ok := mesh.ProxyOf(got)
	if !ok {
		return out, nil
	}
	out.Injected, out.Image, out.Version, out.Native = true, px.Image, px.Version, px.Native
	out.Revision = cmp.Or(px.Revision, mesh.DefaultRevision)
	out.CNI = !mesh.HasInit(got)
	return out, nil
}
