package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/journal"
)

// RollbackOptions say what a rollback undoes, and what was decided beforehand.
type RollbackOptions struct {
	// Until is the path of the finished step after which everything is undone;
	// "" undoes the whole run.
	Until string
	// PlanOnly: show what would be undone; nothing is written, the journal
	// included.
	PlanOnly bool
	// Foreign decides about fields that the run changed and somebody else has
	// changed since: "keep", "overwrite", or "" to ask.
	Foreign string
	// By is who authorized the rollback beforehand (a failure policy); "" asks
	// for approval of the plan.
	By string
}

// rollbackPath is the root of the paths of a rollback's own steps. No step of a
// runbook has a path that begins with a slash.
const rollbackPath = "/rollback"

// rollback is the state of an engine that undoes a run.
type rollback struct {
	o         RollbackOptions
	after     uint64 // effects up to this record stay
	overwrite map[string]bool
	left      map[string]event.Left
	foreign   map[string][]effect.Foreign // that were kept
	planning  bool
}

// rollbackSpec is what the effects of before-images are made by.
var rollbackSpec = builtin.NewWrite(builtin.WriteDef[struct{}]{
	Name: "rollback", Doc: "Undoes effects from their before-images.", Example: "rutter rollback RUN", Effects: effect.Classes(),
	Plan: func(*builtin.Call, *struct{}) (*effect.Plan, error) { return &effect.Plan{}, nil },
})

// Rollback undoes a run from its journal: by effects of its own, each with
// gates, Intent and Outcome, as one plan that a person approves. It can be
// killed and called again like a run. Where RollbackOptions.Until is set and
// reached, or all is undone, what was undone is compared with what it was.
func Rollback(soft, hard context.Context, o Options, ro RollbackOptions) error {
	e := newEngine(soft, hard, o)
	e.resume = true
	e.rollback = &rollback{o: ro, left: map[string]event.Left{}, foreign: map[string][]effect.Foreign{}}
	if err := e.load(); err != nil {
		return err
	}
	if err := e.rollbackFrom(); err != nil {
		return err
	}
	if err := e.sameCluster(); err != nil {
		return err
	}
	if !ro.PlanOnly {
		release, held, err := e.lock()
		if err != nil {
			return err
		}
		defer release()
		e.held = held
	}
	e.rollback.overwrite = e.ledger.foreign
	e.ledger.changed = 0 // what is told of is the rollback
	for _, r := range e.ledger.effects {
		if r.undoes && happened(r.status) {
			e.ledger.changed++
		}
	}
	b := o.Begin
	// What the run led to is where the way back begins. The runbook's verbs say
	// nothing about undoing them; its namespaces and kinds hold.
	e.run.From, e.run.To, e.run.Scope.Verbs, e.run.Rollback = b.To, b.From, nil, true
	for _, f := range e.ledger.facts {
		e.run.Facts.Add(f)
	}
	e.emit("", &event.RunStarted{
		Run: b.Run, Runbook: b.Runbook, Version: b.RunbookVersion, Context: b.Context, ClusterUID: b.ClusterUID,
		From: b.To, To: b.From, Resumed: e.ledger.rollback, Rollback: true, Rehearsal: ro.PlanOnly,
	})
	e.root = e.newFrame(nil, e.rollbackRoot(), e.soft)
	err := e.settleInDoubt()
	if err == nil && e.ledger.rollback && !ro.PlanOnly {
		err = e.awaitBegun()
	}
	if err != nil {
		return e.finishRollback(err)
	}
	units, notes := e.undoing()
	plan, err := e.planRollback(units, notes)
	if ro.PlanOnly {
		if plan != nil {
			e.emit("", plan)
		}
		return e.lay(err, statusOf(err))
	}
	if err != nil {
		return e.finishRollback(err)
	}
	e.emit("", plan)
	if held := atLeast(plan.Findings, gate.Ask); gate.Worst(held) == gate.Block {
		return e.finishRollback(e.doomed(&gate.Refusal{Findings: held, Forecast: true}))
	}
	if err := e.authorize(plan); err != nil {
		return e.finishRollback(err)
	}
	err = e.o.Invoke(e.soft, e.carryOut(units), func(t *starlark.Thread) {
		t.SetLocal(builtin.HostKey, builtin.Host(e))
		t.SetLocal(frameKey, e.root)
	})
	return e.finishRollback(e.doomed(err))
}

// onlyPlanned: nothing is written, not even into the journal.
func (e *Engine) onlyPlanned() bool { return e.rollback != nil && e.rollback.o.PlanOnly }

// rollbackRoot is the path of all steps of this rollback; one that goes only so
// far has another, so that a later one that goes further does its own.
func (e *Engine) rollbackRoot() string {
	if e.rollback.o.Until == "" {
		return rollbackPath
	}
	return rollbackPath + " to " + strings.ReplaceAll(e.rollback.o.Until, "/", "∕")
}

// rollbackFrom finds out where a rollback of this journal begins, and refuses
// where there is nothing to undo.
func (e *Engine) rollbackFrom() error {
	l, r := e.ledger, e.rollback
	refused := func(problem, next string) error {
		return &diag.Error{Code: diag.Usage, Subject: "run " + e.run.ID, Problem: problem, Changed: "nothing by this command", Next: next}
	}
	if l.rollback && l.ended != journal.RunRolledBack {
		if r.o.Until == "" {
			r.o.Until = l.until // goes on with the one that was begun
		}
		if r.o.Until != l.until {
			return refused("a rollback of it was begun and has not ended", "rutter rollback "+e.run.ID)
		}
	}
	if l.rollback && l.ended == journal.RunRolledBack && l.until == "" {
		return refused("it is rolled back already", "rutter show "+e.run.ID)
	}
	if r.o.Until == "" {
		return nil
	}
	s := l.steps[r.o.Until]
	if s == nil || s.end == 0 {
		var names []string
		for _, p := range l.order {
			if p != "" && l.steps[p].end > 0 && !strings.HasPrefix(p, rollbackPath) {
				names = append(names, p)
			}
		}
		problem := fmt.Sprintf("has no finished step %q to go back to", r.o.Until)
		if near := diag.Nearest(r.o.Until, names); near != "" {
			problem += fmt.Sprintf("; did you mean %q?", near)
		} else if len(names) > 0 {
			problem += "; finished are: " + strings.Join(names, ", ")
		}
		return refused(problem, "rutter show "+e.run.ID)
	}
	r.after = s.end
	return nil
}

// next is what to type to go on with the rollback.
func (r *rollback) next(run string) string {
	if r.o.Until != "" {
		return fmt.Sprintf("rutter rollback %s --to %q", run, r.o.Until)
	}
	return "rutter rollback " + run
}

// authorize asks for approval of the plan as one, unless that was given before,
// and for a decision about what others have changed since.
func (e *Engine) authorize(plan *event.RollbackPlan) error {
	r := e.rollback
	began := e.ledger.rollback && e.ledger.ended != journal.RunRolledBack && e.ledger.until == r.o.Until
	by := r.o.By
	n := 0
	for _, p := range plan.Parts {
		n += len(p.Changes)
	}
	message := fmt.Sprintf("roll back run %s: %s", e.run.ID, changes(n))
	if !began && by == "" {
		var granted bool
		var err error
		e.emit("", &event.ApprovalAsked{Message: message})
		by, granted, err = e.ask(e.soft, question{step: rollbackPath, message: message, diffs: []string{plan.Digest}, wanted: e.run.Policy.WantedOfRollback()})
		if err != nil {
			if stopped := e.interrupted(); stopped != nil {
				return e.doomed(stopped)
			}
			problem, cause := notApproved(err, "the rollback")
			return e.doomed(&diag.Error{
				Code: diag.Blocked, Problem: problem, Err: cause,
				Next: r.next(e.run.ID) + " --approve NAME",
			})
		}
		e.emit("", &event.ApprovalAnswered{Message: message, Granted: granted, By: by})
		if !granted {
			return e.doomed(&diag.Error{Code: diag.Blocked, Problem: by + " did not approve the rollback", Err: ErrNotApproved, Next: r.next(e.run.ID)})
		}
	}
	answers, err := e.decideForeign(plan.Foreign)
	if err != nil {
		return err
	}
	if _, err := e.append(&journal.Resume{Lock: e.held, Rutter: e.o.Rutter, Policy: e.run.Policy.Digest, Rollback: true, Until: r.o.Until}); err != nil {
		return err
	}
	if !began {
		answers = append(answers, &journal.Approval{Step: rollbackPath, Message: message, Granted: true, By: by, Diffs: []string{plan.Digest}})
	}
	for _, a := range answers {
		if _, err := e.append(a); err != nil {
			return err
		}
	}
	if err := e.o.Journal.Sync(); err != nil {
		return e.journalError(err)
	}
	e.ledger.rollback = true
	// What a gate asks is asked once, over all of it, before the first change.
	return e.judged(e.root, "rollback", "", atLeast(plan.Findings, gate.Ask), nil, true)
}

// atLeast are the findings that are as bad as v, or worse.
func atLeast(fs []gate.Finding, v gate.Verdict) []gate.Finding {
	return slices.DeleteFunc(slices.Clone(fs), func(f gate.Finding) bool { return f.Verdict < v })
}

func changes(n int) string {
	if n == 1 {
		return "1 change"
	}
	return fmt.Sprintf("%d changes", n)
}

// foreignGate stands in the journal for the answers about what others changed.
const foreignGate = "foreign"

// decideForeign finds out whether fields that somebody else changed since the
// run are overwritten or kept.
func (e *Engine) decideForeign(fields []event.ForeignField) ([]*journal.Approval, error) {
	var answers []*journal.Approval
	for _, f := range fields {
		id := f.Ref.ID()
		if _, decided := e.rollback.overwrite[id]; decided {
			continue
		}
		by, granted := "--foreign "+e.rollback.o.Foreign, e.rollback.o.Foreign == "overwrite"
		what := fmt.Sprintf("%s was changed by somebody else since the run; a rollback overwrites it", f.Field)
		if e.rollback.o.Foreign == "" {
			var err error
			by, granted, err = e.o.Approver.Leave(e.soft, []gate.Finding{{Code: foreignGate, Verdict: gate.Ask, Ref: f.Ref, Problem: what}})
			if err != nil {
				if stopped := e.interrupted(); stopped != nil {
					return nil, e.doomed(stopped)
				}
				return nil, e.doomed(&diag.Error{
					Code: diag.Blocked, Subject: f.Ref.String(), Problem: f.Field + " was changed by somebody else since the run, and nobody could be asked what to do",
					Err:    fmt.Errorf("%w: %w", ErrNotApproved, err),
					Expect: "a decision", Next: e.rollback.next(e.run.ID) + " --foreign keep, or --foreign overwrite",
				})
			}
		}
		e.rollback.overwrite[id] = granted
		answers = append(answers, &journal.Approval{Step: rollbackPath, Message: f.Ref.String() + ": " + what, Granted: granted, By: by, Gate: foreignGate, Object: id})
	}
	return answers, nil
}

// finishRollback seals the journal with how the rollback ended. One that never
// was approved leaves the run as it was.
func (e *Engine) finishRollback(err error) error {
	err = e.unlocked(err)
	status := statusOf(err)
	if err == nil {
		status = journal.RunRolledBack
	}
	if status == journal.RunFailed {
		e.evidence = e.collect(err)
	}
	out := e.lay(err, status)
	text := ""
	if out != nil {
		text = out.Error()
	}
	if e.ledger.rollback {
		end := &journal.End{Status: status, Exit: int(exitCode(err)), Error: text}
		if _, jerr := e.o.Journal.Append(end, true); jerr != nil && err == nil {
			out = e.journalError(jerr)
		}
	}
	ended := &event.RunEnded{
		Run: e.run.ID, Status: string(status), Exit: diag.ExitCode(out), Error: text,
		Duration: e.o.Env.Clock.Now().Sub(e.began), Counts: e.counts,
	}
	if err != nil {
		ended.Next = e.next(err)
	}
	e.emit("", ended)
	return out
}

// carryOut is the rollback as one function that a run's thread calls.
func (e *Engine) carryOut(units []*unit) starlark.Callable {
	return builtin.HostFunc("rollback", func(t *starlark.Thread, _ starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
		for _, u := range units {
			fn := builtin.HostFunc(u.name, func(t *starlark.Thread, _ starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
				return starlark.None, e.undoUnit(t, u)
			})
			if _, err := e.Step(t, builtin.StepCall{Name: u.name, Fn: fn}); err != nil {
				return nil, err
			}
		}
		fn := builtin.HostFunc("compare", func(t *starlark.Thread, _ starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
			return starlark.None, e.compare(frameOf(t), units)
		})
		return e.Step(t, builtin.StepCall{Name: "compare with before", Fn: fn})
	})
}

// wayOut is what counts of the findings: for a run, all of them.
func (e *Engine) wayOut(fs []gate.Finding) []gate.Finding {
	if e.rollback == nil {
		return fs
	}
	var out []gate.Finding
	for _, f := range fs {
		switch {
		case slices.Contains(gate.Enforced(), f.Code):
		case f.Code == gate.BackupCovers, f.Code == gate.ReviewedDigest, !e.rollback.planning:
			continue // before-images cover it, and it is reviewed as one plan; warnings were in that
		default:
			f.Verdict = min(f.Verdict, gate.Warn)
		}
		out = append(out, f)
	}
	return out
}

// sameCluster refuses to touch another cluster than the run did.
func (e *Engine) sameCluster() error {
	uid, err := e.o.Cluster.UID(e.soft)
	if err != nil {
		return fmt.Errorf("run %s: cluster identity: %w", e.run.ID, err)
	}
	if uid == e.run.ClusterUID {
		return nil
	}
	verb := "resume "
	if e.rollback != nil {
		verb = "rollback "
	}
	return &diag.Error{
		Code: diag.Blocked, Subject: "run " + e.run.ID,
		Problem: fmt.Sprintf("it began on cluster %s, this is %s", e.run.ClusterUID, uid),
		Expect:  "the cluster that it began on", Changed: "nothing by this command",
		Next: "rutter " + verb + e.run.ID + " --context CONTEXT",
	}
}

func absent(err error) bool {
	return errors.Is(err, cluster.ErrNotFound) || errors.Is(err, cluster.ErrNoKind)
}
