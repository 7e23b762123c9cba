package gate

import (
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/resource"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/plain"
)

// past is what was worked out of pods when they were read before: there are many, and
// few have changed since.
type past struct {
	asks asked
	pods map[types.UID]occupant
}

// occupant is what a pod takes of a node's room.
type occupant struct {
	version  string // of the pod
	over     bool   // it has ended, and takes nothing
	asks     corev1.ResourceList
	workload string // see selectorKey
	node     string
}

// asked are the sums of requests that were made already, by the text of what they
// sum: the pods of a cluster ask for few different things.
type asked map[string]corev1.ResourceList

// occupant is what a pod takes, worked out once for each version of it.
func (b *past) occupant(pod *cluster.Object) (occupant, error) {
	version := pod.GetResourceVersion()
	if p, ok := b.pods[pod.GetUID()]; ok && version != "" && p.version == version {
		return p, nil
	}
	p := occupant{version: version}
	phase, _, err := unstructured.NestedString(pod.Object, "status", "phase")
	if err == nil && (phase == "Succeeded" || phase == "Failed") {
		p.over = true
		return p, nil
	}
	if b.asks == nil {
		b.asks = asked{}
	}
	if p.asks, err = b.asks.of(pod.Object["spec"]); err != nil {
		return p, err
	}
	p.workload = selectorKey(pod)
	p.node, _, err = unstructured.NestedString(pod.Object, "spec", "nodeName")
	return p, err
}

// mostAsked bounds what is remembered.
const mostAsked = 4096

// of is requestsOf of a spec. The answer is shared, and not to be changed.
func (a asked) of(spec any) (corev1.ResourceList, error) {
	small := requesting(spec)
	text, err := plain.Encode(small)
	if err != nil {
		return nil, err
	}
	if asks, ok := a[string(text)]; ok {
		return asks, nil
	}
	asks, err := summed(small)
	if err == nil {
		if len(a) >= mostAsked {
			clear(a)
		}
		a[string(text)] = asks
	}
	return asks, err
}

// requestsOf sums the requests of a pod's spec as the scheduler does, sidecars
// and init containers included, and counts the pod itself.
func requestsOf(spec any) (corev1.ResourceList, error) { return summed(requesting(spec)) }

// requesting is what of a spec has to do with its requests.
func requesting(spec any) map[string]any {
	m, _ := spec.(map[string]any)
	small := map[string]any{}
	for _, key := range []string{"containers", "initContainers"} {
		list, _ := m[key].([]any)
		var out []any
		for _, c := range list {
			if c, ok := c.(map[string]any); ok {
				out = append(out, map[string]any{"resources": c["resources"], "restartPolicy": c["restartPolicy"]})
			}
		}
		if out != nil {
			small[key] = out
		}
	}
	for _, key := range []string{"overhead", "resources"} {
		if m[key] != nil {
			small[key] = m[key]
		}
	}
	return small
}

func summed(small map[string]any) (corev1.ResourceList, error) {
	pod := &corev1.Pod{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(map[string]any{"spec": small}, pod); err != nil {
		return nil, err
	}
	asks := resource.PodRequests(pod, resource.PodResourcesOptions{})
	asks[corev1.ResourcePods] = apiresource.MustParse("1")
	return asks, nil
}
