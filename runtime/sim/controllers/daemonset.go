package controllers

import (
	"sort"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// daemonSetController runs one pod on every matching Node.
type daemonSetController struct{}

func (daemonSetController) Name() string { return "daemonset-controller" }

func (daemonSetController) Watches() []schema.GroupResource {
	return []schema.GroupResource{grDaemonSets, grPods, grNodes}
}

func (c daemonSetController) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	switch gr {
	case grDaemonSets:
		return c.sync(w, w.Get(gr, namespace, name))
	case grNodes:
		for _, ds := range w.List(grDaemonSets, "") {
			c.sync(w, ds)
		}
	}
	return 0
}

func (daemonSetController) sync(w sim.World, set *unstructured.Unstructured) time.Duration {
	if set == nil || deleting(set) {
		return 0
	}
	h, err := syncHistory(w, set, labelRevision)
	if err != nil {
		w.Event(set, eventWarning, "FailedCreate", "Error creating revision: "+reasonOf(err))
		return retryDelay
	}
	d := &daemon{
		w: w, set: set, history: h, minReady: number(set.Object, 0, "spec", "minReadySeconds"),
		hash: text(h.update.Object, "metadata", "labels", labelRevision),
	}
	d.choose()
	d.load()
	again := time.Duration(0)
	if err := d.place(); err != nil {
		again = retryDelay
	}
	d.load()
	if text(set.Object, "spec", "updateStrategy", "type") != "OnDelete" {
		if err := d.roll(); err != nil {
			again = retryDelay
		}
		d.load()
	}
	return sooner(again, d.writeStatus())
}

// daemon is one look at a DaemonSet.
type daemon struct {
	w        sim.World
	set      *unstructured.Unstructured
	history  history
	hash     string
	minReady int64
	wait     time.Duration

	nodes []string                                // that should run a pod, in order
	pods  map[string][]*unstructured.Unstructured // by node, oldest first
	used  map[string]bool                         // revision names
}

// choose finds the nodes, which stay the same while pods are made and deleted.
func (d *daemon) choose() {
	spec := daemonSpec(table(d.set.Object, "spec", "template", "spec"), "")
	for _, n := range d.w.List(grNodes, "") {
		if fits(spec, n) {
			d.nodes = append(d.nodes, n.GetName())
		}
	}
}

// load looks at the pods as they are now.
func (d *daemon) load() {
	d.pods, d.used, d.wait = map[string][]*unstructured.Unstructured{}, map[string]bool{}, 0
	for _, p := range d.w.Owned(grPods, d.set.GetNamespace(), uidOf(d.set)) {
		node := nodeOf(p)
		d.pods[node] = append(d.pods[node], p)
		d.used[d.set.GetName()+"-"+text(p.Object, "metadata", "labels", labelRevision)] = true
	}
	for _, pods := range d.pods {
		sort.Slice(pods, func(i, j int) bool { return olderFirst(pods[i], pods[j]) < 0 })
	}
}

// daemonSpec is a DaemonSet's pod spec for one node: pinned by node affinity,
// tolerating what only other pods have to avoid.
func daemonSpec(spec map[string]any, node string) map[string]any {
	out := copyMap(spec)
	tolerations := append([]any(nil), items(spec, "tolerations")...)
	for _, key := range []string{"not-ready", "unreachable"} {
		tolerations = append(tolerations, map[string]any{"key": "node.kubernetes.io/" + key, "operator": "Exists", "effect": "NoExecute"})
	}
	for _, key := range []string{"disk-pressure", "memory-pressure", "pid-pressure", "unschedulable"} {
		tolerations = append(tolerations, map[string]any{"key": "node.kubernetes.io/" + key, "operator": "Exists", "effect": "NoSchedule"})
	}
	out["tolerations"] = tolerations
	if node == "" {
		return out
	}
	affinity := copyMap(table(spec, "affinity"))
	affinity["nodeAffinity"] = map[string]any{"requiredDuringSchedulingIgnoredDuringExecution": map[string]any{
		"nodeSelectorTerms": []any{map[string]any{"matchFields": []any{map[string]any{
			"key": "metadata.name", "operator": "In", "values": []any{node},
		}}}},
	}}
	out["affinity"] = affinity
	return out
}

// nodeOf is the node that a DaemonSet's pod runs on or is meant for.
func nodeOf(pod *unstructured.Unstructured) string {
	if n := text(pod.Object, "spec", "nodeName"); n != "" {
		return n
	}
	return pinnedNode(table(pod.Object, "spec"))
}

func (d *daemon) isNew(p *unstructured.Unstructured) bool {
	return text(p.Object, "metadata", "labels", labelRevision) == d.hash
}

func (d *daemon) isAvailable(p *unstructured.Unstructured) bool {
	ok, wait := available(p, d.minReady, d.w.Now())
	d.wait = sooner(d.wait, wait)
	return ok
}

// place makes the missing pods and deletes those of nodes that should have
// none. A node whose pod is still terminating waits for it.
func (d *daemon) place() error {
	wanted := map[string]bool{}
	for _, n := range d.nodes {
		wanted[n] = true
		living := 0
		for _, p := range d.pods[n] {
			if finished(p) && !deleting(p) {
				if err := deletePod(d.w, d.set, p); err != nil {
					return err
				}
				continue
			}
			living++
		}
		if living == 0 {
			if err := d.create(n); err != nil {
				return err
			}
		}
	}
	for _, node := range sortedKeys(d.pods) {
		for _, p := range d.pods[node] {
			if wanted[node] || deleting(p) {
				continue
			}
			if err := deletePod(d.w, d.set, p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *daemon) create(node string) error {
	pod := daemonPod(d.set, d.hash, d.w.Name(d.set.GetName()+"-"), node)
	_, err := createPod(d.w, d.set, pod, d.set.GetName()+"-")
	return err
}

func daemonPod(set *unstructured.Unstructured, hash, name, node string) *unstructured.Unstructured {
	pod := podFrom(set, table(set.Object, "spec", "template"), name, map[string]string{
		labelRevision:             hash,
		"pod-template-generation": decimal(number(set.Object, 1, "metadata", "generation")),
	})
	pod.Object["spec"] = daemonSpec(table(pod.Object, "spec"), node)
	return pod
}

// limits resolves maxSurge and maxUnavailable; both are rounded up for
// DaemonSets.
func (d *daemon) limits() (surge, unavailable int64) {
	rolling := at(d.set.Object, "spec", "updateStrategy", "rollingUpdate")
	total := int64(len(d.nodes))
	surge = scaled(at(rolling, "maxSurge"), total, true, 0)
	unavailable = scaled(at(rolling, "maxUnavailable"), total, true, 1)
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, unavailable
}

func (d *daemon) roll() error {
	surge, unavailable := d.limits()
	if surge > 0 {
		return d.rollWithSurge(surge, unavailable)
	}
	return d.rollInPlace(unavailable)
}

// rollInPlace deletes outdated pods: those that are not available at once,
// the others as far as maxUnavailable allows.
func (d *daemon) rollInPlace(unavailable int64) error {
	var down int64
	var sick, fine []*unstructured.Unstructured
	for _, n := range d.nodes {
		oldPod, newPod := d.pair(n)
		switch {
		case newPod != nil:
			if !d.isAvailable(newPod) {
				down++
			}
		case oldPod == nil:
			down++
		case d.isAvailable(oldPod):
			fine = append(fine, oldPod)
		default:
			down++
			sick = append(sick, oldPod)
		}
	}
	room := min(max(0, unavailable-down), int64(len(fine)))
	return d.drop(append(sick, fine[:room]...))
}

// rollWithSurge makes the new pod beside the old one, and deletes the old one
// when the new one is available.
func (d *daemon) rollWithSurge(surge, unavailable int64) error {
	var extra, down int64
	var drop []*unstructured.Unstructured
	var grow []string
	for _, n := range d.nodes {
		oldPod, newPod := d.pair(n)
		switch {
		case oldPod == nil:
			if newPod == nil || !d.isAvailable(newPod) {
				down++
			}
		case newPod == nil && d.isAvailable(oldPod):
			grow = append(grow, n)
		case newPod == nil:
			grow = append([]string{n}, grow...)
			down++
		case d.isAvailable(newPod):
			drop = append(drop, oldPod)
		default:
			extra++
			if !d.isAvailable(oldPod) {
				drop = append(drop, oldPod)
				down++
			}
		}
	}
	if err := d.drop(drop); err != nil {
		return err
	}
	for _, n := range grow[:min(max(0, surge-extra), int64(len(grow)))] {
		if err := d.create(n); err != nil {
			return err
		}
	}
	return nil
}

// pair is the outdated and the present pod of a node; a pod that is being
// deleted is neither.
func (d *daemon) pair(node string) (oldPod, newPod *unstructured.Unstructured) {
	for _, p := range d.pods[node] {
		switch {
		case !active(p):
		case d.isNew(p):
			newPod = p
		default:
			oldPod = p
		}
	}
	return oldPod, newPod
}

func (d *daemon) drop(pods []*unstructured.Unstructured) error {
	for _, p := range pods {
		if deleting(p) {
			continue
		}
		if err := deletePod(d.w, d.set, p); err != nil {
			return err
		}
	}
	return nil
}

func (d *daemon) writeStatus() time.Duration {
	var scheduled, updated, nReady, nAvailable, misplaced int64
	wanted := map[string]bool{}
	for _, n := range d.nodes {
		wanted[n] = true
		if len(d.pods[n]) == 0 {
			continue
		}
		scheduled++
		pod := d.pods[n][0] // the oldest stands for its node, also while it ends and beside one of a surge
		if d.isNew(pod) {
			updated++
		}
		// One that ends counts until its containers are gone: beside it, in a
		// surge, another one is ready.
		if isTrue(pod, "Ready") {
			nReady++
			if deleting(pod) || d.isAvailable(pod) {
				nAvailable++
			}
		}
	}
	for n := range d.pods {
		if !wanted[n] {
			misplaced++
		}
	}
	desired := int64(len(d.nodes))
	status := map[string]any{
		"currentNumberScheduled": scheduled, "desiredNumberScheduled": desired,
		"numberMisscheduled": misplaced, "numberReady": nReady,
		"observedGeneration": number(d.set.Object, 0, "metadata", "generation"),
	}
	setCount(status, "updatedNumberScheduled", updated)
	setCount(status, "numberAvailable", nAvailable)
	setCount(status, "numberUnavailable", desired-nAvailable)
	again := setStatus(d.w, d.set, status)
	if err := d.history.trim(d.w, int(number(d.set.Object, 10, "spec", "revisionHistoryLimit")), d.used); err != nil {
		again = sooner(again, retryDelay)
	}
	return sooner(again, d.wait)
}
