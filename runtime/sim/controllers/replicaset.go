package controllers

import (
	"fmt"
	"sort"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// replicaSetController keeps as many pods of a template as its ReplicaSet
// asks for.
type replicaSetController struct{}

func (replicaSetController) Name() string { return "replicaset-controller" }

func (replicaSetController) Watches() []schema.GroupResource {
	return []schema.GroupResource{grReplicaSets, grPods}
}

func (c replicaSetController) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	if gr != grReplicaSets {
		return 0
	}
	rs := w.Get(gr, namespace, name)
	if rs == nil {
		return 0
	}
	pods := activePods(w, rs)
	var failure error
	if !deleting(rs) {
		pods, failure = c.reconcile(w, rs, pods)
	}
	return c.status(w, rs, pods, failure)
}

// reconcile creates or deletes pods, and returns those that remain.
func (replicaSetController) reconcile(w sim.World, rs *unstructured.Unstructured, pods []*unstructured.Unstructured) ([]*unstructured.Unstructured, error) {
	want := number(rs.Object, 1, "spec", "replicas")
	have := int64(len(pods))
	if have > want {
		return dropPods(w, rs, pods, int(have-want))
	}
	template := table(rs.Object, "spec", "template")
	for ; have < want; have++ {
		pod, err := createPod(w, rs, podFrom(rs, template, w.Name(rs.GetName()+"-"), nil), rs.GetName()+"-")
		if err != nil {
			return pods, err
		}
		pods = append(pods, pod)
	}
	return pods, nil
}

// createPod creates a pod for its owner and records how that went.
func createPod(w sim.World, owner, pod *unstructured.Unstructured, generateName string) (*unstructured.Unstructured, error) {
	if generateName != "" {
		pod.SetGenerateName(generateName)
	}
	made, err := w.Create(pod)
	if err != nil {
		w.Event(owner, eventWarning, "FailedCreate", "Error creating: "+reasonOf(err))
		return nil, err
	}
	w.Event(owner, eventNormal, "SuccessfulCreate", "Created pod: "+made.GetName())
	return made, nil
}

// deletePod deletes a pod for its owner and records it.
func deletePod(w sim.World, owner, pod *unstructured.Unstructured) error {
	if err := w.Delete(grPods, pod.GetNamespace(), pod.GetName()); err != nil {
		w.Event(owner, eventWarning, "FailedDelete", "Error deleting: "+reasonOf(err))
		return err
	}
	w.Event(owner, eventNormal, "SuccessfulDelete", "Deleted pod: "+pod.GetName())
	return nil
}

// dropPods deletes n pods, those first that are worth least: unassigned,
// pending, not ready, on the node with the most siblings, ready for the
// shortest time, created last.
func dropPods(w sim.World, owner *unstructured.Unstructured, pods []*unstructured.Unstructured, n int) ([]*unstructured.Unstructured, error) {
	perNode := map[string]int{}
	for _, p := range pods {
		perNode[text(p.Object, "spec", "nodeName")]++
	}
	rank := func(p *unstructured.Unstructured) []string {
		node := text(p.Object, "spec", "nodeName")
		return []string{
			bit(node != ""), bit(text(p.Object, "status", "phase") == "Running"), bit(ready(p)),
			fmt.Sprintf("%06d", 1e5-perNode[node]),
			inverse(text(condition(at(p.Object, "status"), "Ready"), "lastTransitionTime")),
			inverse(text(p.Object, "metadata", "creationTimestamp")), p.GetName(),
		}
	}
	sorted := append([]*unstructured.Unstructured(nil), pods...)
	sort.SliceStable(sorted, func(i, j int) bool { return before(rank(sorted[i]), rank(sorted[j])) })
	for i, p := range sorted[:n] {
		if err := deletePod(w, owner, p); err != nil {
			return sorted[i:], err
		}
	}
	return sorted[n:], nil
}

func bit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// inverse maps a timestamp to a string that sorts later times first.
func inverse(s string) string {
	return fmt.Sprintf("%020d", uint64(1<<62)-uint64(max(instant(s).Unix(), 0)))
}

func before(a, b []string) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

// status writes what became of the ReplicaSet, and says when to look again:
// when a pod becomes available, or when a refused creation is due again.
func (replicaSetController) status(w sim.World, rs *unstructured.Unstructured, pods []*unstructured.Unstructured, failure error) time.Duration {
	var again time.Duration
	var nReady, nAvailable, labelled int64
	want := table(rs.Object, "spec", "template", "metadata", "labels")
	minReady := number(rs.Object, 0, "spec", "minReadySeconds")
	for _, p := range pods {
		if picks(want, labelsOf(p)) {
			labelled++
		}
		if ready(p) {
			nReady++
		}
		ok, wait := available(p, minReady, w.Now())
		if ok {
			nAvailable++
		}
		again = sooner(again, wait)
	}
	status := map[string]any{
		"replicas":           int64(len(pods)),
		"observedGeneration": number(rs.Object, 0, "metadata", "generation"),
	}
	setCount(status, "fullyLabeledReplicas", labelled)
	setCount(status, "readyReplicas", nReady)
	setCount(status, "availableReplicas", nAvailable)
	var backoff time.Duration
	if failure != nil {
		old := condition(at(rs.Object, "status"), "ReplicaFailure")
		c := newCondition(old, "ReplicaFailure", "True", "FailedCreate", reasonOf(failure), stamp(w.Now()))
		status["conditions"] = []any{c}
		backoff = backoffSince(text(c, "lastTransitionTime"), w.Now())
	}
	return sooner(setStatus(w, rs, status), sooner(again, backoff))
}

// setCount writes a counter as Kubernetes does: zero is left out.
func setCount(status map[string]any, field string, n int64) {
	if n != 0 {
		status[field] = n
	}
}

// backoffSince doubles the time since a first failure: the retries of an
// exponential back-off, without a counter that would have to be stored.
func backoffSince(first string, now time.Time) time.Duration {
	return min(max(now.Sub(instant(first)), retryDelay), 5*time.Minute)
}
