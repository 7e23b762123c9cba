package controllers

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// scheduler binds pods to Nodes. It looks at node names, node selectors,
// required node affinity by name, taints and cordons, and spreads the pods of
// one owner evenly; it knows no resources.
type scheduler struct{}

func (scheduler) Name() string { return "default-scheduler" }

func (scheduler) Watches() []schema.GroupResource {
	return []schema.GroupResource{grPods, grNodes}
}

func (s scheduler) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	if gr == grPods {
		return s.schedule(w, w.Get(gr, namespace, name))
	}
	if gr == grNodes && w.Get(gr, "", name) != nil {
		for _, p := range w.List(grPods, "") {
			s.schedule(w, p)
		}
	}
	return 0
}

func (scheduler) schedule(w sim.World, pod *unstructured.Unstructured) time.Duration {
	if pod == nil || text(pod.Object, "spec", "nodeName") != "" || !active(pod) {
		return 0
	}
	if by := text(pod.Object, "spec", "schedulerName"); by != "" && by != "default-scheduler" {
		return 0 // somebody else's
	}
	nodes := w.List(grNodes, "")
	var fitting []string
	for _, n := range nodes {
		if fits(table(pod.Object, "spec"), n) {
			fitting = append(fitting, n.GetName())
		}
	}
	if len(fitting) == 0 {
		return unschedulable(w, pod, len(nodes))
	}
	node := leastUsed(w, pod, fitting)
	next := edit(pod)
	table(next.Object, "spec")["nodeName"] = node
	if err := w.Update(next); err != nil {
		return retryDelay
	}
	w.Event(pod, eventNormal, "Scheduled", fmt.Sprintf("Successfully assigned %s/%s to %s", pod.GetNamespace(), pod.GetName(), node))
	return 0
}

func unschedulable(w sim.World, pod *unstructured.Unstructured, nodes int) time.Duration {
	message := fmt.Sprintf("0/%d nodes are available: no node matches the pod's node selector, affinity and tolerations.", nodes)
	if nodes == 0 {
		message = "no nodes available to schedule pods"
	}
	old := condition(at(pod.Object, "status"), "PodScheduled")
	c := newCondition(old, "PodScheduled", "False", "Unschedulable", message, stamp(w.Now()))
	if equal(old, c) {
		return 0
	}
	status := copyMap(table(pod.Object, "status"))
	status["phase"] = "Pending"
	status["conditions"] = withCondition(items(status, "conditions"), c)
	w.Event(pod, eventWarning, "FailedScheduling", message)
	return setStatus(w, pod, status)
}

// leastUsed picks the node with the fewest pods of the same owner, beginning
// at a place in the ring that depends on the owner's name.
func leastUsed(w sim.World, pod *unstructured.Unstructured, nodes []string) string {
	owner := controllerOf(pod)
	key := pod.GetNamespace() + "/" + pod.GetName()
	count := map[string]int{}
	if owner != nil {
		key = pod.GetNamespace() + "/" + text(owner, "name")
		for _, p := range w.Owned(grPods, pod.GetNamespace(), text(owner, "uid")) {
			if active(p) {
				count[text(p.Object, "spec", "nodeName")]++
			}
		}
	}
	first := int(spread(key) % uint32(len(nodes))) // #nosec G115 -- a number of nodes
	best := nodes[first]
	for i := range nodes {
		if n := nodes[(first+i)%len(nodes)]; count[n] < count[best] {
			best = n
		}
	}
	return best
}

// fits reports whether a pod with this spec may run on a node.
func fits(spec map[string]any, node *unstructured.Unstructured) bool {
	if deleting(node) {
		return false
	}
	if pinned := pinnedNode(spec); pinned != "" && pinned != node.GetName() {
		return false
	}
	labels := labelsOf(node)
	for k, v := range table(spec, "nodeSelector") {
		if labels[k] != v {
			return false
		}
	}
	if flag(node.Object, "spec", "unschedulable") && !tolerates(spec, map[string]any{
		"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule",
	}) {
		return false
	}
	for _, t := range items(node.Object, "spec", "taints") {
		if text(t, "effect") != "PreferNoSchedule" && !tolerates(spec, t) {
			return false
		}
	}
	return inAffinity(spec, node)
}

func tolerates(spec map[string]any, taint any) bool {
	return slices.ContainsFunc(items(spec, "tolerations"), func(t any) bool {
		if e := text(t, "effect"); e != "" && e != text(taint, "effect") {
			return false
		}
		key := text(t, "key")
		if text(t, "operator") == "Exists" {
			return key == "" || key == text(taint, "key")
		}
		return key == text(taint, "key") && text(t, "value") == text(taint, "value")
	})
}

const requiredAffinity = "requiredDuringSchedulingIgnoredDuringExecution"

// pinnedNode is the node that required affinity by metadata.name demands, as
// DaemonSets write it.
func pinnedNode(spec map[string]any) string {
	for _, term := range items(spec, "affinity", "nodeAffinity", requiredAffinity, "nodeSelectorTerms") {
		for _, f := range items(term, "matchFields") {
			if v := items(f, "values"); text(f, "key") == "metadata.name" && len(v) == 1 {
				name, _ := v[0].(string)
				return name
			}
		}
	}
	return ""
}

// inAffinity evaluates required node affinity by label expressions.
func inAffinity(spec map[string]any, node *unstructured.Unstructured) bool {
	terms := items(spec, "affinity", "nodeAffinity", requiredAffinity, "nodeSelectorTerms")
	if len(terms) == 0 {
		return true
	}
	return slices.ContainsFunc(terms, func(term any) bool {
		for _, e := range items(term, "matchExpressions") {
			if !expressionHolds(e, labelsOf(node)) {
				return false
			}
		}
		return true
	})
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
