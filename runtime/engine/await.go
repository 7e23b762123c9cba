package engine

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/manifest"
)

// awaitBack waits until what came back works, as far as it has a notion of it.
func (e *Engine) awaitBack(s *submitter, us []*undone) error {
	var refs []cluster.Ref
	for _, u := range us {
		_, left := e.rollback.left[u.ref.ID()]
		if !left && !u.created() && waitsReady(u.ref) {
			refs = append(refs, u.ref)
		}
	}
	if err := e.awaitReady(s, refs); err != nil {
		return fmt.Errorf("rolled back, and waiting to be ready: %w", e.wrapCancelled(err))
	}
	return nil
}

// awaitBegun waits, on a rollback that is called again, for what it rolled back
// before: the plan and its gates look at a cluster that is not on its way any
// more. Where that does not come about, the gates say so.
func (e *Engine) awaitBegun() error {
	seen := map[string]bool{}
	var refs []cluster.Ref
	for _, r := range e.ledger.effects {
		if r.undoes && happened(r.status) && comesBack(r.effect) && !seen[r.effect.Ref.ID()] {
			seen[r.effect.Ref.ID()] = true
			refs = append(refs, r.effect.Ref)
		}
	}
	slices.SortFunc(refs, func(a, b cluster.Ref) int { return strings.Compare(a.ID(), b.ID()) })
	if err := e.awaitReady(&submitter{e: e, f: e.root, spec: rollbackSpec}, refs); err != nil {
		if stopped := e.interrupted(); stopped != nil {
			return e.doomed(stopped)
		}
	}
	return nil
}

// comesBack: the effect's object gets ready again after it; of a pod that was
// evicted, that is the one of the same name.
func comesBack(ef *effect.Effect) bool {
	switch ef.Verb {
	case effect.Delete:
		return false
	case effect.Evict:
		if ef.Before == nil {
			return false
		}
		owner := metav1.GetControllerOfNoCopy(ef.Before)
		return owner != nil && owner.Kind == "StatefulSet"
	}
	return waitsReady(ef.Ref)
}

// waitsReady: objects of its kind are rolled out, and said to be ready then.
func waitsReady(ref cluster.Ref) bool {
	return manifest.Waits(&cluster.Object{Object: map[string]any{"kind": ref.Kind}}) && ref.Kind != "Pod" && ref.Kind != "Job"
}

// awaitReady waits until all of refs are ready.
func (e *Engine) awaitReady(s *submitter, refs []cluster.Ref) error {
	if len(refs) == 0 {
		return nil
	}
	return e.readerOf(s.f).WaitFor(s.f.ctx, refs, undoWait, func(now []*cluster.Object) (bool, error) {
		n := 0
		waitsFor := ""
		for i, o := range now {
			ready, _, why := cluster.Ready(o)
			if ready {
				n++
			} else if waitsFor == "" {
				waitsFor = fmt.Sprintf("%s: %s", refs[i], why)
			}
		}
		if waitsFor == "" {
			waitsFor = "ready"
		}
		s.Progress(n, len(now), waitsFor)
		return n == len(now), nil
	})
}
