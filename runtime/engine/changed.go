package engine

import (
	"encoding/json"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/journal"
)

// changed puts into an outcome what a rollback needs to know of the effect: the
// UID of its target, and what it changed there. obj is the target as the
// server answered it; nil for deletions.
func (e *Engine) changed(out *journal.Outcome, ef *effect.Effect, obj *cluster.Object) error {
	if obj == nil {
		return nil
	}
	out.UID = string(obj.GetUID())
	if ef.Before == nil || e.rollback != nil {
		return nil // it was made: it goes as a whole
	}
	delta := effect.Delta(ef.Before, obj)
	if delta == nil {
		delta = map[string]any{}
	}
	raw, err := json.Marshal(delta)
	if err != nil {
		return err
	}
	if !ef.HoldsSecret() {
		out.Delta, err = e.storeValue(raw)
		return err
	}
	if e.o.Sealer == nil {
		return nil // refused before (unsealed)
	}
	sealed, err := e.o.Sealer.Seal(raw)
	if err != nil {
		return err
	}
	if out.Sealed, err = e.o.Journal.Put(sealed); err != nil {
		return e.journalError(err)
	}
	return nil
}
