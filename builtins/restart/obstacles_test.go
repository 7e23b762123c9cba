package restart

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/sim/mesh"
)

// What no budget bears is known before anything is changed.
func TestObstacles(t *testing.T) {
	for name, c := range map[string]struct {
		spec  mesh.Spec
		patch string // of the Deployment with the strict budget
		want  int
		says  string
	}{
		"a usual mesh":           {mesh.Spec{Istio: "1.30.3", Workloads: 8, Namespaces: 2, Nodes: 2, Seed: 1, OnDelete: 1, BarePods: 1}, "", 0, ""},
		"a budget, and surge":    {mesh.Spec{Istio: "1.30.3", Workloads: 5, Namespaces: 1, Nodes: 2, Seed: 2, StrictPDBs: 1}, `{"spec":{"strategy":{"rollingUpdate":{"maxSurge":1,"maxUnavailable":0}}}}`, 0, ""},
		"a budget, and no surge": {mesh.Spec{Istio: "1.30.3", Workloads: 5, Namespaces: 1, Nodes: 2, Seed: 2, StrictPDBs: 1}, `{"spec":{"strategy":{"rollingUpdate":{"maxSurge":0,"maxUnavailable":1}}}}`, 1, "takes 1 of its pods down, and poddisruptionbudget.policy/"},
		"scaled to nothing":      {mesh.Spec{Istio: "1.30.3", Workloads: 5, Namespaces: 1, Nodes: 2, Seed: 2, StrictPDBs: 1}, `{"spec":{"replicas":0}}`, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.spec)
			if c.patch != "" {
				strict := w.strict()
				w.patch("Deployment", strict.GetNamespace(), strict.GetName(), c.patch)
			}
			before := len(w.sim.Requests())
			got, err := obstacles(w.call(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != c.want || !strings.Contains(fmt.Sprint(got), c.says) {
				t.Errorf("found %+v, want %d that say %q", got, c.want, c.says)
			}
			for _, r := range w.sim.Requests()[before:] {
				if r.Verb != "get" && r.Verb != "list" {
					t.Errorf("it asked %+v", r)
				}
			}
		})
	}
}

// strict is a budget that bears nothing; its Deployment has its name.
func (w *world) strict() *unstructured.Unstructured {
	w.t.Helper()
	for _, o := range w.sim.Objects() {
		if o.GetKind() == "PodDisruptionBudget" && number(o, 0, "status", "expectedPods") == number(o, 0, "status", "desiredHealthy") {
			return o
		}
	}
	w.t.Fatal("there is no strict budget")
	return nil
}
