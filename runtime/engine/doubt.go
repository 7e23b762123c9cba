package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/mesh"
	"rutter.dev/rutter/runtime/plain"
)

// settleInDoubt looks, before a resumed run does anything, at every effect
// whose Intent has no Outcome, and journals what it finds. Nothing is repeated
// blindly.
func (e *Engine) settleInDoubt() error {
	if !e.resume {
		return nil
	}
	var keys []string
	for key, rec := range e.ledger.effects {
		if rec.status == "" {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Compare(e.ledger.effects[a].seq, e.ledger.effects[b].seq)
	})
	for _, key := range keys {
		if err := e.doubt(e.root, key); err != nil {
			return err
		}
	}
	return nil
}

// doubt observes one effect in doubt and journals its outcome.
func (e *Engine) doubt(f *frame, key string) error {
	rec := e.ledger.effects[key]
	seen, obj, err := observe(f.ctx, e.o.Cluster, key, rec.effect)
	if seen == effect.Unknown {
		return e.doomed(&diag.Error{
			Code: diag.InDoubt, Subject: rec.effect.Ref.String(), Problem: "whether it was changed cannot be found out", Err: fmt.Errorf("%w: %w", ErrInDoubt, err),
			Expect: "a cluster that answers", Next: "rutter resume " + e.run.ID,
		})
	}
	out := &journal.Outcome{Key: key, Status: journal.NotHappened}
	if seen == effect.Happened {
		out.Status, out.Result = journal.Observed, &effect.Result{Observed: true}
		e.ledger.made(key, rec.effect)
		if obj != nil && obj.GetKind() != "Secret" {
			rec.result = &effect.Result{Object: obj, Observed: true}
		}
		if !e.onlyPlanned() {
			if err := e.changed(out, rec.effect, obj); err != nil {
				return err
			}
		}
		rec.uid, rec.delta, rec.known = uidOf(obj), effect.Delta(rec.effect.Before, obj), rec.effect.Before != nil && obj != nil
	}
	if !e.onlyPlanned() {
		if _, err := e.o.Journal.Append(out, true); err != nil {
			return e.journalError(err)
		}
	}
	rec.status = out.Status
	e.emit(f.path, &event.EffectObserved{Change: event.ChangeOf(key, Summary(rec.effect), rec.effect), Observation: seen})
	return nil
}

// lost reports whether an effect that was made has been undone by somebody else
// since, so that it has to be made again: through all gates, which see the
// object as it is now. One that a later effect of this run replaced is not.
func (e *Engine) lost(ctx context.Context, p *pending) (bool, error) {
	if e.ledger.last[p.ef.Ref.ID()] != p.key {
		return false, nil
	}
	live, err := e.o.Cluster.Get(ctx, p.ef.Ref)
	gone := errors.Is(err, cluster.ErrNotFound) || errors.Is(err, cluster.ErrNoKind)
	if err != nil && !gone {
		return false, e.wrapCancelled(err)
	}
	switch p.ef.Verb {
	case effect.Delete, effect.Evict:
		// Another object of the name is not the one that was to go, unless the
		// plan, made anew, means that one.
		return !gone && p.ef.UID == string(live.GetUID()) && p.rec.effect.UID != p.ef.UID, nil
	case effect.Create, effect.Replace:
		return gone, nil
	case effect.Patch:
		// There may be nothing left to patch, and a list of operations gives
		// something else each time that it is carried out.
		if gone || types.PatchType(p.ef.PatchType) == types.JSONPatchType {
			return false, nil
		}
	}
	if gone {
		return true, nil
	}
	if p.ef.Class == effect.Restart || p.ef.RestartsOnly() {
		return false, nil // a pod template that moved on was rolled out all the same
	}
	again, err := yielding(p.ef, live)
	if err != nil {
		return false, err
	}
	again.UID, again.Marks = string(live.GetUID()), effect.Marks{} // which make no difference
	after, err := gate.Forecast(ctx, e.view, again)
	if err != nil {
		// The gate on dry-runs says why, with all that the others find.
		return p.ef.Verb == effect.Apply, nil
	}
	return differ(live, after)
}

// yielding is ef without what a running istiod has taken over of its target since
// it was made: that is no loss, and to make it again would be a conflict with istiod.
func yielding(ef *effect.Effect, live *cluster.Object) (*effect.Effect, error) {
	again := *ef
	if ef.Verb != effect.Apply {
		return &again, nil
	}
	obj, err := cluster.DecodeObject(ef.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: body: %w", ef.Ref, err)
	}
	if err := mesh.Yield(obj, live); err != nil {
		return nil, err
	}
	again.Body, err = plain.Encode(obj.Object)
	return &again, err
}

func differ(a, b *cluster.Object) (bool, error) {
	x, err := cluster.Digest(a)
	if err != nil {
		return false, err
	}
	y, err := cluster.Digest(b)
	return x != y, err
}

func uidOf(o *cluster.Object) string {
	if o == nil {
		return ""
	}
	return string(o.GetUID())
}
