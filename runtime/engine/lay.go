package engine

import (
	"errors"
	"fmt"
	"strings"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/journal"
)

// lay gives an error what the person who reads it needs besides: what has
// already changed, and what to type next.
func (e *Engine) lay(err error, status journal.RunStatus) error {
	if err == nil {
		return nil
	}
	changed := "nothing"
	if n := e.ledger.changed; n == 1 {
		changed = "1 object"
	} else if n > 1 {
		changed = fmt.Sprintf("%d objects", n)
	}
	if e.evidence != "" {
		changed += "; what was found is in " + e.evidence
	}
	var d *diag.Error
	if !errors.As(err, &d) {
		return &diag.Error{
			Code: exitCode(err), Subject: "run " + e.run.ID, Problem: string(status), Err: err,
			Changed: changed, Next: e.next(err), Expect: expectedRight(err),
		}
	}
	cp := *d
	cp.Code, cp.Changed = exitCode(err), changed
	if cp.Expect == "" {
		cp.Expect = expectedRight(err)
	}
	if cp.Next == "" || status == journal.RunInterrupted && !errors.Is(err, journal.ErrTaken) {
		cp.Next = e.next(err)
	}
	cp.Err = e.plain(&cp, status)
	return &cp
}

// plain is the cause in d without what is said elsewhere: a stopped thread says
// only that it was stopped, and a position stands in front already.
func (e *Engine) plain(d *diag.Error, status journal.RunStatus) error {
	if d.Err == nil {
		return nil
	}
	text := d.Err.Error()
	switch {
	case status == journal.RunInterrupted && d.Problem == "":
		text = "interrupted by the operator"
	case status == journal.RunInDoubt && e.doom != nil && !strings.Contains(text, ErrInDoubt.Error()) && !strings.Contains(text, ErrDiverged.Error()):
		text = e.doom.Error()
	}
	if p := d.Pos.String(); p != "" {
		text = strings.ReplaceAll(text, p+": ", "")
	}
	if text == d.Err.Error() {
		return d.Err
	}
	return &retold{text: text, err: d.Err}
}

// retold is an error in other words; what callers branch on is kept.
type retold struct {
	text string
	err  error
}

// Error implements error.
func (r *retold) Error() string { return r.text }

// Is implements errors.Is over the error that is retold.
func (r *retold) Is(target error) bool { return errors.Is(r.err, target) }

// expectedRight names the right for lack of which the API server refused a
// request, if that is what went wrong.
func expectedRight(err error) string {
	var refusal *gate.Refusal
	right := cluster.MissingRight(err)
	if right == "" || errors.As(err, &refusal) { // whose findings name it
		return ""
	}
	return "the right to " + right
}

// next is what to type after err. A runbook that is wrong in itself stays so
// when it is resumed, because a resume runs it as it was.
func (e *Engine) next(err error) string {
	if e.rollback != nil {
		return e.rollback.next(e.run.ID)
	}
	if exitCode(err) == diag.Usage {
		return "mend the runbook, and rutter run it again"
	}
	resume := "rutter resume " + e.run.ID
	if expectedRight(err) != "" {
		return cluster.RightsAdvice + "; with them: " + resume
	}
	return resume
}
