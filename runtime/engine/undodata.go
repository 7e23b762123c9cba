package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
)

const (
	undoWait  = 10 * time.Minute // for what is brought back to be ready
	undoBatch = 10               // workloads that are rolled out at the same time
	undoLook  = 10 * time.Second // at budgets that do not bear the next rollout
)

// rollOutAgain brings workloads of the data plane back: their old pod template
// makes their controllers replace the pods, and the injector, which is the old
// one again, gives them the old proxy. As many at the same time as budgets bear.
func (e *Engine) rollOutAgain(s *submitter, us []*undone) error {
	var pods, waiting []*undone
	for _, u := range us {
		if u.evicted() {
			pods = append(pods, u)
		} else {
			waiting = append(waiting, u)
		}
	}
	total := len(waiting)
	began := e.o.Env.Clock.Now()
	for len(waiting) > 0 {
		now, rest, err := e.borne(s, waiting)
		if err != nil {
			return err
		}
		if len(now) == 0 {
			if e.o.Env.Clock.Now().Sub(began) < undoWait {
				s.Progress(total-len(waiting), total, "waiting for a disruption budget")
				if err := e.o.Env.Clock.Sleep(s.f.ctx, undoLook); err != nil {
					return e.doomed(e.wrapCancelled(err))
				}
				continue
			}
			now, rest = waiting[:1], waiting[1:] // the gate shall say why
		}
		if err := e.rollOutBatch(s, now); err != nil {
			return err
		}
		waiting, began = rest, e.o.Env.Clock.Now()
		s.Progress(total-len(waiting), total, "rolled back")
	}
	for _, u := range pods {
		if err := e.evictAgain(s, u); err != nil {
			return err
		}
	}
	return nil
}

// borne picks the next batch: what the disruption budgets bear together.
func (e *Engine) borne(s *submitter, us []*undone) (now, rest []*undone, err error) {
	run := e.run
	run.Now, run.Seen = e.o.Env.Clock.Now(), &gate.Seen{}
	for i, u := range us {
		if len(now) == undoBatch {
			return now, append(rest, us[i:]...), nil
		}
		ef, err := e.wouldBe(s.f.ctx, u)
		if err != nil {
			return nil, nil, err
		}
		if ef != nil {
			fs := gate.Judge(s.f.ctx, e.readerOf(s.f), &run, ef)
			if slices.ContainsFunc(fs, func(f gate.Finding) bool { return f.Code == gate.Disruption && f.Verdict == gate.Block }) {
				rest = append(rest, u)
				continue
			}
			run.Earlier = append(run.Earlier, ef)
		}
		now = append(now, u)
	}
	return now, rest, nil
}

// wouldBe is the write that would bring u back now.
func (e *Engine) wouldBe(ctx context.Context, u *undone) (*effect.Effect, error) {
	live, err := e.o.Cluster.Get(ctx, u.ref)
	if err != nil && !absent(err) {
		return nil, e.wrapCancelled(err)
	}
	if err != nil {
		live = nil
	}
	ef, err := e.remake(ctx, u, content, live)
	if ef != nil {
		e.classify(rollbackSpec, ef)
	}
	return ef, err
}

func (e *Engine) rollOutBatch(s *submitter, us []*undone) error {
	ps := make([]*pending, len(us))
	for i, u := range us {
		ps[i] = e.undoing1(u, content)
	}
	if err := s.submit(s.f.ctx, ps); err != nil {
		return err
	}
	if err := e.putBack(s, us, ownership); err != nil {
		return err
	}
	return e.awaitBack(s, us)
}

// evictAgain has a controller make a pod anew that the run had it make anew: its
// successor, if it has another proxy than the pod before the run had.
func (e *Engine) evictAgain(s *submitter, u *undone) error {
	succ, err := e.successor(s.f.ctx, u)
	if err != nil || succ == nil {
		return err
	}
	p := e.undoing1(u, content)
	ref := cluster.RefOf(succ)
	uid := succ.GetUID()
	p.ef = &effect.Effect{Verb: effect.Evict, Ref: ref}
	p.remake = func(_ context.Context, live *cluster.Object) (*effect.Effect, error) {
		if live == nil || live.GetUID() != uid || live.GetDeletionTimestamp() != nil {
			return nil, nil
		}
		return &effect.Effect{
			Verb: effect.Evict, Ref: ref, UID: string(uid), Before: live, Why: "back to its old proxy",
			Undo: effect.Undo{Kind: effect.UndoNone, Reason: "its controller makes it anew from the pod template"},
		}, nil
	}
	if err := s.submit(s.f.ctx, []*pending{p}); err != nil {
		return err
	}
	if err := e.noteUndone(u); err != nil {
		return err
	}
	deadline := e.o.Env.Clock.Now().Add(undoWait)
	for {
		next, err := e.pod(s.f.ctx, u, func(o *cluster.Object) bool { return o.GetUID() != uid })
		if err != nil {
			return err
		}
		if ready, _, _ := cluster.Ready(next); next != nil && ready {
			return nil
		}
		if !e.o.Env.Clock.Now().Before(deadline) {
			return fmt.Errorf("%s: evicted, and its successor is not ready: %w", ref, cluster.ErrTimeout)
		}
		if err := e.o.Env.Clock.Sleep(s.f.ctx, undoLook/5); err != nil {
			return e.doomed(e.wrapCancelled(err))
		}
	}
}

// successor is the pod in the place of the one that the run evicted; nil where
// it has the same proxy.
func (e *Engine) successor(ctx context.Context, u *undone) (*cluster.Object, error) {
	before := u.first().Before
	if before == nil {
		e.leaveIt(u, "the journal does not say what it was")
		return nil, nil
	}
	o, err := e.pod(ctx, u, func(o *cluster.Object) bool { return o.GetUID() != before.GetUID() })
	if err != nil || o == nil || proxyImage(o) == proxyImage(before) {
		return nil, err
	}
	return o, nil
}

// pod finds the pod of the same controller that has the evicted one's name (a
// StatefulSet's) or node (a DaemonSet's).
func (e *Engine) pod(ctx context.Context, u *undone, also func(*cluster.Object) bool) (*cluster.Object, error) {
	before := u.first().Before
	owner := metav1.GetControllerOf(before)
	if owner == nil {
		return nil, nil
	}
	res, err := e.view.ResourceFor(ctx, u.ref.GVK())
	if err != nil {
		return nil, err
	}
	node, _, err := unstructured.NestedString(before.Object, "spec", "nodeName")
	if err != nil {
		return nil, err
	}
	var found *cluster.Object
	err = e.view.List(ctx, res, cluster.ListOptions{Namespace: u.ref.Namespace}, func(o *cluster.Object) error {
		by := metav1.GetControllerOf(o)
		if by == nil || by.UID != owner.UID || o.GetDeletionTimestamp() != nil || !also(o) {
			return nil
		}
		on, _, err := unstructured.NestedString(o.Object, "spec", "nodeName")
		if err != nil {
			return err
		}
		if o.GetName() == u.ref.Name || owner.Kind == "DaemonSet" && on == node {
			found = o
		}
		return nil
	})
	return found, e.wrapCancelled(err)
}

func proxyImage(pod *cluster.Object) string {
	for _, field := range []string{"containers", "initContainers"} {
		list, _, err := unstructured.NestedSlice(pod.Object, "spec", field)
		if err != nil {
			continue
		}
		for _, c := range list {
			if m, ok := c.(map[string]any); ok && m["name"] == "istio-proxy" {
				image, _ := m["image"].(string)
				return image
			}
		}
	}
	return ""
}
