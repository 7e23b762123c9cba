package testrun

import (
	"slices"
	"strings"

	"go.starlark.net/starlark"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/cluster"
)

// derived are kinds whose objects controllers make of others, with names that
// depend on how often they did.
var derived = []string{"ControllerRevision", "EndpointSlice", "Endpoints", "Event", "Lease", "Node", "Pod", "ReplicaSet"}

// state gives the normal form of every object that somebody wrote, and per
// workload the images of its pods and whether they are ready, under names as in
// errors.
func (c *simulated) state(*starlark.Thread, *noArgs) (starlark.Value, error) {
	objects := c.sim.Stored()
	out := map[string]any{}
	byUID := map[string]*unstructured.Unstructured{}
	for _, o := range objects {
		byUID[string(o.GetUID())] = o
		if !slices.Contains(derived, o.GetKind()) {
			out[cluster.RefOf(o).String()] = cluster.Normalize(o, cluster.NormalizeOptions{}).Object
		}
	}
	pods := map[string][]any{}
	for _, o := range objects {
		if o.GetKind() == "Pod" {
			of := "pods of " + cluster.RefOf(outermost(o, byUID)).String()
			pods[of] = append(pods[of], podState(o))
		}
	}
	for of, list := range pods {
		slices.SortFunc(list, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
		out[of] = list
	}
	return data(out)
}

// outermost climbs from an object to the controller that nobody owns.
func outermost(o *unstructured.Unstructured, byUID map[string]*unstructured.Unstructured) *unstructured.Unstructured {
	for _, r := range o.GetOwnerReferences() {
		if up := byUID[string(r.UID)]; up != nil && r.Controller != nil && *r.Controller {
			return outermost(up, byUID)
		}
	}
	return o
}

func podState(o *unstructured.Unstructured) string {
	var images []string
	for _, field := range []string{"initContainers", "containers"} {
		cs, _, _ := unstructured.NestedSlice(o.Object, "spec", field)
		for _, x := range cs {
			if m, ok := x.(map[string]any); ok {
				image, _ := m["image"].(string)
				images = append(images, image)
			}
		}
	}
	word := "not ready"
	if ready, _, _ := cluster.Ready(o); ready {
		word = "ready"
	}
	return word + ": " + strings.Join(images, ", ")
}
