package controllers

import (
	"maps"
	"sort"
	"strconv"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// syncRevision finds the ReplicaSet of the present template, makes it when
// there is none, and keeps the revision annotations.
func (r *rollout) syncRevision(create bool) {
	var newest int64
	for _, s := range r.old() {
		newest = max(newest, revisionOf(s))
	}
	if r.current == nil {
		if create {
			r.make(newest + 1)
		}
		return
	}
	revision := revisionOf(r.current)
	if revision <= newest {
		revision = newest + 1
	}
	r.refresh(revision)
	r.annotateDeployment(revision)
}

func revisionOf(obj *unstructured.Unstructured) int64 {
	n, err := strconv.ParseInt(annotationOf(obj, annotationRevision), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// refresh brings revision, minReadySeconds and copied annotations of the
// current set up to date.
func (r *rollout) refresh(revision int64) {
	next := edit(r.current)
	annotate(next, annotationRevision, strconv.FormatInt(revision, 10))
	if before := annotationOf(r.current, annotationRevision); before != "" && before != strconv.FormatInt(revision, 10) {
		history := annotationOf(r.current, annotationRevision+"-history")
		if history != "" {
			before = history + "," + before
		}
		annotate(next, annotationRevision+"-history", before)
	}
	for k, v := range r.inherited() {
		annotate(next, k, v)
	}
	spec := table(next.Object, "spec")
	if n := number(r.d.Object, 0, "spec", "minReadySeconds"); n != number(spec, 0, "minReadySeconds") {
		spec["minReadySeconds"] = n
	}
	if equal(next.Object, r.current.Object) {
		return
	}
	if err := r.w.Update(next); err != nil {
		r.failed = err
		return
	}
	r.load()
}

// inherited are the annotations that a Deployment hands down to its
// ReplicaSets.
func (r *rollout) inherited() map[string]string {
	out := map[string]string{}
	maps.Copy(out, r.d.GetAnnotations())
	for _, k := range []string{
		"kubectl.kubernetes.io/last-applied-configuration", annotationRevision,
		annotationRevision + "-history", annotationDesired, annotationMax,
		"deprecated.deployment.rollback.to",
	} {
		delete(out, k)
	}
	return out
}

func (r *rollout) annotateDeployment(revision int64) {
	text := strconv.FormatInt(revision, 10)
	if annotationOf(r.d, annotationRevision) == text {
		return
	}
	next := edit(r.d)
	annotate(next, annotationRevision, text)
	if err := r.w.Update(next); err != nil {
		r.failed = err
		return
	}
	if d := r.w.Get(grDeployments, r.d.GetNamespace(), r.d.GetName()); d != nil {
		r.d = d
	}
}

// make creates the ReplicaSet of the present template, already as large as
// the strategy allows.
func (r *rollout) make(revision int64) {
	hash := hashOf(r.d)
	template := hashedTemplate(r.d, hash)
	labels := table(template, "metadata", "labels")
	selector, _ := deepCopy(table(r.d.Object, "spec", "selector")).(map[string]any)
	match := copyMap(table(selector, "matchLabels"))
	match[labelTemplateHash] = hash
	if selector == nil {
		selector = map[string]any{}
	}
	selector["matchLabels"] = match

	size := r.firstSize()
	annotations := map[string]any{
		annotationRevision: strconv.FormatInt(revision, 10),
		annotationDesired:  strconv.FormatInt(r.replicas, 10),
		annotationMax:      strconv.FormatInt(r.replicas+r.surge, 10),
	}
	for k, v := range r.inherited() {
		annotations[k] = v
	}
	spec := map[string]any{"replicas": size, "selector": selector, "template": template}
	setCount(spec, "minReadySeconds", number(r.d.Object, 0, "spec", "minReadySeconds"))
	name := r.d.GetName() + "-" + hash
	_, err := r.w.Create(&unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "ReplicaSet",
		"metadata": map[string]any{
			"name": name, "namespace": r.d.GetNamespace(),
			"labels": copyMap(labels), "annotations": annotations, "ownerReferences": ownedBy(r.d),
		},
		"spec": spec,
	}})
	if err != nil {
		r.w.Event(r.d, eventWarning, "ReplicaSetCreateError", "Failed to create new replica set \""+name+"\": "+reasonOf(err))
		r.failed = err
		return
	}
	r.announce(name, 0, size)
	r.created = true
	r.load()
	r.annotateDeployment(revision)
}

// hashedTemplate is a Deployment's pod template as its ReplicaSet has it.
func hashedTemplate(d *unstructured.Unstructured, hash string) map[string]any {
	template, _ := deepCopy(table(d.Object, "spec", "template")).(map[string]any)
	meta := copyMap(table(template, "metadata"))
	labels := copyMap(table(meta, "labels"))
	labels[labelTemplateHash] = hash
	meta["labels"] = labels
	template["metadata"] = meta
	return template
}

// firstSize is the size of a new set that joins the existing ones.
func (r *rollout) firstSize() int64 {
	if text(r.d.Object, "spec", "strategy", "type") == "Recreate" {
		if totalWanted(r.sets) > 0 {
			return 0
		}
		return r.replicas
	}
	return max(0, min(r.replicas, r.replicas+r.surge-totalWanted(r.sets)))
}

// scale follows a change of spec.replicas: a single active set takes it all,
// several share it in proportion to their size, within the surge.
func (r *rollout) scale() {
	activeSets := r.active()
	switch {
	case len(activeSets) == 1:
		r.resize(activeSets[0], r.replicas)
	case len(activeSets) == 0:
		if last := r.latest(); last != nil {
			r.resize(last, r.replicas)
		}
	case r.saturated():
		for _, s := range r.old() {
			r.resize(s, 0)
		}
	default:
		r.share(activeSets)
	}
}

func (r *rollout) active() []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	for _, s := range r.sets {
		if wanted(s) > 0 {
			out = append(out, s)
		}
	}
	return out
}

func (r *rollout) latest() *unstructured.Unstructured {
	if r.current != nil {
		return r.current
	}
	if len(r.sets) == 0 {
		return nil
	}
	return r.sets[len(r.sets)-1]
}

// saturated reports whether the current set alone serves the Deployment.
func (r *rollout) saturated() bool {
	return r.current != nil && wanted(r.current) == r.replicas &&
		annotationOf(r.current, annotationDesired) == strconv.FormatInt(r.replicas, 10) &&
		number(r.current.Object, 0, "status", "availableReplicas") == r.replicas
}

// share spreads a change of size over several sets in proportion, the
// remainder going to the largest, the newest among equals.
func (r *rollout) share(sets []*unstructured.Unstructured) {
	allowed := int64(0)
	if r.replicas > 0 {
		allowed = r.replicas + r.surge
	}
	missing := allowed - totalWanted(sets)
	sorted := append([]*unstructured.Unstructured(nil), sets...)
	sort.SliceStable(sorted, func(i, j int) bool {
		if a, b := wanted(sorted[i]), wanted(sorted[j]); a != b {
			return a > b
		}
		if missing > 0 {
			return olderFirst(sorted[j], sorted[i]) < 0
		}
		return olderFirst(sorted[i], sorted[j]) < 0
	})
	left := missing
	sizes := make([]int64, len(sorted))
	for i, s := range sorted {
		part := proportion(s, r.replicas, r.surge, missing, left)
		left -= part
		sizes[i] = wanted(s) + part
	}
	sizes[0] = max(0, sizes[0]+left)
	for i, s := range sorted {
		r.resize(s, sizes[i])
	}
}

// proportion is a set's part of missing (or, when negative, surplus) pods.
func proportion(s *unstructured.Unstructured, replicas, surge, missing, left int64) int64 {
	if wanted(s) == 0 || missing == 0 || left == 0 {
		return 0
	}
	most, err := strconv.ParseInt(annotationOf(s, annotationMax), 10, 64)
	if err != nil || most == 0 {
		most = number(s.Object, replicas, "status", "replicas")
	}
	if most == 0 {
		return 0
	}
	part := (wanted(s)*(replicas+surge)*2+most)/(2*most) - wanted(s) // rounded to the nearest
	if missing > 0 {
		return min(part, left)
	}
	return max(part, left)
}
