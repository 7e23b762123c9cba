package workbench

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/sim"
)

// derived kinds are made by controllers, under names that depend on when.
func derived(kind string) bool {
	return slices.Contains([]string{"Pod", "ReplicaSet", "ControllerRevision", "Event", "Lease", "Endpoints", "EndpointSlice"}, kind)
}

// State is everything there is in a cluster, as far as it is no history: the
// normal form of every object, who owns its fields, and what runs in every
// workload's pods, by a name for each.
func State(t testing.TB, c *sim.Cluster) map[string]string {
	t.Helper()
	out := map[string]string{}
	objects := c.Objects()
	owner := map[types.UID]*unstructured.Unstructured{}
	for _, o := range objects {
		owner[o.GetUID()] = o
		if derived(o.GetKind()) {
			continue
		}
		b, err := cluster.CanonicalJSON(cluster.Normalize(o, cluster.NormalizeOptions{}).Object)
		if err != nil {
			t.Fatal(err)
		}
		name := cluster.RefOf(o).String()
		out[name] = string(b)
		out["owners of "+name] = owners(t, o)
	}
	for _, o := range objects {
		if o.GetKind() != "Pod" {
			continue
		}
		top := o
		for refs := top.GetOwnerReferences(); len(refs) > 0 && owner[refs[0].UID] != nil; refs = top.GetOwnerReferences() {
			top = owner[refs[0].UID]
		}
		ready, _, _ := cluster.Ready(o)
		key := "pods of " + cluster.RefOf(top).String()
		lines := append(strings.Split(out[key], "\n"), fmt.Sprintf("ready %v: %v", ready, Images(o)))
		slices.Sort(lines)
		out[key] = strings.Join(lines, "\n")
	}
	return out
}

// owners are the managers of an object with their fields, rutter's marks left
// out.
func owners(t testing.TB, o *unstructured.Unstructured) string {
	t.Helper()
	marks := fieldpath.NewSet(
		fieldpath.MakePathOrDie("metadata", "annotations"),
		fieldpath.MakePathOrDie("metadata", "annotations", cluster.AnnotationRun),
		fieldpath.MakePathOrDie("metadata", "annotations", cluster.AnnotationEffect),
	)
	var lines []string
	for _, m := range o.GetManagedFields() {
		if m.Subresource != "" || m.FieldsV1 == nil || m.Manager == "kube-controller-manager" {
			continue
		}
		s := fieldpath.NewSet()
		if err := s.FromJSON(bytes.NewReader(m.FieldsV1.GetRawBytes())); err != nil {
			t.Fatal(err)
		}
		if s = s.Difference(marks); !s.Empty() {
			lines = append(lines, fmt.Sprintf("%s %s %s", m.Manager, m.Operation, s))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// Images are those of a pod's containers, init containers first.
func Images(pod *unstructured.Unstructured) []string {
	var out []string
	for _, field := range []string{"initContainers", "containers"} {
		cs, _, err := unstructured.NestedSlice(pod.Object, "spec", field)
		if err != nil {
			continue
		}
		for _, c := range cs {
			if m, ok := c.(map[string]any); ok {
				out = append(out, fmt.Sprint(m["image"]))
			}
		}
	}
	return out
}

// Same demands that a cluster is as it was, but for objects whose names end in
// what is excepted.
func Same(t testing.TB, got, want map[string]string, except ...string) {
	t.Helper()
	excepted := func(k string) bool {
		return slices.ContainsFunc(except, func(x string) bool { return strings.HasSuffix(k, x) })
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		switch g, ok := got[k]; {
		case excepted(k):
		case !ok:
			t.Errorf("%s: is gone", k)
		case g != want[k]:
			t.Errorf("%s: is not as it was: %s", k, firstDifference(g, want[k]))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[k]; !ok && !excepted(k) {
			t.Errorf("%s: was not there", k)
		}
	}
}

func firstDifference(got, want string) string {
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	part := func(s string) string { return s[max(0, i-60):min(len(s), i+120)] }
	return fmt.Sprintf("got …%s…, want …%s…", part(got), part(want))
}
