// Package core declares the builtins that steer a run: step, approve, attempt,
// retry, log, fail and pause. They only hand over to the engine, which they
// know as builtin.Host.
package core

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
)

// Specs lists the builtins of this package.
func Specs() []*builtin.Spec {
	return []*builtin.Spec{step, approve, attempt, retry, logLine, fail, pause}
}

// Bounds, in bytes, of what is in every record of a step, and of what a person
// reads.
const (
	maxName    = 500
	maxMessage = 16 << 10
)

// maxAttempts bounds retry: each one is in the journal.
const maxAttempts = 100

// cut is s as far as a person reads it.
func cut(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	return strings.ToValidUTF8(s[:maxMessage], "") + fmt.Sprintf("… (%d bytes more)", len(s)-maxMessage)
}

type stepArgs struct {
	Name    string            `star:"name,positional" doc:"what the step does, unique among the steps beside it; a resume finds the step by it"`
	Fn      starlark.Callable `star:"fn,positional" doc:"the function or builtin to call"`
	Args    starlark.Tuple    `star:"*args" doc:"positional arguments for fn"`
	Retry   *retryValue       `star:"retry" doc:"retry(attempts, backoff = …): run the step again when it fails"`
	Timeout string            `star:"timeout" doc:"give up after this long, such as 10m, on the run's clock"`
	Undo    starlark.Callable `star:"undo" doc:"what a rollback calls instead of putting the before-images back, such as saved.restore"`
	Failure string            `star:"on_failure" doc:"what happens when the run fails in this step: stop (default), rollback, or ask; a step inside may say otherwise"`
	Kwargs  []starlark.Tuple  `star:"**kwargs" doc:"keyword arguments for fn"`
}

var step = builtin.NewControl(builtin.ControlDef[stepArgs]{
	Name: "step",
	Doc: `Runs fn as a durable unit and returns its value.

A finished step never runs again: on resume its recorded value is returned. An
interrupted step runs again from its top, and a change that it already made is
not made twice. Steps may nest. The value must be data (what JSON can hold), a
cluster object, or a builtin's own value.`,
	Example: `step("look", lambda: kube.version())`,
	Returns: "the value of fn",
	Do: func(c *builtin.Call, a *stepArgs) (starlark.Value, error) {
		if !slices.Contains([]string{"", "stop", "rollback", "ask"}, a.Failure) {
			return nil, diag.Usagef("step", "on_failure is %q, want stop, rollback or ask", a.Failure)
		}
		if len(a.Name) > maxName {
			return nil, diag.Usagef("step", "the name is %d bytes long, want at most %d", len(a.Name), maxName)
		}
		call := builtin.StepCall{OnFailure: a.Failure, Name: a.Name, Fn: a.Fn, Args: a.Args, Kwargs: a.Kwargs, Timeout: a.Timeout, Undo: a.Undo}
		if a.Retry != nil {
			call.Retry = &a.Retry.r
		}
		return c.Host.Step(c.Thread, call)
	},
})

type approveArgs struct {
	Message string           `star:"message,positional" doc:"what the person is asked to approve"`
	Covers  []starlark.Value `star:"covers" doc:"the diffs that the approval covers; by default every diff shown so far that no approval covers yet"`
}

// diffHandle is what approve needs to know of a diff.
type diffHandle interface{ DiffID() string }

var approve = builtin.NewControl(builtin.ControlDef[approveArgs]{
	Name: "approve",
	Doc: `Asks a person, and stops the run when the answer is no.

It is a step of its own: once answered, a resume does not ask again. The
approval binds the digest of every object in the diffs that it covers; what
changed since is refused (RUT007).`,
	Example: `approve("go on with the upgrade of " + cluster.name)`,
	Returns: "string: who approved",
	Do: func(c *builtin.Call, a *approveArgs) (starlark.Value, error) {
		if len(a.Message) > maxMessage {
			return nil, diag.Usagef("approve", "the message is %d bytes long, want at most %d: what a person can read", len(a.Message), maxMessage)
		}
		var ids []string
		for i, v := range a.Covers {
			d, ok := v.(diffHandle)
			if !ok {
				return nil, diag.Usagef("approve", "covers[%d] is a %s, want what diff.live or diff.manifests returned", i, v.Type())
			}
			ids = append(ids, d.DiffID())
		}
		return c.Host.Approve(c.Thread, a.Message, ids)
	},
})

type attemptArgs struct {
	Fn     starlark.Callable `star:"fn,positional" doc:"the function or builtin to call"`
	Args   starlark.Tuple    `star:"*args" doc:"positional arguments for fn"`
	Kwargs []starlark.Tuple  `star:"**kwargs" doc:"keyword arguments for fn"`
}

var attempt = builtin.NewControl(builtin.ControlDef[attemptArgs]{
	Name: "attempt",
	Doc: `Calls fn and returns a result with .ok, .value and .error instead of failing.

A failed result that the script never looks at is raised again at the end of the
step. Refusals by a gate, interruptions and exhausted budgets are not for the
script to handle: they pass straight through.`,
	Example: `result = attempt(kube.get, "cm/none", namespace = "default")
log("there" if result.ok else result.error)`,
	Returns: "attempt_result",
	Do: func(c *builtin.Call, a *attemptArgs) (starlark.Value, error) {
		return c.Host.Attempt(c.Thread, a.Fn, a.Args, a.Kwargs)
	},
})

// retryValue is what retry() returns.
type retryValue struct{ r builtin.Retry }

func (v *retryValue) String() string {
	return fmt.Sprintf("retry(%d, backoff = %q)", v.r.Attempts, v.r.Backoff)
}
func (v *retryValue) Type() string          { return "retry" }
func (v *retryValue) Freeze()               {}
func (v *retryValue) Truth() starlark.Bool  { return true }
func (v *retryValue) Hash() (uint32, error) { return starlark.String(v.String()).Hash() }

type retryArgs struct {
	Attempts int           `star:"attempts,positional" doc:"how often to run it at most, the first time included; at least 1"`
	Backoff  time.Duration `star:"backoff" default:"5s" doc:"how long to wait before the second attempt; doubles each time"`
}

var retry = builtin.NewPure(builtin.PureDef[retryArgs]{
	Name:    "retry",
	Doc:     "Says how often a step is run again when it fails. Refusals by a gate are never retried.",
	Example: `retry(3, backoff = "10s")`,
	Returns: "retry",
	Do: func(_ *builtin.Call, a *retryArgs) (any, error) {
		if a.Attempts < 1 || a.Attempts > maxAttempts {
			return nil, diag.Usagef("retry", "attempts is %d, want 1 to %d", a.Attempts, maxAttempts)
		}
		return &retryValue{builtin.Retry{Attempts: a.Attempts, Backoff: a.Backoff.String()}}, nil
	},
})

type logArgs struct {
	Message string `star:"message,positional" doc:"the line"`
}

var logLine = builtin.NewControl(builtin.ControlDef[logArgs]{
	Name:    "log",
	Doc:     "Writes a line into the run's output.",
	Example: `log("halfway there")`,
	Returns: "None",
	Do: func(c *builtin.Call, a *logArgs) (starlark.Value, error) {
		c.Host.Log(c.Thread, a.Message)
		return starlark.None, nil
	},
})

type failArgs struct {
	Message string `star:"message,positional" doc:"why"`
}

var fail = builtin.NewControl(builtin.ControlDef[failArgs]{
	Name:    "fail",
	Doc:     "Fails the step with a message. attempt and retry can handle it.",
	Example: `attempt(fail, "not today").error`,
	Returns: "nothing",
	Do: func(c *builtin.Call, a *failArgs) (starlark.Value, error) {
		return nil, &diag.Error{Pos: c.Pos, Problem: cut(a.Message)}
	},
})

type pauseArgs struct {
	Duration time.Duration `star:"duration,positional" doc:"how long, such as 15m"`
	Why      string        `star:"why" default:"pause" doc:"what the pause is for; it names the step"`
}

var pause = builtin.NewControl(builtin.ControlDef[pauseArgs]{
	Name:    "pause",
	Doc:     "Lets time pass, as a step of its own: once over, a resume does not wait again.",
	Example: `pause("5m", why = "let the canary soak")`,
	Returns: "None",
	Do: func(c *builtin.Call, a *pauseArgs) (starlark.Value, error) {
		wait := builtin.HostFunc("pause", func(*starlark.Thread, starlark.Tuple, []starlark.Tuple) (starlark.Value, error) {
			return starlark.None, c.Env.Clock.Sleep(c.Ctx, a.Duration)
		})
		return c.Host.Step(c.Thread, builtin.StepCall{Name: a.Why + " " + a.Duration.String(), Fn: wait})
	},
})
