package engine

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

// perform sends e's request, exactly once, with the marks by which observe can find
// it again.
func perform(ctx context.Context, w cluster.Writer, e *effect.Effect) (*cluster.Object, error) {
	version := fence(e)
	opts := cluster.WriteOptions{UID: types.UID(e.UID), ResourceVersion: version, Propagation: e.Propagation}
	switch e.Verb {
	case effect.Apply, effect.Create, effect.Replace:
		obj, err := e.MarkedObject()
		if err != nil {
			return nil, err
		}
		switch e.Verb {
		case effect.Create:
			return w.Create(ctx, obj, opts)
		case effect.Replace:
			obj.SetResourceVersion(version)
			obj.SetUID(types.UID(e.UID))
			return w.Replace(ctx, obj, opts)
		}
		// In an apply the fence is in the body.
		obj.SetUID(types.UID(e.UID))
		obj.SetResourceVersion(version)
		return w.Apply(ctx, obj, cluster.ApplyOptions{Force: len(e.Adopt) > 0})
	case effect.Patch:
		body, err := e.MarkedPatch()
		if err != nil {
			return nil, err
		}
		return w.Patch(ctx, e.Ref, types.PatchType(e.PatchType), body, opts)
	case effect.Delete:
		return nil, w.Delete(ctx, e.Ref, opts)
	case effect.Evict:
		return nil, w.Evict(ctx, e.Ref, opts)
	}
	return nil, fmt.Errorf("%s: unknown verb %q", e.Ref, e.Verb)
}

// never is a resourceVersion that no object has: the store's first revision is
// of no object (etcd: "revision 1 is the empty store"). To an apply it means
// "must not exist": the server looks at it when there is an object, and not
// when there is none (k8s.io/apiserver registry/generic/registry/store.go,
// Update).
const never = "1"

// fence is the resourceVersion that a request demands of its target, beside
// the UID: that of the object which the gates have judged. Whoever lost the
// mesh and does not know it yet is kept out by it, also where the other run
// writes the same fields under the same manager (ruling 9). An eviction is
// fenced by the UID alone: a pod's status moves all the time, and what may not
// happen twice is the loss of this very pod.
func fence(e *effect.Effect) string {
	switch {
	case e.Verb == effect.Evict, e.Verb == effect.Create:
		return ""
	case e.ResourceVersion != "":
		return e.ResourceVersion
	case e.Before != nil:
		return e.Before.GetResourceVersion()
	case e.Verb == effect.Apply && e.Absent:
		return never
	}
	return ""
}

// observe looks whether an effect in doubt happened. It never sends it again.
//
// A write of rutter carries the effect's key as an annotation, so an object
// that bears it was written by this very effect; one that does not, was not
// (annotations that others own survive their writes). A deletion or eviction
// happened when the object of that UID is gone or going.
func observe(ctx context.Context, r cluster.Reader, key string, e *effect.Effect) (effect.Observation, *cluster.Object, error) {
	live, err := r.Get(ctx, e.Ref)
	gone := errors.Is(err, cluster.ErrNotFound)
	if err != nil && !gone && !errors.Is(err, cluster.ErrNoKind) {
		return effect.Unknown, nil, err
	}
	switch e.Verb {
	case effect.Delete, effect.Evict:
		if gone || live == nil || (e.UID != "" && string(live.GetUID()) != e.UID) || live.GetDeletionTimestamp() != nil {
			return effect.Happened, nil, nil
		}
		return effect.NotHappened, live, nil
	}
	if gone || live == nil {
		return effect.NotHappened, nil, nil
	}
	if live.GetAnnotations()[cluster.AnnotationEffect] == key {
		return effect.Happened, live, nil
	}
	return effect.NotHappened, live, nil
}
