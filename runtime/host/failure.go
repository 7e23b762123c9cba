package host

import (
	"context"
	"errors"
	"fmt"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/gate"
)

// carry runs, and when that failed does what the failure policy says.
func (h *Host) carry(soft, hard context.Context, s Session, o engine.Options, run func(engine.Options) error) error {
	step, policy := "", engine.OnFailureStop
	o.Failed = func(at string, p engine.FailurePolicy) { step, policy = at, p }
	err := run(o)
	if err == nil || policy == engine.OnFailureStop || soft.Err() != nil {
		return err
	}
	if policy == engine.OnFailureAsk && !asked(soft, s, step) {
		return err
	}
	by := fmt.Sprintf("on_failure = %s, step %q", policy, step)
	if rerr := h.Rollback(soft, hard, s, engine.RollbackOptions{By: by}); rerr != nil {
		return errors.Join(err, rerr)
	}
	var d *diag.Error
	if !errors.As(err, &d) {
		return err
	}
	cp := *d
	cp.Changed, cp.Next = "nothing any more: the run was rolled back", "rutter show "+s.Journal.Run()
	return &cp
}

// RollBackNow is the code of the question, put as one for leave, whether a run that
// failed with on_failure = "ask" is to be rolled back at once.
const RollBackNow gate.Code = "on_failure"

// asked asks the operator whether to roll back. Nobody to ask means no: what
// was approved beforehand was the way forward.
func asked(ctx context.Context, s Session, step string) bool {
	_, granted, err := s.Approver.Leave(ctx, []gate.Finding{{
		Code: RollBackNow, Verdict: gate.Ask, Problem: fmt.Sprintf("step %q failed; the run would be rolled back now", step),
	}})
	return err == nil && granted
}
