package sim

import (
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// counter writes a ConfigMap up to a limit, one write at a time.
type counter struct{ limit int64 }

func (counter) Name() string { return "counter" }

func (counter) Watches() []schema.GroupResource { return []schema.GroupResource{grConfigMaps} }

func (k counter) Sync(w World, gr schema.GroupResource, namespace, name string) time.Duration {
	obj := w.Get(gr, namespace, name)
	if obj == nil {
		return 0
	}
	next := obj.DeepCopy()
	var n int64
	if _, err := fmt.Sscan(next.GetAnnotations()["n"], &n); err != nil || n >= k.limit {
		return 0
	}
	next.SetAnnotations(map[string]string{"n": fmt.Sprint(n + 1)})
	if err := w.Update(next); err != nil {
		return time.Second
	}
	return 0
}

func counters(t *testing.T, objects int, limit int64) *Cluster {
	t.Helper()
	var list []*unstructured.Unstructured
	for i := range objects {
		o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap"}}
		o.SetName(fmt.Sprint("c-", i))
		o.SetNamespace("default")
		o.SetAnnotations(map[string]string{"n": "0"})
		list = append(list, o)
	}
	c, err := New(Options{Controllers: []Controller{counter{limit}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Load(list); err != nil {
		t.Fatal(err)
	}
	return c
}

// done counts the ConfigMaps that have reached n.
func done(c *Cluster, n int64) (count int) {
	for _, o := range c.Objects() {
		if o.GetKind() == "ConfigMap" && o.GetAnnotations()["n"] == fmt.Sprint(n) {
			count++
		}
	}
	return count
}

func TestManyObjectsSettleAtOneInstant(t *testing.T) {
	const objects, each = 1000, 30 // more reconciliations than the fixed amount
	c := counters(t, objects, each)
	if n := done(c, each); n != objects {
		t.Errorf("%d of %d objects have settled", n, objects)
	}
}

func TestEndlessReconciliationIsSlowedDown(t *testing.T) {
	c := counters(t, 1, 1<<40)
	read := func() (n int64) {
		if _, err := fmt.Sscan(c.Objects()[0].GetAnnotations()["n"], &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	first := read()
	if first < settleLimit {
		t.Errorf("stopped after %d", first)
	}
	c.Settle()
	c.Advance(500 * time.Millisecond)
	if n := read(); n != first {
		t.Errorf("went on at once, from %d to %d", first, n)
	}
	c.Advance(500 * time.Millisecond)
	if n := read(); n <= first {
		t.Error("did not go on after a second")
	}
}
