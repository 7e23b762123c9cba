// Package interp runs Starlark: it loads a runbook, binds its parameters, runs
// it within limits, and turns every error into one that names the source line
// and what to do. Threads that load modules and threads that run are different
// kinds: nothing can touch the cluster while a module loads.
package interp

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
)

// Limits bound one thread. Zero means the default.
type Limits struct {
	Steps  uint64 // computation steps (about 8 ns each)
	Output int    // bytes that print and log may write
	// Memory is how many bytes the heap and the stacks of the whole process may
	// take; 0 is no limit. It is sampled, so it is passed by what is made within
	// some milliseconds, and garbage is collected before it is held against a thread.
	Memory uint64
	// Stall is how long a script may be in one operation, of the time that the
	// process computes.
	Stall time.Duration
}

// The default limits. A hundred million steps are about a second of pure
// computation, which no upgrade needs; waiting takes no steps. Thirty seconds
// in one operation is a comparison or a hash of something that only looks small.
const (
	DefaultSteps     = 100_000_000
	DefaultLoadSteps = 10_000_000
	DefaultOutput    = 1 << 20
	DefaultStall     = 30 * time.Second
)

func (l Limits) or(steps uint64) Limits {
	if l.Steps == 0 {
		l.Steps = steps
	}
	if l.Output == 0 {
		l.Output = DefaultOutput
	}
	if l.Stall == 0 {
		l.Stall = DefaultStall
	}
	return l
}

// BudgetError ends a thread that used up a limit. Scripts cannot catch it.
type BudgetError struct {
	What  string // "computation steps", "bytes of output", "MiB of memory", "seconds in one operation"
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
	loading  bool
	ctx      context.Context
	limits   Limits
	output   int
	budget   atomic.Pointer[BudgetError]
	activity *builtin.Activity
	heap     heap      // looked at by the thread itself
	looked   time.Time // when
}

const guardKey = "rutter.guard"

// PrintFunc receives what a script prints.
type PrintFunc func(pos diag.Pos, message string)

// beat is how many steps there are between two signs of life of a thread.
const beat = 1000

// newThread makes a thread within limits. release must be called when it ends.
func newThread(ctx context.Context, name string, loading bool, l Limits, print PrintFunc) (t *starlark.Thread, release func()) {
	g := &guard{loading: loading, ctx: ctx, limits: l, activity: &builtin.Activity{}, heap: newHeap()}
	t = &starlark.Thread{Name: name}
	t.SetMaxExecutionSteps(beat)
	t.OnMaxSteps = func(t *starlark.Thread) {
		g.activity.Beat()
		g.look(t)
		if t.Steps >= l.Steps {
			g.exhaust(t, "computation steps", l.Steps)
		}
		t.SetMaxExecutionSteps(min(l.Steps, t.Steps+beat))
	}
	t.Print = func(t *starlark.Thread, msg string) {
		if g.write(t, len(msg)+1) && print != nil {
			print(builtin.CallerPos(t), msg)
		}
	}
	t.SetLocal(guardKey, g)
	t.SetLocal(builtin.ContextKey, ctx)
	t.SetLocal(builtin.ActivityKey, g.activity)
	stop := context.AfterFunc(ctx, func() { t.Cancel(context.Cause(ctx).Error()) })
	return t, func() { stop() }
}

// look is what the watcher does too, which may not get a processor in time.
func (g *guard) look(t *starlark.Thread) {
	now := time.Now()
	if g.limits.Memory == 0 || now.Sub(g.looked) < look {
		return
	}
	g.looked = now
	if g.heap.bytes() > muchOf(g.limits.Memory) {
		g.exhaust(t, "MiB of memory", g.limits.Memory>>20)
	}
}

// write counts bytes of output, and reports whether the thread may write them.
func (g *guard) write(t *starlark.Thread, n int) bool {
	g.output += n
	if g.output > g.limits.Output {
		g.exhaust(t, "bytes of output", uint64(g.limits.Output)) // #nosec G115 -- above it is more output than none
		return false
	}
	return true
}

// guardOf is what t keeps about itself; nil for a thread of somebody else's. It
// is for t's own goroutine, and for others only while t is at rest.
func guardOf(t *starlark.Thread) *guard {
	g, _ := t.Local(guardKey).(*guard)
	return g
}

// Write counts n bytes that t's script lets somebody read, and reports whether
// that is within its budget; beyond it, t is made to stop.
func Write(t *starlark.Thread, n int) bool {
	g := guardOf(t)
	return g == nil || g.write(t, n)
}

func (g *guard) exhaust(t *starlark.Thread, what string, limit uint64) {
	g.budget.CompareAndSwap(nil, &BudgetError{What: what, Limit: limit})
	t.Cancel("budget exhausted")
}

// Loading reports whether t loads a module, rather than runs.
func Loading(t *starlark.Thread) bool {
	g := guardOf(t)
	return g != nil && g.loading
}

// Stopped is why t was made to stop: a *BudgetError or the cause of its
// context's end; nil while it may go on. An error out of such a thread must
// not be handled by the script.
func Stopped(t *starlark.Thread) error {
	return guardOf(t).stopped()
}

// stopped is Stopped for any goroutine: what a thread keeps under its keys is
// for its own alone.
func (g *guard) stopped() error {
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

// call runs fn on t and watches it (see watch). A panic becomes an error (those
// in declared builtins already are one, with a position: starlark unwinds its own
// stack before a panic gets here); the error of a stopped thread is why it was
// stopped.
func call(t *starlark.Thread, fn func() (starlark.Value, error)) (starlark.Value, error) {
	g := guardOf(t)
	v, err := watched(t, fn)
	if err == nil {
		return v, nil
	}
	stopped := g.stopped() // t may still be at work, given up
	if stopped == nil {
		return nil, err
	}
	return nil, &stoppedError{why: stopped, err: err}
}

func recovered(t *starlark.Thread, fn func() (starlark.Value, error)) (v starlark.Value, err error) {
	defer func() {
		if p := recover(); p != nil {
			v, err = nil, &diag.Error{
				Subject: t.Name, Problem: fmt.Sprintf("the interpreter failed: %v (a defect of rutter, or a value too large)", p),
			}
		}
	}()
	return fn()
}

// stoppedError reads as why the thread was stopped, and unwraps to where too.
type stoppedError struct{ why, err error }

func (e *stoppedError) Error() string   { return e.why.Error() }
func (e *stoppedError) Unwrap() []error { return []error{e.why, e.err} }
