// Package engine runs a runbook: it takes every call of a builtin, and every
// effect that a call makes, along the one path of DESIGN §2 (plan, gates,
// intent, do, gates, outcome). run, resume, test and --sim differ only in what
// is plugged into Options.
//
// It must not know which builtins exist, how a cluster is reached, or how
// events are shown.
package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/gate/crds"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/knowledge"
	"rutter.dev/rutter/runtime/lock"
	"rutter.dev/rutter/runtime/value"
)

// Options is everything that a run is made of.
type Options struct {
	Env      *env.Env
	Cluster  cluster.Writer
	Journal  journal.Journal
	Sink     event.Sink
	Builtins *builtin.Set
	Codec    *value.Codec
	Policy   *gate.Policy
	Metrics  gate.Metrics // whom RUT014 asks; nil: nobody
	// Knowledge is what is known of Istio's releases; nil is what this rutter was
	// built with.
	Knowledge *knowledge.Base
	// Schemas remembers schemas that RUT009 compiled, from run to run; nil
	// compiles them each time.
	Schemas  *crds.Compiled
	Sealer   builtin.Sealer
	Approver Approver
	// Lock says how the mesh is locked before the first record is written, and
	// for whom. Its Cluster, Clock, Namespace and Run are the engine's to fill
	// in. nil: nobody else can reach the cluster.
	Lock *lock.Options
	// Begin describes the run; for a resume it is the journal's own.
	Begin journal.Begin
	// Scope is what the runbook declared.
	Scope gate.Rules
	// Exec calls run(p) on a run thread that the engine has prepared.
	Exec func(ctx context.Context, prepare func(*starlark.Thread)) error
	// Invoke calls fn on a run thread in the same way; Function finds a function
	// of the runbook by name, nil where there is none. Both are for a rollback.
	Invoke   func(ctx context.Context, fn starlark.Callable, prepare func(*starlark.Thread)) error
	Function func(name string) starlark.Callable
	// OnFailure is the runbook's failure policy; Failed is told, once a failed run
	// is sealed, of the step that failed and the policy that holds for it.
	OnFailure FailurePolicy
	Failed    func(step string, policy FailurePolicy)
	// Plan is the saved plan that is in force; nil without one.
	Plan gate.Conformance
	// Rehearsal: the cluster is a twin, and nothing real is changed.
	Rehearsal bool
	// Adopted is the changed runbook with which a resumed run goes on, nil
	// where it is the one that it began with. See Replays.
	Adopted *Adopted
	// Rutter is the version of this program.
	Rutter string
	// Evidence writes what was found when a step failed into the run's folder,
	// and gives the file's path; nil keeps none.
	Evidence func(name string, content []byte) (path string, err error)
	// Secrets are values that evidence must not show, whatever holds them.
	Secrets []string
	// Analyze looks for mistakes in the mesh's configuration and says a line of
	// each, for the evidence of a failure. It only reads; nil says nothing.
	Analyze func(ctx context.Context, r cluster.Reader) ([]string, error)
}

// Approver answers for the operator.
type Approver interface {
	// Approve answers approve(message). It returns who answered, and whether
	// yes. An error means that nobody could be asked.
	Approve(ctx context.Context, step, message string, diffs []string) (by string, granted bool, err error)
	// Leave answers a gate's ask. --yes never does (ruling 6).
	Leave(ctx context.Context, findings []gate.Finding) (by string, granted bool, err error)
}

// Sentinels of a run's end that callers branch on.
var (
	// ErrInterrupted: an operator stopped the run; it can be resumed.
	ErrInterrupted = errors.New("interrupted")
	// ErrInDoubt: an effect may or may not have happened.
	ErrInDoubt = errors.New("in doubt")
	// ErrDiverged: on resume the runbook took another way than before.
	ErrDiverged = errors.New("the runbook took another way than the journal says")
	// ErrNotApproved: an operator refused, or nobody was there to ask.
	ErrNotApproved = errors.New("not approved")
	// ErrRollback: the run is being undone or was, so it can't be gone on with.
	ErrRollback = errors.New("the run was given to a rollback")
	// ErrMisuse: the runbook is wrong in itself (a change outside of a step, two
	// steps of one name): not something that a script can handle.
	ErrMisuse = errors.New("misuse")
)

// Engine is one execution of a run. Use it once.
type Engine struct {
	o      Options
	run    gate.Run
	ledger *ledger
	view   cluster.Reader
	leave  map[string]bool // gates' asks that an operator gave leave for
	soft   context.Context // ends at the first interrupt: reads, waits, scripts
	hard   context.Context // ends at the second: a mutation in flight
	root   *frame
	counts event.Counts
	began  time.Time
	resume bool
	doom   error // the first fatal error: the run ends with it, whoever drops it

	held     *journal.Lock            // by what this process holds the mesh; nil without a lock
	evidence string                   // the file with what was found after a failure
	policies map[string]FailurePolicy // of steps, by path
	rollback *rollback                // nil unless the run is being undone
	replay   *replay                  // nil unless it is only found out whether a runbook replays
}

// Run begins a new run and carries it to its end. soft is cancelled by the
// first interrupt, hard by the second.
func Run(soft, hard context.Context, o Options) error {
	o.Begin.Marked = true
	e := newEngine(soft, hard, o)
	release, held, err := e.lock()
	if err != nil {
		return err
	}
	defer release()
	o.Begin.Lock = held
	if _, err := o.Journal.Append(&o.Begin, true); err != nil {
		return e.journalError(err)
	}
	return e.execute()
}

// Resume takes up a run from its journal's records.
func Resume(soft, hard context.Context, o Options, istioNow string) error {
	e := newEngine(soft, hard, o)
	e.resume = true
	if err := e.load(); err != nil {
		return err
	}
	if e.ledger.rollback {
		return &diag.Error{
			Code: diag.Usage, Subject: "run " + o.Begin.Run, Err: ErrRollback, Changed: "nothing by this command",
			Next: "rutter rollback " + o.Begin.Run + " finishes it; rutter run begins another",
		}
	}
	if err := e.pinned(istioNow); err != nil {
		return err
	}
	if err := e.backed(); err != nil {
		return err
	}
	release, held, err := e.lock()
	if err != nil {
		return err
	}
	defer release()
	if _, err := o.Journal.Append(o.Adopted.into(&journal.Resume{Rutter: o.Rutter, Policy: e.run.Policy.Digest, Istio: istioNow, Lock: held}), true); err != nil {
		return e.journalError(err)
	}
	return e.execute()
}

func newEngine(soft, hard context.Context, o Options) *Engine {
	e := &Engine{o: o, soft: soft, hard: hard, ledger: newLedger(), view: cluster.View(o.Cluster), leave: map[string]bool{}, policies: map[string]FailurePolicy{}, began: o.Env.Clock.Now()}
	e.run = gate.Run{
		ID: o.Begin.Run, ClusterUID: o.Begin.ClusterUID, From: o.Begin.From, To: o.Begin.To,
		Facts: &effect.Facts{}, Created: e.ledger.created, Scope: o.Scope, Policy: o.Policy, Knowledge: o.Knowledge, Plan: o.Plan, Rooms: &gate.Rooms{}, Schemas: o.Schemas, Metrics: o.Metrics, Pulse: &gate.Pulse{}, Digest: e.digest,
		Runbook: strings.TrimSpace(o.Begin.Runbook + " " + o.Begin.RunbookVersion), Context: o.Begin.Context,
	}
	if e.run.Policy == nil {
		e.run.Policy = &gate.Policy{}
	}
	return e
}

// pinned refuses to go on against another cluster, or one whose Istio is
// neither the version that the run began with nor its target (ruling 4).
func (e *Engine) pinned(istioNow string) error {
	if err := e.sameCluster(); err != nil {
		return err
	}
	if istioNow != "" && e.run.From != "" && istioNow != e.run.From && istioNow != e.run.To {
		return &diag.Error{
			Code: diag.Blocked, Subject: "run " + e.run.ID,
			Problem: fmt.Sprintf("the mesh is at Istio %s now", istioNow),
			Expect:  fmt.Sprintf("%s (where it began) or %s (its target)", e.run.From, e.run.To),
			Changed: "nothing by this command", Next: "rutter show " + e.run.ID,
		}
	}
	return nil
}

// execute runs the script and seals the journal with how it ended.
func (e *Engine) execute() error {
	b := e.o.Begin
	e.emit("", &event.RunStarted{
		Run: b.Run, Runbook: b.Runbook, Version: b.RunbookVersion, Context: b.Context,
		ClusterUID: b.ClusterUID, From: b.From, To: b.To, Resumed: e.resume, Rehearsal: e.o.Rehearsal,
	})
	e.root = e.newFrame(nil, "", e.soft)
	err := e.settleInDoubt()
	if err == nil {
		err = e.drift()
	}
	if err == nil {
		err = e.o.Exec(e.soft, func(t *starlark.Thread) {
			t.SetLocal(builtin.HostKey, builtin.Host(e))
			t.SetLocal(frameKey, e.root)
		})
		if err == nil {
			err = e.root.unseen()
		}
		err = e.doomed(err)
	}
	return e.finish(e.unlocked(err))
}

func (e *Engine) finish(err error) error {
	status := statusOf(err)
	if status == journal.RunFailed {
		e.evidence = e.collect(err)
	}
	end := &journal.End{Status: status, Exit: int(exitCode(err))}
	out := e.lay(err, status)
	if out != nil {
		end.Error = out.Error()
	}
	if _, jerr := e.o.Journal.Append(end, true); jerr != nil && err == nil {
		out = e.journalError(jerr)
	}
	ended := &event.RunEnded{
		Run: e.run.ID, Status: string(status), Exit: diag.ExitCode(out), Error: end.Error,
		Duration: e.o.Env.Clock.Now().Sub(e.began), Counts: e.counts,
	}
	if status != journal.RunDone {
		ended.Next = e.next(err)
	}
	e.emit("", ended)
	if status == journal.RunFailed {
		e.tellFailed(err)
	}
	return out
}

func statusOf(err error) journal.RunStatus {
	var refusal *gate.Refusal
	switch {
	case err == nil:
		return journal.RunDone
	case errors.Is(err, ErrInDoubt), errors.Is(err, ErrDiverged):
		return journal.RunInDoubt
	case errors.Is(err, ErrInterrupted), errors.Is(err, context.Canceled), errors.Is(err, lock.ErrLost), errors.Is(err, journal.ErrTaken):
		return journal.RunInterrupted
	case errors.As(err, &refusal), errors.Is(err, ErrNotApproved):
		return journal.RunRefused
	}
	return journal.RunFailed
}

func exitCode(err error) diag.Code {
	switch statusOf(err) {
	case journal.RunDone:
		return diag.OK
	case journal.RunInDoubt:
		return diag.InDoubt
	case journal.RunInterrupted:
		if errors.Is(err, lock.ErrLost) || errors.Is(err, journal.ErrTaken) {
			return diag.InDoubt
		}
		return diag.Interrupted
	case journal.RunRefused:
		return diag.Blocked
	}
	if c := diag.ExitCode(err); c == diag.Usage {
		return c
	}
	return diag.Failed
}

// fatal reports whether err passes through attempt and retry untouched:
// refusals, cancellation, doubt and a broken journal are not the script's to
// handle.
func fatal(err error) bool {
	var refusal *gate.Refusal
	var budget interface{ BudgetExhausted() bool }
	return errors.As(err, &refusal) || errors.As(err, &budget) ||
		errors.Is(err, errFrontier) || errors.Is(err, ErrInterrupted) || errors.Is(err, ErrInDoubt) || errors.Is(err, ErrDiverged) || errors.Is(err, lock.ErrLost) ||
		errors.Is(err, ErrNotApproved) || errors.Is(err, ErrMisuse) || errors.Is(err, context.Canceled) || errors.Is(err, journal.ErrBroken)
}

// doomed remembers the first fatal error that passes, and gives it back in the
// place of anything milder: a builtin or a script that drops it changes nothing
// about how the run ends.
func (e *Engine) doomed(err error) error {
	switch {
	case err != nil && fatal(err):
		if e.doom == nil {
			e.doom = err
		}
		return err
	case e.doom != nil:
		return e.doom
	}
	return err
}

func (e *Engine) journalError(err error) error {
	var d *diag.Error
	if errors.As(err, &d) {
		return e.doomed(err)
	}
	if errors.Is(err, journal.ErrTaken) {
		return e.doomed(&diag.Error{
			Code: diag.InDoubt, Subject: "run " + e.run.ID, Problem: "it was taken up elsewhere", Err: journal.ErrTaken,
			Changed: fmt.Sprintf("%d objects before that; nothing since by this process", e.ledger.changed),
			Next:    "rutter show " + e.run.ID,
		})
	}
	return e.doomed(&diag.Error{
		Code: diag.Failed, Subject: "run " + e.run.ID + ": journal", Problem: "cannot be written", Err: broken(err),
		Changed: fmt.Sprintf("%d objects before that; nothing since", e.ledger.changed),
		Next:    "mend the disk, then rutter resume " + e.run.ID,
	})
}

// broken marks an error of the journal as one that ends the run, also where
// the journal itself would take more.
func broken(err error) error {
	if errors.Is(err, journal.ErrBroken) {
		return err
	}
	return fmt.Errorf("%w: %w", journal.ErrBroken, err)
}

func (e *Engine) emit(step string, b event.Body) {
	e.o.Sink.Emit(event.Event{Time: e.o.Env.Clock.Now(), Step: step, Body: b})
}

// append journals b without waiting for the disk.
func (e *Engine) append(b journal.Body) (uint64, error) {
	if e.replay != nil {
		return 0, nil
	}
	seq, err := e.o.Journal.Append(b, false)
	if err != nil {
		return 0, e.journalError(err)
	}
	return seq, nil
}

// interrupted returns ErrInterrupted once an operator has asked to stop, and
// lock.ErrLost once the mesh is not this run's any more.
func (e *Engine) interrupted() error {
	if err := e.fenced(); err != nil {
		return err
	}
	if e.soft.Err() != nil {
		return ErrInterrupted
	}
	return nil
}

func (e *Engine) storeValue(raw json.RawMessage) (journal.Value, error) {
	v, err := journal.StoreValue(e.o.Journal, raw)
	if err != nil {
		return v, e.journalError(err)
	}
	return v, nil
}
