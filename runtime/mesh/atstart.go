package mesh

import (
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/cluster"
)

// ReadAtStart names the ConfigMaps that a workload's containers read when they
// start, and not again: those that its pod template takes its environment from,
// and of an istiod that of the mesh, which it reloads, but not all of it. A
// change of one takes effect with the next restart (GUIDE row 13). Sorted.
func ReadAtStart(o *cluster.Object) []string {
	var out []string
	for _, field := range []string{"initContainers", "containers"} {
		list, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", field)
		for _, e := range list {
			if m, ok := e.(map[string]any); ok {
				out = append(out, environment(m)...)
			}
		}
	}
	if o.GetLabels()["app"] == "istiod" {
		out = append(out, meshConfigName(o))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// meshConfigName is the mesh ConfigMap of an istiod: "istio", or "istio-REV".
func meshConfigName(istiod *cluster.Object) string {
	if rev := istiod.GetLabels()[LabelRev]; rev != "" && rev != DefaultRevision {
		return "istio-" + rev
	}
	return "istio"
}

// environment names the ConfigMaps that a container's environment comes from.
func environment(container map[string]any) []string {
	var out []string
	for field, path := range map[string][]string{"envFrom": {"configMapRef", "name"}, "env": {"valueFrom", "configMapKeyRef", "name"}} {
		list, _, _ := unstructured.NestedSlice(container, field)
		for _, e := range list {
			m, ok := e.(map[string]any)
			if !ok {
				continue
			}
			if name, _, _ := unstructured.NestedString(m, path...); name != "" {
				out = append(out, name)
			}
		}
	}
	return out
}
