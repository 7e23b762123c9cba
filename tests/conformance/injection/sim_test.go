package injection

import (
	"context"
	"net/http"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// installation is what makes the two control planes and the tag.
func installation(t testing.TB) []*unstructured.Unstructured {
	t.Helper()
	old, next := manifests(t)
	first := mesh.Build(mesh.Spec{Istio: oldVersion, Nodes: 3, Seed: 1}, old)
	for _, o := range mesh.Build(mesh.Spec{Istio: newVersion, Revision: canary, Nodes: 3, Seed: 1}, next) {
		if o.GetLabels()["istio.io/rev"] == canary {
			first = append(first, o)
		}
	}
	return first
}

func simulated(t testing.TB, by sim.Injector) *client {
	t.Helper()
	c, err := sim.New(sim.Options{Seed: 1, Controllers: controllers.All(), Injector: by})
	if err != nil {
		t.Fatal(err)
	}
	if err := mesh.Populate(c, installation(t)); err != nil {
		t.Fatal(err)
	}
	c.Advance(2 * time.Minute)
	return newClient(t, c.Config(), func(context.Context) error { c.Advance(time.Second); return nil })
}

// TestInjector compares all that is looked at: the simulated cluster calls
// Istio's own code where it simulates an istiod.
func TestInjector(t *testing.T) {
	want := recorded(t)
	same(t, want, decide(t, simulated(t, lib.NewInjector())), whole)
	t.Logf("%d decisions", len(want))
}

// TestStub compares who is injected by which revision. The stub has no
// templates: what follows from them is left out, and with it what istiod
// refuses because it cannot be rendered.
func TestStub(t *testing.T) {
	want, got := recorded(t), decide(t, simulated(t, mesh.StubInjector{}))
	for i := range min(len(want), len(got)) {
		if want[i].Code == http.StatusBadRequest {
			want[i], got[i] = decision{}, decision{}
		}
	}
	same(t, want, got, decision.verdict)
}
