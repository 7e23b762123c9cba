// Package interp runs Starlark: it loads a runbook, binds its parameters, runs
// it within limits, and turns every error into one that names the source line
// and what to do. Threads that load modules and threads that run are different
// kinds: nothing can touch the cluster while a module loads.
package interp

import (
	"context"
	"fmt"
	"sync/atomic"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
)

// Limits bound one thread. Zero means the default.
type Limits struct {
	Steps  uint64 // computation steps (about 8 ns each)
	Output int    // bytes that print may write
}

// The default limits. A hundred million steps are about a second of pure
// computation, which no upgrade needs; waiting takes no steps.
const (
	DefaultSteps     = 100_000_000
	DefaultLoadSteps = 10_000_000
	DefaultOutput    = 1 << 20
)

func (l Limits) or(steps uint64) Limits {
	if l.Steps == 0 {
		l.Steps = steps
	}
	if l.Output == 0 {
		l.Output = DefaultOutput
	}
	return l
}

// BudgetError ends a thread that used up a limit. Scripts cannot catch it.
type BudgetError struct {
	What  string // "computation steps", "bytes of output"
	Limit uint64
}

// Error implements error.
func (e *BudgetError) Error() string {
	return fmt.Sprintf("the runbook used up its budget of %d %s; is there an endless loop?", e.Limit, e.What)
}

// BudgetExhausted marks the class for attempt and retry, which let it pass.
func (e *BudgetError) BudgetExhausted() bool { return true }

// cancelled is, with the cause of the context, the error of a thread
// whose context ended.
type cancelled struct{ cause error }

func (e *cancelled) Error() string { return "stopped: " + e.cause.Error() }
func (e *cancelled) Unwrap() error { return e.cause }

// guard is what a thread of this package keeps about itself.
type guard struct {
	loading bool
	ctx     context.Context
	limits  Limits
	output  int
	budget  atomic.Pointer[BudgetError]
}

const guardKey = "rutter.guard"

// PrintFunc receives what a script prints.
type PrintFunc func(pos diag.Pos, message string)

// newThread makes a thread within limits. release must be called when it ends.
func newThread(ctx context.Context, name string, loading bool, l Limits, print PrintFunc) (t *starlark.Thread, release func()) {
	g := &guard{loading: loading, ctx: ctx, limits: l}
	t = &starlark.Thread{Name: name}
	t.SetMaxExecutionSteps(l.Steps)
	t.OnMaxSteps = func(t *starlark.Thread) { g.exhaust(t, "computation steps", l.Steps) }
	t.Print = func(t *starlark.Thread, msg string) {
		g.output += len(msg) + 1
		if g.output > l.Output {
			g.exhaust(t, "bytes of output", uint64(l.Output))
			return
		}
		if print != nil {
			print(builtin.CallerPos(t), msg)
		}
	}
	t.SetLocal(guardKey, g)
	t.SetLocal(builtin.ContextKey, ctx)
	stop := context.AfterFunc(ctx, func() { t.Cancel(context.Cause(ctx).Error()) })
	return t, func() { stop() }
}

func (g *guard) exhaust(t *starlark.Thread, what string, limit uint64) {
	g.budget.CompareAndSwap(nil, &BudgetError{What: what, Limit: limit})
	t.Cancel("budget exhausted")
}

// Loading reports whether t loads a module, rather than runs.
func Loading(t *starlark.Thread) bool {
	g, _ := t.Local(guardKey).(*guard)
	return g != nil && g.loading
}

// Stopped is why t was made to stop: a *BudgetError or the cause of its
// context's end; nil while it may go on. An error out of such a thread must
// not be handled by the script.
func Stopped(t *starlark.Thread) error {
	g, _ := t.Local(guardKey).(*guard)
	switch {
	case g == nil:
		return nil
	case g.budget.Load() != nil:
		return g.budget.Load()
	case g.ctx.Err() != nil:
		return &cancelled{context.Cause(g.ctx)}
	}
	return nil
}

// call runs fn on t. A panic becomes an error (those in declared builtins
// already are one, with a position: starlark unwinds its own stack before a
// panic gets here); the error of a stopped thread is why it was stopped.
func call(t *starlark.Thread, fn func() (starlark.Value, error)) (v starlark.Value, err error) {
	defer func() {
		if p := recover(); p != nil {
			v, err = nil, &diag.Error{
				Subject: t.Name, Problem: fmt.Sprintf("the interpreter failed: %v (a defect of rutter, or a value too large)", p),
			}
		}
	}()
	v, err = fn()
	if err == nil {
		return v, nil
	}
	stopped := Stopped(t)
	if stopped == nil {
		return nil, err
	}
	return nil, &stoppedError{why: stopped, err: err}
}

// stoppedError reads as why the thread was stopped, and unwraps to where too.
type stoppedError struct{ why, err error }

func (e *stoppedError) Error() string   { return e.why.Error() }
func (e *stoppedError) Unwrap() []error { return []error{e.why, e.err} }
