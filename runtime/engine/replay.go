package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/journal"
)

// errFrontier ends a replay where the journal ends: everything before it went
// as before.
var errFrontier = errors.New("the journal ends here")

// replay is the state of an engine that only finds out whether a changed
// runbook takes the same way as the journal.
type replay struct {
	visited map[string]bool // finished steps that it came to
	entered map[string]bool // interrupted ones that it went into
}

// Replays finds out whether a runbook, changed since the run began, replays
// cleanly: whether with the recorded values it comes to every step that is
// finished, in the same order, called in the same way, and to nothing else
// before them. It reads the journal only; nothing is written, read from the
// cluster, or shown. The error says where it goes another way.
func Replays(ctx context.Context, o Options) error {
	o.Sink = event.SinkFunc(func(event.Event) {})
	e := newEngine(ctx, ctx, o)
	e.resume, e.replay = true, &replay{visited: map[string]bool{}, entered: map[string]bool{"": true}}
	if err := e.load(); err != nil {
		return err
	}
	e.root = e.newFrame(nil, "", ctx)
	err := e.doomed(o.Exec(ctx, func(t *starlark.Thread) {
		t.SetLocal(builtin.HostKey, builtin.Host(e))
		t.SetLocal(frameKey, e.root)
	}))
	if err == nil || errors.Is(err, errFrontier) {
		if left := e.unvisited(); len(left) > 0 {
			return e.otherWay(fmt.Sprintf("it does not come to %s, finished before", quoted(left)))
		}
		return nil
	}
	if errors.Is(err, ErrDiverged) {
		return err
	}
	return fmt.Errorf("run %s: replayed with the changed runbook: %w: %w", o.Begin.Run, ErrDiverged, err)
}

func (e *Engine) otherWay(problem string) error {
	return &diag.Error{
		Code: diag.InDoubt, Subject: "run " + e.run.ID, Problem: "the changed runbook does not replay: " + problem, Err: ErrDiverged,
		Expect: "the finished steps in the same order, called in the same way", Changed: "nothing by this command",
		Next: "rutter resume " + e.run.ID + " --recorded goes on with the runbook as it was",
	}
}

// unvisited are the finished steps that the replay should have come to.
func (e *Engine) unvisited() []string {
	var out []string
	for _, p := range e.ledger.order {
		s := e.ledger.steps[p]
		if p != "" && s.end > 0 && e.replay.entered[parentPath(p)] && !e.replay.visited[p] {
			out = append(out, p)
		}
	}
	return out
}

func quoted(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = fmt.Sprintf("step %q", n)
	}
	return strings.Join(out, ", ")
}

// replayStep is Step in a replay.
func (e *Engine) replayStep(t *starlark.Thread, outer *frame, path string, s builtin.StepCall) (starlark.Value, error) {
	rec := e.ledger.steps[path]
	if rec == nil || rec.seq == 0 {
		if left := e.unvisited(); len(left) > 0 {
			return nil, e.doomed(e.otherWay(fmt.Sprintf("step %q is new, and comes before %s, which is finished", path, quoted(left))))
		}
		return nil, e.frontier()
	}
	if s.Fn != nil && rec.args != "" && rec.args != e.argsDigest(s.Fn.Name(), s.Args, s.Kwargs) {
		return nil, e.doomed(e.otherWay(fmt.Sprintf("step %q calls another function, or with other arguments", path)))
	}
	if v, err, ok := e.finishedStep(path, s.Name); ok {
		e.replay.visited[path] = true
		return v, err
	}
	e.replay.entered[path] = true
	f := e.newFrame(outer, path, outer.ctx)
	back := enter(t, f)
	defer back()
	if _, err := builtin.CallScript(t, s.Fn, s.Args, s.Kwargs); err != nil {
		return nil, e.doomed(err)
	}
	return nil, e.frontier() // it was interrupted somewhere in it, or failed
}

// frontier ends a replay.
func (e *Engine) frontier() error { return e.doomed(errFrontier) }

// Adopted is a changed runbook with which a run goes on.
type Adopted struct {
	Bundle string // digest of the blob of its sources
	Digest string // of the bundle
	Params []byte // JSON
	// Secrets are digests of the secret parameters, by name.
	Secrets map[string]string
}

func (a *Adopted) into(r *journal.Resume) *journal.Resume {
	if a != nil {
		r.Bundle, r.RunbookDigest, r.Params, r.Secrets = a.Bundle, a.Digest, a.Params, a.Secrets
	}
	return r
}
