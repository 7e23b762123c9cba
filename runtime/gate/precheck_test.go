package gate

import (
	"context"
	"testing"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

// Without a target, a precheck is wanted of a control plane that comes, not of
// one that is restarted or resized as it is.
func TestPrecheckOfAControlPlaneThatStays(t *testing.T) {
	plane := func(image string, replicas int64) *cluster.Object {
		return &cluster.Object{Object: map[string]any{
			"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "istiod", "namespace": "istio-system"},
			"spec": map[string]any{"replicas": replicas, "template": map[string]any{"spec": map[string]any{
				"containers": []any{map[string]any{"name": "discovery", "image": image}},
			}}},
		}}
	}
	for name, c := range map[string]struct {
		before, after *cluster.Object
		want          Verdict
	}{
		"resized":  {plane("pilot:1.30.3", 1), plane("pilot:1.30.3", 2), Pass},
		"upgraded": {plane("pilot:1.30.3", 1), plane("pilot:1.31.0", 1), Block},
		"new":      {nil, plane("pilot:1.31.0", 1), Block},
	} {
		t.Run(name, func(t *testing.T) {
			e := &effect.Effect{Verb: effect.Patch, Ref: cluster.RefOf(c.after), Before: c.before, After: c.after}
			found, err := precheckPassed.Before(context.Background(), nil, &Run{Facts: &effect.Facts{}, Policy: &Policy{}}, e)
			if err != nil || Worst(found) != c.want {
				t.Errorf("got %v, %v; want %s", found, err, c.want)
			}
		})
	}
}
