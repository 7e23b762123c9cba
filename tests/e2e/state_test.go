//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"

	"rutter.dev/rutter/tests/e2e/plane"
)

// restless are kinds that the cluster's own parts write without end, or that
// say what others say already.
var restless = []string{"Event", "Lease", "ComponentStatus", "Endpoints"}

// clusterState is every object of the cluster that somebody asked for, by kind
// and name, as JSON text. What the cluster's own parts write without end is
// left out: statuses, events, Leases, and the bookkeeping of writes, which the
// audit log tells more of.
func clusterState(t *testing.T, p *plane.Plane) map[string]string {
	t.Helper()
	out := map[string]string{}
	eachObject(t, p, func(o *plane.Object) {
		name, text := told(t, o)
		out[name] = text
	})
	return out
}

// eachObject lists all that the cluster has but what it writes without end.
func eachObject(t *testing.T, p *plane.Plane, each func(*plane.Object)) {
	t.Helper()
	d, err := discovery.NewDiscoveryClientForConfig(p.Config())
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(p.Config())
	if err != nil {
		t.Fatal(err)
	}
	lists, err := d.ServerPreferredResources()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range l.APIResources {
			if !slices.Contains(r.Verbs, "list") || slices.Contains(restless, r.Kind) {
				continue
			}
			listed, err := client.Resource(gv.WithResource(r.Name)).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatalf("%s: %v", r.Name, err)
			}
			for i := range listed.Items {
				each(&listed.Items[i])
			}
		}
	}
}

func told(t *testing.T, o *plane.Object) (name, text string) {
	t.Helper()
	delete(o.Object, "status")
	unstructured.RemoveNestedField(o.Object, "metadata", "managedFields")
	unstructured.RemoveNestedField(o.Object, "metadata", "resourceVersion")
	// By this istiods elect their leader, in ConfigMaps.
	unstructured.RemoveNestedField(o.Object, "metadata", "annotations", "control-plane.alpha.kubernetes.io/leader")
	raw, err := json.Marshal(o.Object)
	if err != nil {
		t.Fatal(err)
	}
	return o.GroupVersionKind().GroupKind().String() + " " + o.GetNamespace() + "/" + o.GetName(), string(raw)
}

// sameState reports what differs between two states of the cluster.
func sameState(t *testing.T, before, after map[string]string) {
	t.Helper()
	if len(before) < 100 {
		t.Fatalf("only %d objects were looked at", len(before))
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		now, ok := after[name]
		switch {
		case !ok:
			t.Errorf("%s is gone", name)
		case now != before[name]:
			t.Errorf("%s changed\n from %s\n   to %s", name, before[name], now)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if _, ok := before[name]; !ok {
			t.Errorf("%s is new", name)
		}
	}
}

// unchanged runs what must not change anything: every object of the cluster is
// afterwards what it was, and the API server's audit log knows of no request
// to change one.
func unchanged(t *testing.T, p *plane.Plane, act func()) {
	t.Helper()
	before, mark := clusterState(t, p), auditMark(t, p)
	act()
	for _, c := range changes(t, p, mark) {
		t.Errorf("it asked for %s (answered %d)", c.what(), c.code)
	}
	sameState(t, before, clusterState(t, p))
}

// object reads an object by its kind.
func object(t *testing.T, p *plane.Plane, group, version, kind, namespace, name string) *plane.Object {
	t.Helper()
	o, err := p.Get(t.Context(), schema.GroupVersionKind{Group: group, Version: version, Kind: kind}, namespace, name)
	if err != nil {
		t.Fatalf("%s %s/%s: %v", kind, namespace, name, err)
	}
	return o
}

// until waits for a condition, and fails the test when it doesn't come true.
func until(t *testing.T, what string, holds func(context.Context) (bool, error)) {
	t.Helper()
	if err := plane.Until(t.Context(), patience, holds); err != nil {
		t.Fatalf("waiting until %s: %v", what, err)
	}
}

// apply makes objects of YAML text as kubectl would.
func apply(t *testing.T, p *plane.Plane, text string) {
	t.Helper()
	objs, err := plane.Parse([]byte(strings.TrimSpace(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(t.Context(), "kubectl", objs...); err != nil {
		t.Fatal(err)
	}
}
