package sim

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// empty is a backing without objects but one namespace.
type empty struct{}

func (empty) Fetch(p Part) ([]*unstructured.Unstructured, error) {
	if p.Resource != "namespaces" {
		return nil, nil
	}
	ns := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "shop", "resourceVersion": "1"}}}
	return []*unstructured.Unstructured{ns}, nil
}

func (empty) Ask(Question) ([]byte, bool, error) { return nil, false, nil }

// A twin notes who owns the fields of what people write, and leaves it out of
// what only controllers do.
func TestATwinLeavesOutWhoOwnsPods(t *testing.T) {
	var served []Served
	for _, s := range []struct{ plural, kind string }{{"namespaces", "Namespace"}, {"pods", "Pod"}, {"services", "Service"}, {"configmaps", "ConfigMap"}} {
		served = append(served, Served{Versions: []string{"v1"}, Plural: s.plural, Kind: s.kind, Namespaced: s.kind != "Namespace"})
	}
	c, err := New(Options{Backing: empty{}, Served: served})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct {
		gr   schema.GroupResource
		obj  map[string]any
		owns bool
	}{
		{grPods, map[string]any{"apiVersion": "v1", "kind": "Pod", "spec": map[string]any{"containers": []any{map[string]any{"name": "a", "image": "x"}}}}, false},
		{grConfigMaps, map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "data": map[string]any{"a": "b"}}, true},
	} {
		k.obj["metadata"] = map[string]any{"name": "a"}
		c.mu.Lock()
		_, err := c.create(k.gr, "shop", &unstructured.Unstructured{Object: k.obj}, writeOptions{manager: "test"})
		if err == nil {
			_, err = c.update(k.gr, "shop", "a", writeOptions{manager: "other"}, func(cur *unstructured.Unstructured) (*unstructured.Unstructured, error) {
				next := cur.DeepCopy()
				next.SetLabels(map[string]string{"app": "a"})
				return next, nil
			})
		}
		got := c.st.get(objectKey{k.gr, "shop", "a"})
		c.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if owned := len(got.obj.GetManagedFields()) > 0; owned != k.owns || got.obj.GetLabels()["app"] != "a" {
			t.Errorf("%s: managed fields: %t, want %t; labels %v", k.gr, owned, k.owns, got.obj.GetLabels())
		}
	}
}
