package restart_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// A step that fails after it restarted workloads, and begins anew, goes on where
// it was: it restarts none of them again, be it by patch or by eviction, whether
// the step is retried or the run resumed. What it means twice it does twice.
func TestAFailedStepRestartsNothingAgain(t *testing.T) {
	for _, c := range []struct{ name, options, body string }{
		{"retried", "retry = retry(2)", "restart.workloads(selector = 'app', namespace = %[1]q, soak = '10s')"},
		{"resumed", "on_failure = 'stop'", "restart.workloads(selector = 'app', namespace = %[1]q, soak = '10s')"},
		{"twice on purpose", "on_failure = 'stop'", "[restart.workloads(selector = 'app', namespace = %[1]q, soak = '10s') for _ in range(2)]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRun(t, mesh.Spec{Istio: "1.30.3", Workloads: 4, Namespaces: 1, Nodes: 2, Seed: 1, OnDelete: 1}, "")
			late := lateOf(t, r)
			// Named after the rest, so that its absence is noticed when they are restarted.
			r.script = fmt.Sprintf("def again():\n    "+c.body+"\n    restart.workloads(['deploy/late'], namespace = %[1]q, soak = '10s')\n"+
				"def run(p):\n    step('again', again, "+c.options+")\n", late.GetNamespace())
			made := map[string]int{}
			r.on = func(e event.Event) {
				switch b := e.Body.(type) {
				case *event.EffectDone:
					made[b.Key]++
				case *event.StepEnded:
					if !b.OK {
						if _, err := r.client.Create(context.Background(), late, cluster.WriteOptions{Manager: "somebody"}); err != nil {
							t.Error(err)
						}
					}
				}
			}
			restarts := func() (n int) {
				for _, times := range made {
					n += times
				}
				return n
			}
			err := engine.Run(context.Background(), context.Background(), r.options())
			first := restarts()
			if c.name != "retried" {
				if err == nil {
					t.Fatal("a run without a workload that it names ended well")
				}
				r.sim.Advance(60e9)
				err = engine.Resume(context.Background(), context.Background(), r.options(), "")
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.name == "retried" {
				first = restarts() - 1
			}
			if first < 4 || restarts() != first+1 {
				t.Errorf("%d restarts before the step failed, %d in all, want one more: %v", first, restarts(), made)
			}
		})
	}
}

// lateOf is a workload that is not there yet, beside one whose pods are evicted.
func lateOf(t *testing.T, r *run) *cluster.Object {
	t.Helper()
	objects := r.sim.Objects()
	of := func(kind string) int {
		return slices.IndexFunc(objects, func(o *unstructured.Unstructured) bool {
			how, _, _ := unstructured.NestedString(o.Object, "spec", "updateStrategy", "type")
			return o.GetKind() == kind && (kind != "StatefulSet" || how == "OnDelete") && o.GetLabels()["app"] != ""
		})
	}
	set, deployment := of("StatefulSet"), of("Deployment")
	if set < 0 || deployment < 0 {
		t.Fatal("the mesh has no workload that is restarted by evictions, or none by a patch")
	}
	late := objects[deployment].DeepCopy()
	late.Object = map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": map[string]any{"name": "late", "namespace": objects[set].GetNamespace()},
		"spec":     map[string]any{"replicas": int64(1), "selector": map[string]any{"matchLabels": map[string]any{"is": "late"}}, "template": late.Object["spec"].(map[string]any)["template"]},
	}
	if err := unstructured.SetNestedStringMap(late.Object, map[string]string{"is": "late"}, "spec", "template", "metadata", "labels"); err != nil {
		t.Fatal(err)
	}
	return late
}
