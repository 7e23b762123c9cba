package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/value"
)

// Log implements builtin.Host.
func (e *Engine) Log(t *starlark.Thread, message string) {
	if !interp.Write(t, len(message)+1) {
		return
	}
	path := ""
	if f := frameOf(t); f != nil {
		path = f.path
	}
	e.emit(path, &event.Log{Level: "info", Message: message})
}

// Approve implements builtin.Host: a step of its own that a person answers.
// With no covers it covers every diff shown so far that no approval covers yet.
func (e *Engine) Approve(t *starlark.Thread, message string, covers []string) (starlark.Value, error) {
	outer := frameOf(t)
	name := "approve: " + strings.ReplaceAll(message, "/", "∕")
	path, err := outer.child(name, builtin.CallerPos(t))
	if err != nil {
		return nil, err
	}
	if e.replay != nil {
		return e.replayStep(t, outer, path, builtin.StepCall{Name: name, Fn: starlark.NewBuiltin("approve", nil)})
	}
	if v, err, ok := e.finishedStep(path, name); ok {
		return v, err
	}
	if err := e.before(outer); err != nil {
		return nil, err
	}
	if len(covers) == 0 {
		covers = e.uncovered()
	}
	e.emit(path, &event.ApprovalAsked{Message: message, Covers: covers})
	by, granted, err := e.ask(outer.ctx, question{step: path, message: message, diffs: covers, wanted: e.run.Policy.Wanted(path, message), keep: true})
	if err != nil {
		if stopped := e.interrupted(); stopped != nil {
			return nil, e.doomed(stopped)
		}
		problem, cause := notApproved(err, fmt.Sprintf("%q", message))
		return nil, e.doomed(&diag.Error{
			Code: diag.Blocked, Pos: builtin.CallerPos(t), Problem: problem, Err: cause,
			Next: "rutter resume " + e.run.ID + " --approve NAME",
		})
	}
	e.emit(path, &event.ApprovalAnswered{Message: message, Granted: granted, By: by})
	rec := &journal.Approval{Step: path, Message: message, Granted: granted, By: by, Diffs: covers}
	if _, err := e.append(rec); err != nil {
		return nil, err
	}
	if !granted {
		if err := e.o.Journal.Sync(); err != nil {
			return nil, e.journalError(err)
		}
		return nil, e.doomed(&diag.Error{
			Code: diag.Blocked, Pos: builtin.CallerPos(t), Problem: fmt.Sprintf("%s did not approve %q", by, message), Err: ErrNotApproved,
			Next: "rutter resume " + e.run.ID,
		})
	}
	fact := effect.Fact{Approval: &effect.Approval{Step: path, Message: message, By: by, At: e.o.Env.Clock.Now(), Diffs: covers}}
	e.run.Facts.Add(fact)
	return e.endApproval(path, name, by, fact)
}

// endApproval makes the answer durable: a resume must not ask again.
func (e *Engine) endApproval(path, name, by string, fact effect.Fact) (starlark.Value, error) {
	v := starlark.String(by)
	raw, err := e.o.Codec.Encode(v)
	if err != nil {
		return nil, err
	}
	for _, b := range []journal.Body{
		&journal.StepStart{Path: path, Name: name, Attempt: 1},
		&journal.Call{Step: path, Builtin: "approve", Value: journal.Value{Inline: raw}, Facts: []effect.Fact{fact}},
		&journal.StepEnd{Path: path, OK: true, Value: journal.Value{Inline: raw}},
	} {
		if _, err := e.append(b); err != nil {
			return nil, err
		}
	}
	if err := e.o.Journal.Sync(); err != nil {
		return nil, e.journalError(err)
	}
	s := e.ledger.step(path)
	s.ended, s.ok, s.value = true, true, raw
	return v, nil
}

// uncovered lists the diffs that no approval covers yet.
func (e *Engine) uncovered() []string {
	var out []string
	for _, d := range e.run.Facts.Diffs {
		covered := slices.ContainsFunc(e.run.Facts.Approvals, func(a effect.Approval) bool { return slices.Contains(a.Diffs, d.ID) })
		if !covered && !slices.Contains(out, d.ID) {
			out = append(out, d.ID)
		}
	}
	return out
}

// withLeave turns the asks that an operator has answered into warnings: in this
// process for the gate and the object, from the journal for this very effect.
func (e *Engine) withLeave(fs []gate.Finding, es []*effect.Effect) []gate.Finding {
	out := slices.Clone(fs)
	for i, f := range out {
		if f.Verdict != gate.Ask {
			continue
		}
		if e.hasLeave(f, e.digestIn(es, f)) {
			out[i].Verdict = gate.Warn
		}
	}
	return out
}

// digestIn is the digest of the effect that a finding is about.
func (e *Engine) digestIn(es []*effect.Effect, f gate.Finding) string {
	for _, ef := range es {
		if ef.Ref.ID() == f.Ref.ID() {
			return e.digest(ef)
		}
	}
	return ""
}

// leaveFor is what leave in the journal covers.
func leaveFor(code, object, digest string) string { return code + " " + object + " " + digest }

// Attempt implements builtin.Host: it runs fn and gives its failure to the
// script as a value. What is fatal passes through.
func (e *Engine) Attempt(t *starlark.Thread, fn starlark.Callable, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	v, err := builtin.CallScript(t, fn, args, kwargs)
	if err = e.doomed(err); err != nil {
		if fatal(err) || interp.Stopped(t) != nil {
			return nil, err
		}
		if jerr := e.handled(err); jerr != nil {
			return nil, jerr
		}
	}
	a := &Attempted{value: v, err: err}
	if v == nil {
		a.value = starlark.None
	}
	if f := frameOf(t); f != nil {
		f.attempts = append(f.attempts, a)
	}
	return a, nil
}

// handled journals that the script handled the failure of the steps in err's
// chain: they are finished and replay it.
func (e *Engine) handled(err error) error {
	for {
		var s *StepError
		if !errors.As(err, &s) {
			return nil
		}
		end := &journal.StepEnd{Path: s.Path, Error: rootCause(s).Error(), Handled: true}
		if _, jerr := e.append(end); jerr != nil {
			return jerr
		}
		rec := e.ledger.step(s.Path)
		rec.ended, rec.ok, rec.handled, rec.err = true, false, true, end.Error
		err = s.Err
	}
}

// Attempted is the result of attempt(): .ok, .value, .error. A failed one that
// the script never looks at is raised again at the end of the step.
type Attempted struct {
	value starlark.Value
	err   error
	seen  bool
}

var _ starlark.HasAttrs = (*Attempted)(nil)

// String implements starlark.Value. Printing it is no way of looking at it.
func (a *Attempted) String() string {
	return fmt.Sprintf("attempt(ok = %v)", starlark.Bool(a.err == nil))
}

// Type implements starlark.Value.
func (a *Attempted) Type() string { return "attempt_result" }

// Freeze implements starlark.Value.
func (a *Attempted) Freeze() {}

// Truth implements starlark.Value: whether it succeeded, which is a look at it.
func (a *Attempted) Truth() starlark.Bool {
	a.seen = true
	return a.err == nil
}

// Hash implements starlark.Value.
func (a *Attempted) Hash() (uint32, error) { return 0, errors.New("unhashable type: attempt_result") }

// AttrNames implements starlark.HasAttrs.
func (a *Attempted) AttrNames() []string { return []string{"error", "ok", "value"} }

// Attr implements starlark.HasAttrs.
func (a *Attempted) Attr(name string) (starlark.Value, error) {
	switch name {
	case "ok":
		a.seen = true
		return starlark.Bool(a.err == nil), nil
	case "value":
		return a.value, nil
	case "error":
		a.seen = true
		if a.err == nil {
			return starlark.None, nil
		}
		return starlark.String(rootCause(a.err).Error()), nil
	}
	return nil, nil
}

func toValue(v any, err error) (starlark.Value, error) {
	if err != nil {
		return nil, err
	}
	if sv, ok := v.(starlark.Value); ok && sv != nil {
		return sv, nil
	}
	return value.FromGo(v)
}

// inFlight bounds what the engine itself does side by side.
const inFlight = 16

// parallel calls f for 0…n-1 side by side and returns when all have.
func (e *Engine) parallel(n int, f func(int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, inFlight)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(i)
		})
	}
	wg.Wait()
}

// sideBySide is parallel, or in order where writes go one by one.
func (e *Engine) sideBySide(n int, f func(int)) {
	if e.oneByOne() {
		inOrder(n, f)
		return
	}
	e.parallel(n, f)
}

// inOrder calls f for 0…n-1, one after the other.
func inOrder(n int, f func(int)) {
	for i := range n {
		f(i)
	}
}

// oneByOne reports whether writes go out in order: on a virtual clock, where
// side by side would only make runs differ from one another.
func (e *Engine) oneByOne() bool { return e.o.Env.Clock.Virtual() }
