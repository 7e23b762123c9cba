package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/event"
)

const frameKey = "rutter.frame"

// frame is one pass of a step (or of the run itself, with the path "").
type frame struct {
	parent   *frame
	path     string
	ctx      context.Context
	attempt  int
	deadline time.Time       // zero: none
	calls    int             // number of the next builtin call
	began    uint64          // number of the StepStart of this execution
	given    map[string]bool // effects of earlier executions that were asked for, by key
	inner    map[string]bool
	equals   map[string]int // occurrences of equal effects so far
	attempts []*Attempted   // results that the script has yet to look at
	replay   *stepRecord    // what an interrupted pass left; nil when live
	counts   event.Counts
	// only, where it is set, are the objects (Ref.ID) that may be written: those
	// of a step that is being undone.
	only map[string]*undone
}

func (e *Engine) newFrame(parent *frame, path string, ctx context.Context) *frame {
	f := &frame{parent: parent, path: path, ctx: ctx, inner: map[string]bool{}, equals: map[string]int{}}
	if parent != nil {
		f.deadline, f.only = parent.deadline, parent.only
	}
	if e.resume {
		if s := e.ledger.steps[path]; s != nil && !s.ended {
			f.replay, f.attempt = s, s.attempt
		}
	}
	return f
}

func frameOf(t *starlark.Thread) *frame {
	f, _ := t.Local(frameKey).(*frame)
	return f
}

// enter makes f the thread's frame until the returned function is called.
func enter(t *starlark.Thread, f *frame) func() {
	before := t.Local(frameKey)
	t.SetLocal(frameKey, f)
	return func() { t.SetLocal(frameKey, before) }
}

// asking marks the requests of ctx as made for by, within this step.
func (f *frame) asking(ctx context.Context, by string) context.Context {
	return cluster.WithAsker(ctx, cluster.Asker{Step: f.path, By: by})
}

// child claims a name among the steps inside f: sibling names are unique, so
// that a path names one step for ever (ruling 11).
func (f *frame) child(name string, pos diag.Pos) (string, error) {
	// A slash parts the steps of a path; one within a name must not.
	name = strings.ReplaceAll(name, "/", "∕")
	if name == "" {
		return "", misuse(&diag.Error{Pos: pos, Problem: "a step without a name", Expect: `step("what it does", fn, …)`})
	}
	if f.inner[name] {
		return "", misuse(&diag.Error{
			Pos: pos, Problem: fmt.Sprintf("a second step named %q", name),
			Expect: "a name of its own for every step beside it; resume finds steps by name",
		})
	}
	f.inner[name] = true
	if f.path == "" {
		return name, nil
	}
	return f.path + "/" + name, nil
}

// misuse marks d as a defect of the runbook itself (ErrMisuse).
func misuse(d *diag.Error) *diag.Error {
	d.Code, d.Err, d.Problem = diag.Usage, misused(d.Problem), ""
	return d
}

// misused is what is wrong, as an error that is ErrMisuse.
type misused string

// Error implements error.
func (m misused) Error() string { return string(m) }

// Is implements errors.Is.
func (m misused) Is(target error) bool { return target == ErrMisuse }

// occurrence counts effects that are equal within this pass.
func (f *frame) occurrence(digest string) int {
	n := f.equals[digest]
	f.equals[digest]++
	return n
}

// depthOf is how deep a step lies, 0 for an outermost one.
func depthOf(path string) int { return strings.Count(shown(path), "/") }

// shown is a step's path as a person reads it: a rollback's own steps without
// their root.
func shown(path string) string {
	if strings.HasPrefix(path, rollbackPath) {
		_, path, _ = strings.Cut(path[1:], "/")
	}
	return path
}

// late reports whether the time of the step is over.
func (f *frame) late(now time.Time) bool { return !f.deadline.IsZero() && !now.Before(f.deadline) }

// unseen raises the failure of an attempt whose result the script never looked at.
func (f *frame) unseen() error {
	for _, a := range f.attempts {
		if a.err != nil && !a.seen {
			return a.err
		}
	}
	return nil
}

var _ builtin.Host = (*Engine)(nil)
