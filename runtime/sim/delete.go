package sim

import (
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// deleteOptions say how an object is to go.
type deleteOptions struct {
	dryRun      bool
	propagation metav1.DeletionPropagation // Background when empty
	uid         string                     // preconditions, "" for none
	rv          string
	grace       *int64 // seconds; nil for the object's own
	user        *User
	controller  bool
	warnings    *[]string
}

// delete removes an object, or marks it when finalizers or a grace period hold
// it, and returns its last state.
func (c *Cluster) delete(gr schema.GroupResource, ns, name string, o deleteOptions) (last *unstructured.Unstructured, err error) {
	if c.reg.byName[gr] == nil {
		return nil, errNotServed()
	}
	k := objectKey{gr, ns, name}
	c.st.needDependents(k)
	c.needContents(k)
	e := c.st.get(k)
	if e == nil {
		return nil, apierrors.NewNotFound(gr, name)
	}
	if o.uid != "" && o.uid != string(e.obj.GetUID()) {
		return nil, apierrors.NewConflict(schema.GroupResource{Group: gr.Group, Resource: c.reg.byName[gr].kind}, name, fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", o.uid, e.obj.GetUID()))
	}
	if o.rv != "" && o.rv != e.obj.GetResourceVersion() {
		return nil, apierrors.NewConflict(schema.GroupResource{Group: gr.Group, Resource: c.reg.byName[gr].kind}, name, fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", o.rv, e.obj.GetResourceVersion()))
	}
	if gr == grNamespaces && slices.Contains([]string{"default", "kube-system", "kube-public"}, name) {
		return nil, apierrors.NewForbidden(gr, name, fmt.Errorf("this namespace may not be deleted"))
	}
	if err := c.admitDelete(c.reg.byName[gr], e.obj, writeOptions{user: o.user, controller: o.controller, dryRun: o.dryRun, warnings: o.warnings}); err != nil {
		return nil, err
	}
	if err := c.writable(); err != nil {
		return nil, err
	}
	grace, pending := gracePeriod(k.gr, e.obj, o.grace)
	if pending {
		return e.obj, nil // it is going, and no sooner for this request
	}
	finalizers := slices.Clone(e.obj.GetFinalizers())
	if o.propagation == "" && orphansByDefault(gr) {
		o.propagation = metav1.DeletePropagationOrphan
	}
	add := map[metav1.DeletionPropagation]string{
		metav1.DeletePropagationForeground: metav1.FinalizerDeleteDependents, metav1.DeletePropagationOrphan: metav1.FinalizerOrphanDependents,
	}[o.propagation]
	if add != "" && !slices.Contains(finalizers, add) {
		finalizers = append(finalizers, add)
	}
	if o.dryRun {
		if len(finalizers) > 0 || k.gr == grPods || k.gr == grNamespaces {
			return c.marked(k, e, finalizers, grace), nil
		}
		return e.obj, nil
	}
	if len(finalizers) == 0 && k.gr != grPods && c.emptied(k) {
		return c.drop(k), nil
	}
	if e.obj.GetDeletionTimestamp() == nil || leaving(e.obj) || len(finalizers) != len(e.obj.GetFinalizers()) {
		e = c.mark(k, e, finalizers, grace)
	}
	marked := e.obj
	c.continueDeletion(k)
	if now := c.st.get(k); now != nil && !collects(o.propagation, gr) {
		return now.obj, nil
	}
	return marked, nil
}

// orphansByDefault reports whether a deletion that says nothing of dependents
// leaves them (DefaultGarbageCollectionPolicy of the oldest kinds).
func orphansByDefault(gr schema.GroupResource) bool {
	return gr == schema.GroupResource{Resource: "replicationcontrollers"} || gr == schema.GroupResource{Group: "batch", Resource: "jobs"}
}

// collects reports whether the garbage collector has a part in the deletion: the
// request is answered with the marked object before the collector acts.
func collects(p metav1.DeletionPropagation, gr schema.GroupResource) bool {
	return p == metav1.DeletePropagationForeground || p == metav1.DeletePropagationOrphan || p == "" && orphansByDefault(gr)
}

// mark sets the deletion timestamp, the moment at which the grace period (in
// seconds) ends, or moves it when the period became shorter. The object goes
// when the kubelet has ended it and its finalizers have gone.
func (c *Cluster) mark(k objectKey, e *entry, finalizers []string, grace int64) *entry {
	return c.commit(k, c.marked(k, e, finalizers, grace)).next
}

func (c *Cluster) marked(k objectKey, e *entry, finalizers []string, grace int64) *unstructured.Unstructured {
	next := shallow(e.obj)
	asked := c.now
	if t := next.GetDeletionTimestamp(); t != nil {
		asked = t.Add(-time.Duration(graceOf(next)) * time.Second)
	} else if g := next.GetGeneration(); g > 0 {
		next.SetGeneration(g + 1)
	}
	setMeta(next, "deletionTimestamp", asked.Add(time.Duration(grace)*time.Second).UTC().Format(time.RFC3339))
	setMeta(next, "deletionGracePeriodSeconds", grace)
	if len(finalizers) > 0 {
		next.SetFinalizers(finalizers)
	}
	if k.gr == grNamespaces {
		next.Object["status"] = map[string]any{"phase": "Terminating"}
	}
	return next
}

// emptied reports whether nothing but finalizers keeps the object: a namespace
// must have no contents left and a CustomResourceDefinition no instances.
func (c *Cluster) emptied(k objectKey) bool {
	switch k.gr {
	case grNamespaces:
		for gr, t := range c.st.tables {
			if r := c.reg.byName[gr]; r != nil && r.namespaced && len(t.span(k.name)) > 0 {
				return false
			}
		}
	case grCRDs:
		if r := c.definedBy(k); r != nil {
			return len(c.st.table(r.gr()).keys) == 0
		}
	}
	return true
}

// continueDeletion does what the garbage collector and the namespace
// controller do for a marked object, and removes it when nothing holds it.
func (c *Cluster) continueDeletion(k objectKey) {
	e := c.st.get(k)
	if e == nil || e.obj.GetDeletionTimestamp() == nil {
		return
	}
	switch k.gr {
	case grNamespaces:
		for _, key := range c.allKeys() {
			if r := c.reg.byName[key.gr]; key.namespace == k.name && r != nil && r.namespaced {
				c.reap(key)
			}
		}
	case grCRDs:
		if r := c.definedBy(k); r != nil {
			for _, key := range slices.Clone(c.st.table(r.gr()).keys) {
				c.reap(objectKey{r.gr(), key.namespace, key.name})
			}
		}
	}
	if slices.Contains(e.obj.GetFinalizers(), metav1.FinalizerOrphanDependents) {
		c.orphan(string(e.obj.GetUID()))
		e = c.finished(k, metav1.FinalizerOrphanDependents)
	}
	if e != nil && slices.Contains(e.obj.GetFinalizers(), metav1.FinalizerDeleteDependents) {
		uid := string(e.obj.GetUID())
		for _, d := range c.st.dependents(uid) {
			c.disown(d, uid)
		}
		if e = c.st.get(k); e != nil && len(c.st.dependents(uid)) == 0 {
			c.finished(k, metav1.FinalizerDeleteDependents)
		}
	}
	if e = c.st.get(k); e != nil && len(e.obj.GetFinalizers()) == 0 && !leaving(e.obj) && c.emptied(k) {
		c.drop(k)
	}
}

// finished takes the garbage collector's finalizer from an object.
func (c *Cluster) finished(k objectKey, finalizer string) *entry {
	next := c.st.get(k).obj.DeepCopy()
	rest := slices.DeleteFunc(next.GetFinalizers(), func(f string) bool { return f == finalizer })
	if len(rest) == 0 {
		unstructured.RemoveNestedField(next.Object, "metadata", "finalizers")
	} else {
		next.SetFinalizers(rest)
	}
	return c.commit(k, next).next
}

// reap deletes an object on behalf of a controller, with the grace period of
// its own; finalizers still hold it.
func (c *Cluster) reap(k objectKey) {
	e := c.st.get(k)
	if e == nil {
		return
	}
	grace, pending := gracePeriod(k.gr, e.obj, nil)
	switch {
	case pending || (e.obj.GetDeletionTimestamp() != nil && len(e.obj.GetFinalizers()) > 0):
	case len(e.obj.GetFinalizers()) == 0 && k.gr != grPods && c.emptied(k):
		c.drop(k)
	default:
		c.mark(k, e, nil, grace)
		c.continueDeletion(k)
	}
}

// collect is garbage collection after a removal: dependents whose last owner
// went go too, and what waited for the removal goes on.
func (c *Cluster) collect(ch change) {
	uid := string(ch.prev.obj.GetUID())
	for _, d := range c.st.dependents(uid) {
		c.disown(d, uid)
	}
	for _, o := range ch.prev.obj.GetOwnerReferences() {
		if k, ok := c.refKey(o, ch.key.namespace); ok {
			c.continueDeletion(k)
		}
	}
	if ch.key.namespace != "" {
		if ns := c.st.get(objectKey{grNamespaces, "", ch.key.namespace}); ns != nil && ns.obj.GetDeletionTimestamp() != nil {
			k := objectKey{grNamespaces, "", ch.key.namespace}
			if len(ns.obj.GetFinalizers()) == 0 && c.emptied(k) {
				c.drop(k)
			}
		}
	}
	if r := c.reg.byName[ch.key.gr]; r != nil && r.crd != nil {
		c.continueDeletion(objectKey{grCRDs, "", r.plural + "." + r.group})
	}
}

// collectOrphan deletes an object whose owners are all gone, as the garbage
// collector does with one that was created too late.
func (c *Cluster) collectOrphan(k objectKey) {
	e := c.st.get(k)
	if e == nil || len(e.obj.GetOwnerReferences()) == 0 {
		return
	}
	for _, o := range e.obj.GetOwnerReferences() {
		key, known := c.refKey(o, k.namespace)
		if !known {
			return // of a kind that is not served: nothing can be said of it
		}
		if owner := c.st.get(key); owner != nil && owner.obj.GetUID() == o.UID {
			return
		}
	}
	c.reap(k)
}

// disown takes one owner from a dependent, and deletes it when that was the
// last one.
func (c *Cluster) disown(k objectKey, uid string) {
	e := c.st.get(k)
	if e == nil {
		return
	}
	var rest []metav1.OwnerReference
	for _, o := range e.obj.GetOwnerReferences() {
		if string(o.UID) == uid {
			continue
		}
		if ok, known := c.refKey(o, k.namespace); known {
			if owner := c.st.get(ok); owner != nil && owner.obj.GetUID() == o.UID {
				rest = append(rest, o)
			}
		}
	}
	if len(rest) == 0 {
		c.reapWith(k, e, uid)
		return
	}
	next := e.obj.DeepCopy()
	next.SetOwnerReferences(rest)
	c.commit(k, next)
}

// reapWith reaps a dependent whose last owner is uid. An owner that waits for
// its dependents hands the waiting down to those that have some of their own
// (garbage collector, attemptToDeleteItem), so that a Deployment deleted in
// the foreground outlives its pods and not only its ReplicaSets.
func (c *Cluster) reapWith(k objectKey, e *entry, uid string) {
	waits := slices.ContainsFunc(e.obj.GetOwnerReferences(), func(o metav1.OwnerReference) bool {
		ok, known := c.refKey(o, k.namespace)
		if !known || string(o.UID) != uid {
			return false
		}
		owner := c.st.get(ok)
		return owner != nil && owner.obj.GetUID() == o.UID && slices.Contains(owner.obj.GetFinalizers(), metav1.FinalizerDeleteDependents)
	})
	if waits && e.obj.GetDeletionTimestamp() == nil && len(c.st.dependents(string(e.obj.GetUID()))) > 0 {
		c.mark(k, e, append(e.obj.GetFinalizers(), metav1.FinalizerDeleteDependents), 0)
		c.continueDeletion(k)
		return
	}
	c.reap(k)
}

// orphan takes an owner from all its dependents and leaves them.
func (c *Cluster) orphan(uid string) {
	for _, k := range c.st.dependents(uid) {
		next := c.st.get(k).obj.DeepCopy()
		setOwners(next, slices.DeleteFunc(next.GetOwnerReferences(), func(o metav1.OwnerReference) bool { return string(o.UID) == uid }))
		c.commit(k, next)
	}
}

// setOwners sets an object's owners; without any it has no such field.
func setOwners(obj *unstructured.Unstructured, owners []metav1.OwnerReference) {
	if len(owners) == 0 {
		unstructured.RemoveNestedField(obj.Object, "metadata", "ownerReferences")
		return
	}
	obj.SetOwnerReferences(owners)
}
