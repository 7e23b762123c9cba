package controllers

import (
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// budgetController computes how many disruptions each PodDisruptionBudget
// allows. Percentages and maxUnavailable are of the scale of the pods' owners;
// both are rounded up.
type budgetController struct{}

func (budgetController) Name() string { return "disruption-controller" }

func (budgetController) Watches() []schema.GroupResource {
	return []schema.GroupResource{grBudgets, grPods}
}

func (c budgetController) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	if gr == grBudgets {
		return c.sync(w, w.Get(gr, namespace, name))
	}
	pod := w.Get(gr, namespace, name)
	for _, b := range w.List(grBudgets, namespace) {
		if pod == nil || budgetSelects(b, pod) {
			c.sync(w, b)
		}
	}
	return 0
}

// budgetSelects reports whether a policy/v1 budget covers a pod; its empty
// selector covers all pods of the namespace.
func budgetSelects(budget, pod *unstructured.Unstructured) bool {
	return selects(table(budget.Object, "spec", "selector"), labelsOf(pod))
}

func (budgetController) sync(w sim.World, b *unstructured.Unstructured) time.Duration {
	if b == nil || deleting(b) {
		return 0
	}
	var pods []*unstructured.Unstructured
	for _, p := range w.List(grPods, b.GetNamespace()) {
		if budgetSelects(b, p) && !finished(p) {
			pods = append(pods, p)
		}
	}
	expected, desired := budgetNeeds(w, b, pods)
	disrupted, again := disruptedPods(w, b, pods)
	var healthy int64
	for _, p := range pods {
		if _, gone := disrupted[p.GetName()]; !gone && ready(p) {
			healthy++
		}
	}
	allowed := max(0, healthy-desired)
	if expected == 0 {
		allowed = 0
	}
	status := "True"
	reason := "SufficientPods"
	if allowed == 0 {
		status, reason = "False", "InsufficientPods"
	}
	c := newCondition(condition(at(b.Object, "status"), "DisruptionAllowed"), "DisruptionAllowed", status, reason, "", stamp(w.Now()))
	c["message"], c["observedGeneration"] = "", number(b.Object, 0, "metadata", "generation")
	st := map[string]any{
		"conditions": []any{c}, "currentHealthy": healthy, "desiredHealthy": desired,
		"disruptionsAllowed": allowed, "expectedPods": expected,
		"observedGeneration": number(b.Object, 0, "metadata", "generation"),
	}
	if len(disrupted) > 0 {
		st["disruptedPods"] = disrupted
	}
	return sooner(again, setStatus(w, b, st))
}

// disruptionTimeout is how long an evicted pod counts as gone before it was
// seen to go.
const disruptionTimeout = 2 * time.Minute

// disruptedPods keeps those entries of status.disruptedPods whose pods are
// still there and young enough.
func disruptedPods(w sim.World, b *unstructured.Unstructured, pods []*unstructured.Unstructured) (map[string]any, time.Duration) {
	out := map[string]any{}
	var again time.Duration
	entries := table(b.Object, "status", "disruptedPods")
	for _, p := range pods {
		since, ok := entries[p.GetName()].(string)
		if !ok || deleting(p) {
			continue
		}
		if left := instant(since).Add(disruptionTimeout).Sub(w.Now()); left > 0 {
			out[p.GetName()] = since
			again = sooner(again, left)
		}
	}
	return out, again
}

// budgetNeeds computes how many pods there should be and how many of them
// must stay healthy.
func budgetNeeds(w sim.World, b *unstructured.Unstructured, pods []*unstructured.Unstructured) (expected, desired int64) {
	most, least := at(b.Object, "spec", "maxUnavailable"), at(b.Object, "spec", "minAvailable")
	_, percent := least.(string)
	expected = int64(len(pods))
	if most != nil || percent {
		expected = expectedScale(w, pods)
	}
	if most != nil {
		return expected, max(0, expected-scaled(most, expected, true, 0))
	}
	return expected, scaled(least, expected, true, 0)
}

// expectedScale is the sum of the scales of the pods' owners; pods without a
// controller count for themselves.
func expectedScale(w sim.World, pods []*unstructured.Unstructured) int64 {
	var total int64
	seen := map[string]bool{}
	for _, p := range pods {
		root, scale := scaleOf(w, p)
		if root == "" {
			total++
			continue
		}
		if !seen[root] {
			seen[root] = true
			total += scale
		}
	}
	return total
}

// scaleOf finds what a pod's replicas are counted by: the Deployment above
// its ReplicaSet, or the controller itself.
func scaleOf(w sim.World, pod *unstructured.Unstructured) (uid string, scale int64) {
	ref := controllerOf(pod)
	if ref == nil {
		return "", 0
	}
	ns, name := pod.GetNamespace(), text(ref, "name")
	switch text(ref, "kind") {
	case "ReplicaSet":
		rs := w.Get(grReplicaSets, ns, name)
		if rs == nil {
			return "", 0
		}
		if up := controllerOf(rs); text(up, "kind") == "Deployment" {
			if d := w.Get(grDeployments, ns, text(up, "name")); d != nil {
				return uidOf(d), wanted(d)
			}
		}
		return uidOf(rs), wanted(rs)
	case "StatefulSet":
		if s := w.Get(grStatefulSets, ns, name); s != nil {
			return uidOf(s), wanted(s)
		}
	}
	return "", 0
}
