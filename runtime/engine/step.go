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
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/value"
)

// StepError is the failure of a step, told once per step that it passes.
type StepError struct {
	Path string
	Err  error
}

// Error names the step first: the innermost one, whose path says the rest.
func (s *StepError) Error() string {
	text, path := s.Err.Error(), shown(s.Path)
	if strings.HasPrefix(text, strings.TrimSuffix(fmt.Sprintf("step %q", path), "\"")+"/") {
		return text
	}
	return fmt.Sprintf("step %q: %s", path, text)
}

// Unwrap returns the cause.
func (s *StepError) Unwrap() error { return s.Err }

// Step implements builtin.Host: the durable unit. A finished step returns its
// recorded value; an interrupted one runs again from its top.
func (e *Engine) Step(t *starlark.Thread, s builtin.StepCall) (starlark.Value, error) {
	outer := frameOf(t)
	path, err := outer.child(s.Name, builtin.CallerPos(t))
	if err != nil {
		return nil, err
	}
	if e.replay != nil {
		return e.replayStep(t, outer, path, s)
	}
	e.policies[path] = FailurePolicy(s.OnFailure)
	if v, err, ok := e.finishedStep(path, s.Name); ok {
		return v, err
	}
	attempts, backoff, err := retryOf(s)
	if err != nil {
		return nil, err
	}
	first := 1
	if rec := e.ledger.steps[path]; e.resume && rec != nil && rec.attempt > 0 {
		first = rec.attempt
	}
	for n := first; ; n++ {
		v, err := e.attemptStep(t, outer, path, n, s)
		if err == nil || fatal(err) || interp.Stopped(t) != nil || n >= attempts {
			return v, err
		}
		e.emit(path, &event.Log{Level: "warn", Message: fmt.Sprintf("attempt %d of %d failed: %v; next in %s", n, attempts, err, backoff)})
		if err := e.o.Env.Clock.Sleep(outer.ctx, backoff); err != nil {
			return nil, e.doomed(ErrInterrupted)
		}
		backoff = min(2*backoff, max(backoff, maxBackoff))
	}
}

// maxBackoff is where doubling ends.
const maxBackoff = 24 * time.Hour

// finishedStep gives the recorded end of a step that the journal says is over.
func (e *Engine) finishedStep(path, name string) (starlark.Value, error, bool) {
	rec := e.ledger.steps[path]
	if rec == nil || !rec.ended || (!rec.ok && !rec.handled) {
		return nil, nil, false
	}
	if !rec.restored { // once: a retry around it comes by again
		rec.restored = true
		for _, f := range e.ledger.factsBelow(path) {
			e.run.Facts.Add(f)
		}
	}
	depth := depthOf(path)
	e.emit(path, &event.StepEnded{Name: name, Depth: depth, OK: rec.ok, Error: rec.err, Replayed: true})
	if !rec.ok {
		return nil, &StepError{Path: path, Err: errors.New(rec.err)}, true
	}
	v, err := e.o.Codec.Decode(rec.value)
	if err != nil {
		return nil, e.doomed(fmt.Errorf("step %q: recorded value: %w: %w", path, err, ErrDiverged)), true
	}
	return v, nil, true
}

// attemptStep is one pass of a step from its top.
func (e *Engine) attemptStep(t *starlark.Thread, outer *frame, path string, attempt int, s builtin.StepCall) (starlark.Value, error) {
	if err := e.interrupted(); err != nil {
		return nil, err
	}
	f := e.newFrame(outer, path, outer.ctx)
	if f.attempt != attempt {
		f.replay, f.attempt = nil, attempt
	}
	limit, cancel, err := e.limit(f, s.Timeout)
	if err != nil {
		return nil, err
	}
	defer cancel()
	undo, err := e.undoData(s.Undo)
	if err != nil {
		return nil, misuse(&diag.Error{Pos: builtin.CallerPos(t), Problem: fmt.Sprintf("undo of step %q cannot be recorded: %v", s.Name, err)})
	}
	start := &journal.StepStart{Path: path, Name: s.Name, Attempt: attempt, Args: e.argsDigest(s.Fn.Name(), s.Args, s.Kwargs), Undo: undo}
	if f.began, err = e.append(start); err != nil {
		return nil, err
	}
	depth, began := depthOf(path), e.o.Env.Clock.Now()
	e.emit(path, &event.StepStarted{Name: s.Name, Depth: depth, Attempt: attempt, Pos: builtin.CallerPos(t).String()})

	back := enter(t, f)
	v, err := builtin.CallScript(t, s.Fn, s.Args, s.Kwargs)
	back()
	if err == nil {
		err = f.unseen()
	}
	err = e.doomed(err)
	if err != nil && limit > 0 && !fatal(err) && e.o.Env.Clock.Now().Sub(began) >= limit {
		err = fmt.Errorf("took longer than its timeout of %s: %w", limit, err)
	}
	var raw json.RawMessage
	if err == nil {
		if raw, err = e.o.Codec.Encode(v); err != nil {
			err = e.doomed(misuse(&diag.Error{
				Pos: builtin.CallerPos(t), Problem: fmt.Sprintf("the value of step %q cannot be recorded: %v", path, err),
				Expect: "data (what JSON can hold), a cluster object, or a builtin's own value",
			}))
		}
	}
	outer.counts = sum(outer.counts, f.counts)
	v, err = e.endStep(f, raw, err)
	ended := &event.StepEnded{Name: s.Name, Depth: depth, OK: err == nil, Duration: e.o.Env.Clock.Now().Sub(began), Counts: f.counts, Note: note(v)}
	if err != nil {
		ended.Error = rootCause(err).Error()
	}
	e.emit(path, ended)
	return v, err
}

// endStep journals how a pass ended and gives the script the decoded copy of
// the value, as a resume would.
func (e *Engine) endStep(f *frame, raw json.RawMessage, err error) (starlark.Value, error) {
	end := &journal.StepEnd{Path: f.path, OK: err == nil}
	if err != nil {
		if fatal(err) {
			return nil, err // the step is interrupted, not finished
		}
		end.Error = rootCause(err).Error()
		if _, jerr := e.append(end); jerr != nil {
			return nil, jerr
		}
		return nil, &StepError{Path: f.path, Err: err}
	}
	if end.Value, err = e.storeValue(raw); err != nil {
		return nil, err
	}
	if _, err := e.o.Journal.Append(end, true); err != nil {
		return nil, e.journalError(err)
	}
	rec := e.ledger.step(f.path)
	rec.ended, rec.ok, rec.value = true, true, raw
	v, err := e.o.Codec.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("step %q: value: %w", f.path, err)
	}
	return v, nil
}

// limit gives the step its deadline on the run's clock, never later than the
// one around it.
func (e *Engine) limit(f *frame, timeout string) (time.Duration, context.CancelFunc, error) {
	if timeout == "" {
		return 0, func() {}, nil
	}
	d, err := value.ParseDuration(timeout)
	if err != nil {
		return 0, nil, misuse(&diag.Error{Subject: f.path, Problem: "timeout: " + err.Error()})
	}
	if at := e.o.Env.Clock.Now().Add(d); f.deadline.IsZero() || at.Before(f.deadline) {
		f.deadline = at
	}
	if e.o.Env.Clock.Virtual() {
		return d, func() {}, nil
	}
	ctx, cancel := context.WithDeadlineCause(f.ctx, f.deadline, fmt.Errorf("step %q: %w", f.path, cluster.ErrTimeout))
	f.ctx = ctx
	return d, cancel, nil
}

func retryOf(s builtin.StepCall) (attempts int, backoff time.Duration, err error) {
	if s.Retry == nil {
		return 1, 0, nil
	}
	if s.Retry.Backoff == "" {
		return s.Retry.Attempts, 0, nil
	}
	backoff, err = value.ParseDuration(s.Retry.Backoff)
	return s.Retry.Attempts, backoff, err
}

// undoData records a step's undo= so that a rollback can run it without the
// script: a bound method of a handle as its name and receiver, a function of
// the runbook by name.
func (e *Engine) undoData(fn starlark.Callable) (json.RawMessage, error) {
	if fn == nil {
		return nil, nil
	}
	data := map[string]any{"function": fn.Name()}
	if b, ok := fn.(*builtin.Bound); ok {
		recv, err := e.o.Codec.Encode(b.Recv)
		if err != nil {
			return nil, err
		}
		data = map[string]any{"builtin": b.Builtin, "recv": recv}
	}
	return json.Marshal(data)
}

// note is a value's own line about itself for the person who watches.
func note(v starlark.Value) string {
	if n, ok := v.(interface{ Note() string }); ok {
		return n.Note()
	}
	return ""
}

// rootCause strips the layers that only say in which step it happened.
func rootCause(err error) error {
	for {
		var s *StepError
		if !errors.As(err, &s) {
			return err
		}
		err = s.Err
	}
}

func sum(a, b event.Counts) event.Counts {
	a.Applied += b.Applied
	a.Unchanged += b.Unchanged
	a.Pruned += b.Pruned
	a.Restarted += b.Restarted
	a.Evicted += b.Evicted
	a.Failed += b.Failed
	a.Replayed += b.Replayed
	a.Observed += b.Observed
	return a
}
