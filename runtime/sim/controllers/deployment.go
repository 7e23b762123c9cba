package controllers

import (
	"fmt"
	"sort"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

const (
	annotationRevision = "deployment.kubernetes.io/revision"
	annotationDesired  = "deployment.kubernetes.io/desired-replicas"
	annotationMax      = "deployment.kubernetes.io/max-replicas"
	labelTemplateHash  = "pod-template-hash"
)

// deploymentController rolls Deployments by scaling their ReplicaSets.
type deploymentController struct{}

func (deploymentController) Name() string { return "deployment-controller" }

func (deploymentController) Watches() []schema.GroupResource {
	return []schema.GroupResource{grDeployments, grReplicaSets, grPods}
}

func (c deploymentController) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	switch gr {
	case grDeployments:
		return c.sync(w, w.Get(gr, namespace, name))
	case grReplicaSets:
		// A change of a set calls for its Deployment by itself. A change of a
		// pod comes here, and concerns those that wait for old pods to go.
		owner := controllerOf(orNothing(w.Get(gr, namespace, name)))
		d := w.Get(grDeployments, namespace, text(owner, "name"))
		if d != nil && uidOf(d) == text(owner, "uid") && text(d.Object, "spec", "strategy", "type") == "Recreate" {
			c.sync(w, d) // what it has to retry, the Deployment's own call retries
		}
	}
	return 0
}

func (deploymentController) sync(w sim.World, d *unstructured.Unstructured) time.Duration {
	if d == nil {
		return 0
	}
	r := newRollout(w, d)
	if !deleting(d) {
		r.reconcile()
	}
	return r.writeStatus()
}

// rollout is one look at a Deployment and its ReplicaSets. It is rebuilt from
// the stored objects at every Sync.
type rollout struct {
	w       sim.World
	d       *unstructured.Unstructured
	sets    []*unstructured.Unstructured // all, oldest first
	current *unstructured.Unstructured   // the set of the present template, or nil
	failed  error
	created bool // current was made by this Sync

	replicas, surge, unavailable int64
}

func newRollout(w sim.World, d *unstructured.Unstructured) *rollout {
	r := &rollout{w: w, d: d, replicas: number(d.Object, 1, "spec", "replicas")}
	r.surge, r.unavailable = rolloutLimits(d)
	r.load()
	return r
}

// rolloutLimits resolves maxSurge (rounded up) and maxUnavailable (rounded
// down) of a Deployment; when both come to zero one pod may be unavailable, as
// otherwise no rollout could proceed. Recreate has neither.
func rolloutLimits(d *unstructured.Unstructured) (surge, unavailable int64) {
	replicas := number(d.Object, 1, "spec", "replicas")
	if text(d.Object, "spec", "strategy", "type") == "Recreate" || replicas == 0 {
		return 0, 0
	}
	strategy := at(d.Object, "spec", "strategy", "rollingUpdate")
	quarter := func(up bool) int64 { return scaled("25%", replicas, up, 0) }
	surge = scaled(at(strategy, "maxSurge"), replicas, true, quarter(true))
	unavailable = scaled(at(strategy, "maxUnavailable"), replicas, false, quarter(false))
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, min(unavailable, replicas)
}

// load reads the ReplicaSets again, after they were changed.
func (r *rollout) load() {
	sets := r.w.Owned(grReplicaSets, r.d.GetNamespace(), uidOf(r.d))
	r.sets = r.sets[:0]
	for _, s := range sets {
		if !deleting(s) {
			r.sets = append(r.sets, s)
		}
	}
	sort.Slice(r.sets, func(i, j int) bool { return olderFirst(r.sets[i], r.sets[j]) < 0 })
	r.current = r.matching()
}

// matching finds the oldest ReplicaSet of the present template: by comparing
// templates, as the real controller does, and by the hash in its label, which
// still recognises it when defaults were filled in on one side only.
func (r *rollout) matching() *unstructured.Unstructured {
	template := table(r.d.Object, "spec", "template")
	hash := hashOf(r.d)
	for _, s := range r.sets {
		if text(s.Object, "metadata", "labels", labelTemplateHash) == hash {
			return s
		}
	}
	for _, s := range r.sets {
		if equal(plainTemplate(table(s.Object, "spec", "template")), plainTemplate(template)) {
			return s
		}
	}
	return nil
}

// plainTemplate is a pod template without the hash label and without the
// empty creationTimestamp that Go clients write.
func plainTemplate(t map[string]any) map[string]any {
	out, meta := copyMap(t), copyMap(table(t, "metadata"))
	delete(meta, "creationTimestamp")
	labels := copyMap(table(meta, "labels"))
	delete(labels, labelTemplateHash)
	meta["labels"] = labels
	out["metadata"] = meta
	return out
}

func hashOf(d *unstructured.Unstructured) string {
	return templateHash(plainTemplate(table(d.Object, "spec", "template")), number(d.Object, 0, "status", "collisionCount"))
}

func (r *rollout) old() []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	for _, s := range r.sets {
		if r.current == nil || uidOf(s) != uidOf(r.current) {
			out = append(out, s)
		}
	}
	return out
}

func wanted(s *unstructured.Unstructured) int64 { return number(s.Object, 1, "spec", "replicas") }

func totalWanted(sets []*unstructured.Unstructured) (n int64) {
	for _, s := range sets {
		n += wanted(s)
	}
	return n
}

func totalStatus(sets []*unstructured.Unstructured, field string) (n int64) {
	for _, s := range sets {
		n += number(s.Object, 0, "status", field)
	}
	return n
}

// reconcile takes the steps that are open at this instant. Every change of a
// ReplicaSet brings the Deployment back here, so one step at a time is enough.
func (r *rollout) reconcile() {
	paused := flag(r.d.Object, "spec", "paused")
	if paused {
		r.syncRevision(false)
		r.scale()
		return
	}
	r.syncRevision(true)
	if r.current == nil {
		return
	}
	if r.rescaled() {
		r.scale()
		return
	}
	if text(r.d.Object, "spec", "strategy", "type") == "Recreate" {
		r.recreate()
	} else {
		r.roll()
	}
	if r.complete() {
		r.prune()
	}
}

// rescaled reports whether spec.replicas changed since the sets were sized.
func (r *rollout) rescaled() bool {
	for _, s := range r.sets {
		desired := annotationOf(s, annotationDesired)
		if wanted(s) > 0 && desired != "" && desired != strconv.FormatInt(r.replicas, 10) {
			return true
		}
	}
	return false
}

// recreate waits until every old pod is gone before it makes new ones.
func (r *rollout) recreate() {
	for _, s := range r.old() {
		if wanted(s) > 0 {
			r.resize(s, 0)
		}
	}
	for _, s := range r.old() {
		for _, p := range r.w.Owned(grPods, s.GetNamespace(), uidOf(s)) {
			if !finished(p) {
				return
			}
		}
	}
	r.resize(r.current, r.replicas)
}

// roll takes one step of a rolling update: up within the surge, or down
// within what may be unavailable.
func (r *rollout) roll() {
	if target := r.newSize(); target != wanted(r.current) {
		r.resize(r.current, target)
		return
	}
	r.shrinkOld()
}

// newSize is how large the current set may be now.
func (r *rollout) newSize() int64 {
	have := wanted(r.current)
	if have >= r.replicas {
		return r.replicas
	}
	room := r.replicas + r.surge - totalWanted(r.sets)
	if room <= 0 {
		return have
	}
	return have + min(room, r.replicas-have)
}

// shrinkOld removes old pods: those that are not available first, then
// available ones down to the minimum that must stay available.
func (r *rollout) shrinkOld() {
	old := r.old()
	if totalWanted(old) == 0 {
		return
	}
	minAvailable := r.replicas - r.unavailable
	newUnavailable := wanted(r.current) - number(r.current.Object, 0, "status", "availableReplicas")
	budget := totalWanted(r.sets) - minAvailable - newUnavailable
	if budget <= 0 {
		return
	}
	sizes := map[string]int64{}
	for _, s := range old {
		sizes[uidOf(s)] = wanted(s)
	}
	for _, s := range old {
		sick := wanted(s) - number(s.Object, 0, "status", "availableReplicas")
		n := min(budget, sick, wanted(s))
		if n <= 0 {
			continue
		}
		sizes[uidOf(s)] -= n
		budget -= n
	}
	spare := totalStatus(r.sets, "availableReplicas") - minAvailable
	for _, s := range old {
		n := min(spare, sizes[uidOf(s)])
		if n <= 0 {
			continue
		}
		sizes[uidOf(s)] -= n
		spare -= n
	}
	for _, s := range old {
		r.resize(s, sizes[uidOf(s)])
	}
}

// resize sets a ReplicaSet's size and the annotations that record for which
// size of the Deployment that was.
func (r *rollout) resize(s *unstructured.Unstructured, n int64) {
	desired, most := strconv.FormatInt(r.replicas, 10), strconv.FormatInt(r.replicas+r.surge, 10)
	have := wanted(s)
	if have == n && annotationOf(s, annotationDesired) == desired && annotationOf(s, annotationMax) == most {
		return
	}
	next := edit(s)
	table(next.Object, "spec")["replicas"] = n
	annotate(next, annotationDesired, desired)
	annotate(next, annotationMax, most)
	if err := r.w.Update(next); err != nil {
		r.failed = err
		return
	}
	r.announce(s.GetName(), have, n)
	r.load()
}

func (r *rollout) announce(set string, from, to int64) {
	switch {
	case to > from:
		r.w.Event(r.d, eventNormal, "ScalingReplicaSet", fmt.Sprintf("Scaled up replica set %s from %d to %d", set, from, to))
	case to < from:
		r.w.Event(r.d, eventNormal, "ScalingReplicaSet", fmt.Sprintf("Scaled down replica set %s from %d to %d", set, from, to))
	}
}

// annotate sets an annotation on an object made by edit.
func annotate(obj *unstructured.Unstructured, key, value string) {
	meta := table(obj.Object, "metadata")
	a := copyMap(table(meta, "annotations"))
	a[key] = value
	meta["annotations"] = a
}

// prune deletes old, empty ReplicaSets beyond the revision history limit.
func (r *rollout) prune() {
	limit := number(r.d.Object, 10, "spec", "revisionHistoryLimit")
	var empty []*unstructured.Unstructured
	old := r.old()
	sort.SliceStable(old, func(i, j int) bool { return revisionOf(old[i]) < revisionOf(old[j]) })
	for _, s := range old {
		if wanted(s) == 0 && number(s.Object, 0, "status", "replicas") == 0 {
			empty = append(empty, s)
		}
	}
	for i := 0; i < len(empty)-int(limit); i++ {
		if err := r.w.Delete(grReplicaSets, empty[i].GetNamespace(), empty[i].GetName()); err != nil {
			r.failed = err
		}
	}
}
