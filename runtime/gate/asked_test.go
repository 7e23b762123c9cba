package gate

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"
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
