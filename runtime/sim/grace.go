package sim

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// gracePeriod is how many seconds an object has from the request to delete it
// until it goes; asked is what the request wants, nil for the object's own.
// Only pods have one: none while they have no node, or when they have ended
// (registry/core/pod, CheckGracefulDelete). pending reports that the object is
// going already and the request would not shorten its period, in which case
// it changes nothing (registry/rest, BeforeDelete).
func gracePeriod(gr schema.GroupResource, obj *unstructured.Unstructured, asked *int64) (seconds int64, pending bool) {
	if gr != grPods {
		return 0, false
	}
	if leaving(obj) {
		if asked == nil || *asked >= graceOf(obj) {
			return 0, true
		}
		return max(*asked, 0), false
	}
	if n, ok, _ := unstructured.NestedInt64(obj.Object, "spec", "terminationGracePeriodSeconds"); ok {
		seconds = n
	}
	if asked != nil {
		seconds = *asked
	}
	node, _, _ := unstructured.NestedString(obj.Object, "spec", "nodeName")
	phase, _, _ := unstructured.NestedString(obj.Object, "status", "phase")
	switch {
	case node == "", phase == "Succeeded", phase == "Failed":
		return 0, false
	case seconds < 0:
		return 1, false
	}
	return seconds, false
}

// graceOf is the grace period that a deletion gave the object.
func graceOf(obj *unstructured.Unstructured) int64 {
	n, _, _ := unstructured.NestedInt64(obj.Object, "metadata", "deletionGracePeriodSeconds")
	return n
}

// leaving reports whether the object is in its grace period: only the kubelet,
// or a request without grace, ends it.
func leaving(obj *unstructured.Unstructured) bool {
	return obj.GetDeletionTimestamp() != nil && graceOf(obj) > 0
}
