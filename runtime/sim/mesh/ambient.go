package mesh

import (
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// ambientCNI is what the istio-cni agents of the Nodes do for ambient: a
// running pod of a namespace in ambient mode is taken into the mesh, which its
// annotation says. The agent of a Node does it when it is ready, and not
// without a ztunnel there (cni/pkg/nodeagent of istio.io/istio).
type ambientCNI struct{}

const (
	labelDataplane     = "istio.io/dataplane-mode"
	annotationRedirect = "ambient.istio.io/redirection"
)

// Name implements sim.Controller.
func (ambientCNI) Name() string { return "istio-cni" }

// Manager names the field manager of its writes.
func (ambientCNI) Manager() string { return "install-cni" }

// Watches implements sim.Controller.
func (ambientCNI) Watches() []schema.GroupResource {
	return []schema.GroupResource{grPods, grNamespaces}
}

// Sync implements sim.Controller.
func (c ambientCNI) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	if gr == grPods {
		pod := w.Get(gr, namespace, name)
		if pod == nil {
			return 0
		}
		if app := agent(pod); app != "" && podReady(pod) {
			return c.all(w, "")
		}
		return c.sync(w, pod)
	}
	return c.all(w, name)
}

func (c ambientCNI) all(w sim.World, namespace string) time.Duration {
	again := time.Duration(0)
	for _, pod := range w.List(grPods, namespace) {
		again = max(again, c.sync(w, pod))
	}
	return again
}

// agent is "istio-cni-node" or "ztunnel" for a pod of these, else "".
func agent(pod *unstructured.Unstructured) string {
	labels := pod.GetLabels()
	if labels["k8s-app"] == "istio-cni-node" {
		return "istio-cni-node"
	}
	if labels["app"] == "ztunnel" {
		return "ztunnel"
	}
	return ""
}

func (ambientCNI) sync(w sim.World, pod *unstructured.Unstructured) time.Duration {
	ns := w.Get(grNamespaces, "", pod.GetNamespace())
	phase, _, _ := unstructured.NestedString(pod.Object, "status", "phase")
	if ns == nil || phase != "Running" || pod.GetDeletionTimestamp() != nil {
		return 0
	}
	has := pod.GetAnnotations()[annotationRedirect] != ""
	want := ambientPod(ns, pod)
	if has == want || want && !agentsReady(w, pod) {
		return 0
	}
	next := pod.DeepCopy()
	notes := next.GetAnnotations()
	if notes == nil {
		notes = map[string]string{}
	}
	delete(notes, annotationRedirect)
	if want {
		notes[annotationRedirect] = "enabled"
	}
	next.SetAnnotations(notes)
	if err := w.Update(next); err != nil {
		return retryDelay
	}
	return 0
}

// ambientPod reports whether a pod belongs into the ambient mesh
// (PodRedirectionEnabled in cni/pkg/util).
func ambientPod(ns, pod *unstructured.Unstructured) bool {
	if host, _, _ := unstructured.NestedBool(pod.Object, "spec", "hostNetwork"); host || pod.GetAnnotations()["sidecar.istio.io/status"] != "" {
		return false
	}
	mode := first(pod.GetLabels()[labelDataplane], ns.GetLabels()[labelDataplane])
	return mode == "ambient" && agent(pod) == ""
}

// agentsReady reports whether both agents of the pod's Node are ready.
func agentsReady(v sim.View, pod *unstructured.Unstructured) bool {
	node, _, _ := unstructured.NestedString(pod.Object, "spec", "nodeName")
	ready := map[string]bool{}
	for _, p := range append(v.List(grPods, SystemNamespace), v.List(grPods, "kube-system")...) {
		if n, _, _ := unstructured.NestedString(p.Object, "spec", "nodeName"); n == node && podReady(p) {
			ready[agent(p)] = true
		}
	}
	return ready["istio-cni-node"] && ready["ztunnel"]
}
