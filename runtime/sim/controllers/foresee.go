package controllers

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/sim"
)

var (
	_ sim.Foreseer = deploymentController{}
	_ sim.Foreseer = statefulSetController{}
	_ sim.Foreseer = daemonSetController{}
)

// Foresee implements sim.Foreseer: the pods of the ReplicaSet that is yet to be made.
func (deploymentController) Foresee(d *unstructured.Unstructured) []*unstructured.Unstructured {
	hash := hashOf(d)
	set := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "ReplicaSet",
		"metadata": map[string]any{"name": d.GetName() + "-" + hash, "namespace": d.GetNamespace()},
	}}
	return foreseen(podFrom(set, hashedTemplate(d, hash), "", nil), set.GetName())
}

// Foresee implements sim.Foreseer: the pods of all ordinals, which are told apart by
// labels.
func (statefulSetController) Foresee(set *unstructured.Unstructured) []*unstructured.Unstructured {
	start, template := number(set.Object, 0, "spec", "ordinals", "start"), table(set.Object, "spec", "template")
	revision := revisionName(set, revisionHash(set))
	var out []*unstructured.Unstructured
	for i := range number(set.Object, 1, "spec", "replicas") {
		out = append(out, slotPod(set, template, revision, start+i))
	}
	return out
}

// Foresee implements sim.Foreseer: the pod of one node, as those of others are but
// for their affinity.
func (daemonSetController) Foresee(set *unstructured.Unstructured) []*unstructured.Unstructured {
	return foreseen(daemonPod(set, revisionHash(set), "", ""), set.GetName())
}

func foreseen(pod *unstructured.Unstructured, owner string) []*unstructured.Unstructured {
	pod.SetGenerateName(owner + "-")
	return []*unstructured.Unstructured{pod}
}
