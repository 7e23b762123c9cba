package mesh

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"rutter.dev/rutter/runtime/cluster"
)

// Annotations of a Service by which cloud load balancers are told for how long
// they go on sending traffic to an endpoint that was taken away.
const (
	annotationTargetGroup = "service.beta.kubernetes.io/aws-load-balancer-target-group-attributes"
	annotationDraining    = "service.beta.kubernetes.io/aws-load-balancer-connection-draining-timeout"
	deregistrationDelay   = "deregistration_delay.timeout_seconds"
)

// What holds where nothing else is said: pilot-agent's terminationDrainDuration
// (pkg/config/mesh of istio/istio), and Kubernetes' grace for pods.
const (
	defaultDrain = 5 * time.Second
	defaultGrace = 30 * time.Second
)

// shortDrains finds gateways whose proxies end before the load balancer in front
// of them has heard of it: their restart answers 502 (istio/istio#26302,
// #34726). Load balancers that do not say how long they take are left out.
func shortDrains(ctx context.Context, r cluster.Reader) ([]Hazard, error) {
	var told []*cluster.Object // that say how long their load balancer takes
	services := schema.GroupVersionKind{Version: "v1", Kind: "Service"}
	err := list(ctx, r, services, cluster.ListOptions{}, func(svc *cluster.Object) error {
		if _, ok := deregisters(svc); ok {
			told = append(told, svc)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("drains of gateways: %w", err)
	}
	var out []Hazard
	for _, svc := range told {
		found, err := drainedTooSoon(ctx, r, svc)
		if err != nil {
			return nil, fmt.Errorf("drains of gateways: %w", err)
		}
		out = append(out, found...)
	}
	return out, nil
}

// deregisters is how long the load balancer of a Service goes on sending.
func deregisters(svc *cluster.Object) (time.Duration, bool) {
	if kind, _, err := unstructured.NestedString(svc.Object, "spec", "type"); err != nil || kind != "LoadBalancer" {
		return 0, false
	}
	seconds := svc.GetAnnotations()[annotationDraining]
	for pair := range strings.SplitSeq(svc.GetAnnotations()[annotationTargetGroup], ",") {
		if k, v, ok := strings.Cut(strings.TrimSpace(pair), "="); ok && k == deregistrationDelay {
			seconds = v
		}
	}
	n, err := strconv.Atoi(strings.TrimSpace(seconds))
	return time.Duration(n) * time.Second, err == nil && n > 0
}

func drainedTooSoon(ctx context.Context, r cluster.Reader, svc *cluster.Object) ([]Hazard, error) {
	takes, _ := deregisters(svc)
	chosen, _, err := unstructured.NestedStringMap(svc.Object, "spec", "selector")
	if err != nil || len(chosen) == 0 {
		return nil, err
	}
	var gateways []*cluster.Object
	err = list(ctx, r, deployments, cluster.ListOptions{Namespace: svc.GetNamespace()}, func(d *cluster.Object) error {
		if proxyIn(d) != nil && labels.SelectorFromSet(chosen).Matches(labels.Set(PodLabels(d))) {
			gateways = append(gateways, d)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []Hazard
	for _, d := range gateways {
		stays, err := serves(ctx, r, d, proxyIn(d))
		if err != nil {
			return nil, err
		}
		if stays >= takes {
			continue
		}
		out = append(out, Hazard{
			Problem: fmt.Sprintf("%s ends %s after it is told to, and the load balancer of %s sends traffic for %s: its restart would answer with errors",
				cluster.RefOf(d), stays, cluster.RefOf(svc), takes),
			Next: fmt.Sprintf("terminationDrainDuration: %s in its annotation proxy.istio.io/config, and a terminationGracePeriodSeconds above it", takes),
		})
	}
	return out, nil
}

// proxyIn is the proxy in the template of a gateway.
func proxyIn(d *cluster.Object) map[string]any {
	return container(d, "istio-proxy", "spec", "template", "spec", "containers")
}

// serves is how long the proxies of a gateway go on after they are told to end:
// as long as they drain, and no longer than the pod's grace. One that waits for
// its connections to end, or that a preStop hook holds, is taken to need it all.
func serves(ctx context.Context, r cluster.Reader, d *cluster.Object, proxy map[string]any) (time.Duration, error) {
	grace := time.Duration(number(d, int64(defaultGrace/time.Second), "spec", "template", "spec", "terminationGracePeriodSeconds")) * time.Second
	if _, held, err := unstructured.NestedMap(proxy, "lifecycle", "preStop"); err == nil && held {
		return grace, nil
	}
	env, _ := proxy["env"].([]any)
	for _, e := range env {
		if m, _ := e.(map[string]any); m["name"] == "EXIT_ON_ZERO_ACTIVE_CONNECTIONS" && m["value"] == "true" {
			return grace, nil
		}
	}
	own, _, err := unstructured.NestedString(d.Object, "spec", "template", "metadata", "annotations", "proxy.istio.io/config")
	if err != nil {
		return 0, fmt.Errorf("%s: %w", cluster.RefOf(d), err)
	}
	drain, ok := drainIn(own)
	if !ok {
		if drain, err = meshDrain(ctx, r, d.GetLabels()[LabelRev]); err != nil {
			return 0, err
		}
	}
	return min(drain, grace), nil
}

// meshDrain is what the mesh's configuration of a revision says for all proxies.
func meshDrain(ctx context.Context, r cluster.Reader, revision string) (time.Duration, error) {
	planes, err := ControlPlanes(ctx, r)
	if err != nil {
		return 0, err
	}
	for _, p := range planes {
		if p.Revision != orDefault(revision) {
			continue
		}
		name := "istio"
		if p.Revision != DefaultRevision {
			name += "-" + p.Revision
		}
		ref := cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: p.Namespace, Name: name}
		cm, err := r.Get(ctx, ref)
		if errors.Is(err, cluster.ErrNotFound) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("%s: %w", ref, err)
		}
		text, _, err := unstructured.NestedString(cm.Object, "data", "mesh")
		if err != nil {
			return 0, fmt.Errorf("%s: %w", ref, err)
		}
		var config struct {
			DefaultConfig map[string]any `json:"defaultConfig"`
		}
		if err := yaml.Unmarshal([]byte(text), &config); err != nil {
			return 0, fmt.Errorf("%s: mesh: %w", ref, err)
		}
		if d, ok := duration(config.DefaultConfig["terminationDrainDuration"]); ok {
			return d, nil
		}
	}
	return defaultDrain, nil
}

// drainIn reads a ProxyConfig as an annotation has it.
func drainIn(text string) (time.Duration, bool) {
	var config map[string]any
	if text == "" || yaml.Unmarshal([]byte(text), &config) != nil {
		return 0, false
	}
	return duration(config["terminationDrainDuration"])
}

func duration(v any) (time.Duration, bool) {
	s, ok := v.(string)
	if !ok {
		return 0, false
	}
	d, err := time.ParseDuration(s)
	return d, err == nil
}
