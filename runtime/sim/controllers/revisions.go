package controllers

import (
	"sort"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/sim"
)

const labelRevision = "controller-revision-hash"

// history is what a StatefulSet or DaemonSet keeps of its pod templates.
type history struct {
	all    []*unstructured.Unstructured // ControllerRevisions, by revision number
	update *unstructured.Unstructured   // the one of the present template
}

// syncHistory finds or makes the ControllerRevision of owner's template. A
// template that was there before gets the highest number again, as a rollback
// does.
func syncHistory(w sim.World, owner *unstructured.Unstructured, hashLabel string) (history, error) {
	data := revisionData(owner)
	h := loadHistory(w, owner)
	next := int64(1)
	if n := len(h.all); n > 0 {
		next = number(h.all[n-1].Object, 0, "revision") + 1
	}
	for _, r := range h.all {
		if !equal(at(r.Object, "data"), data) {
			continue
		}
		if number(r.Object, 0, "revision") == next-1 {
			h.update = r
			return h, nil
		}
		changed := edit(r)
		changed.Object["revision"] = next
		if err := w.Update(changed); err != nil {
			return h, err
		}
		h = loadHistory(w, owner)
		h.update = h.all[len(h.all)-1]
		return h, nil
	}
	hash := revisionHash(owner)
	labels := copyMap(table(owner.Object, "spec", "template", "metadata", "labels"))
	labels[hashLabel] = hash
	made, err := w.Create(&unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "ControllerRevision",
		"metadata": map[string]any{
			"name": revisionName(owner, hash), "namespace": owner.GetNamespace(),
			"labels": labels, "ownerReferences": ownedBy(owner),
		},
		"data": data, "revision": next,
	}})
	if err != nil {
		return h, err
	}
	h.all, h.update = append(h.all, made), made
	return h, nil
}

func loadHistory(w sim.World, owner *unstructured.Unstructured) history {
	all := append([]*unstructured.Unstructured(nil), w.Owned(grRevisions, owner.GetNamespace(), uidOf(owner))...)
	sort.SliceStable(all, func(i, j int) bool {
		return number(all[i].Object, 0, "revision") < number(all[j].Object, 0, "revision")
	})
	return history{all: all}
}

// revisionData is what a ControllerRevision stores: a patch that sets the
// pod template.
func revisionData(owner *unstructured.Unstructured) map[string]any {
	template, _ := deepCopy(table(owner.Object, "spec", "template")).(map[string]any)
	if template == nil {
		template = map[string]any{}
	}
	template["$patch"] = "replace"
	return map[string]any{"spec": map[string]any{"template": template}}
}

// revisionHash tells the revision of the present template from others.
func revisionHash(owner *unstructured.Unstructured) string {
	return templateHash(revisionData(owner), number(owner.Object, 0, "status", "collisionCount"))
}

func revisionName(owner *unstructured.Unstructured, hash string) string {
	return owner.GetName() + "-" + hash
}

// named finds a revision by name, or nil.
func (h history) named(name string) *unstructured.Unstructured {
	for _, r := range h.all {
		if r.GetName() == name {
			return r
		}
	}
	return nil
}

// templateOf is the pod template that a revision holds.
func templateOf(revision *unstructured.Unstructured) map[string]any {
	t := copyMap(table(revision.Object, "data", "spec", "template"))
	delete(t, "$patch")
	return t
}

// trim deletes the oldest revisions beyond the limit that no pod uses.
func (h history) trim(w sim.World, limit int, used map[string]bool) error {
	var idle []*unstructured.Unstructured
	for _, r := range h.all {
		if !used[r.GetName()] && r != h.update {
			idle = append(idle, r)
		}
	}
	for i := 0; i < len(idle)-limit; i++ {
		if err := w.Delete(grRevisions, idle[i].GetNamespace(), idle[i].GetName()); err != nil {
			return err
		}
	}
	return nil
}
