package gate

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/cluster"
)

// A remembered sum is that of a spec that asks for the same, and of no other.
func TestSumsAreRemembered(t *testing.T) {
	spec := func(cpu, policy string) map[string]any {
		c := map[string]any{"name": "a", "image": "x", "resources": map[string]any{"requests": map[string]any{"cpu": cpu}}}
		if policy != "" {
			c["restartPolicy"] = policy
		}
		return map[string]any{"containers": []any{c}, "initContainers": []any{c}}
	}
	known := asked{}
	for _, s := range []map[string]any{spec("1", ""), spec("1", "Always"), spec("2", ""), {}, spec("1", "")} {
		got, err := known.of(s)
		if err != nil {
			t.Fatal(err)
		}
		want, err := requestsOf(s)
		if err != nil || !equality.Semantic.DeepEqual(got, want) {
			t.Errorf("%v: %v, want %v (%v)", s, got, want, err)
		}
	}
	if len(known) != 4 {
		t.Errorf("%d sums are remembered, want 4", len(known))
	}
	if _, err := known.of(map[string]any{"containers": []any{map[string]any{"resources": "none"}}}); err == nil || len(known) != 4 {
		t.Errorf("a spec that is none gives %v, and is remembered", err)
	}
}

// What a pod takes is worked out anew once it is another version.
func TestOccupant(t *testing.T) {
	at := func(version, node, phase string) *cluster.Object {
		return obj(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"shop","uid":"7","resourceVersion":"`+version+`"},
			"spec":{"nodeName":"`+node+`","containers":[{"name":"c","resources":{"requests":{"cpu":"1"}}}]},"status":{"phase":"`+phase+`"}}`)
	}
	b := &past{}
	for _, c := range []struct {
		pod  *cluster.Object
		node string
		over bool
	}{
		{at("1", "", "Pending"), "", false},
		{at("2", "n1", "Running"), "n1", false},
		{at("2", "elsewhere", "Running"), "n1", false}, // as it was: a version stands for the pod
		{at("3", "n1", "Succeeded"), "", true},
	} {
		got, err := b.occupant(c.pod)
		if err != nil {
			t.Fatal(err)
		}
		if got.node != c.node || got.over != c.over {
			t.Errorf("version %s: on %q, over %v; want %q, %v", c.pod.GetResourceVersion(), got.node, got.over, c.node, c.over)
		}
		if cpu := got.asks.Cpu().String(); !c.over && cpu != "1" {
			t.Errorf("version %s asks for %s", c.pod.GetResourceVersion(), cpu)
		}
		b.pods = map[types.UID]occupant{"7": got}
	}
}
