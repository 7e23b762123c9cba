// Package builtin is how a Starlark builtin is declared: one Go value in one
// place, from which argument unpacking, documentation, signatures and the
// conformance test all come. It runs nothing by itself; the engine does.
package builtin

import (
	"context"
	"time"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/knowledge"
)

// Class says what a builtin may do.
type Class int

// The classes of builtins.
const (
	// Pure builtins compute; they may be called anywhere, while loading too.
	Pure Class = iota
	// Read builtins look at the cluster or the host; not while loading. Inside
	// a step the engine records what they return and replays it on resume.
	Read
	// Write builtins make effects; only inside a step.
	Write
	// Control builtins steer the run (step, approve, attempt …); they get the thread.
	Control
)

// String is the class's word.
func (c Class) String() string { return [...]string{"pure", "read", "write", "control"}[c] }

// Blobs is the content-addressed store beside the journal. Put returns once the
// bytes are durable; digests are "sha256:<hex>".
type Blobs interface {
	Put(b []byte) (digest string, err error)
	Get(digest string) ([]byte, error)
}

// RunInfo is what builtins may know of the run.
type RunInfo struct {
	ID       string
	From, To string // Istio versions; "" where unknown
	// Secrets is how Secrets are sealed in backups and before-images; nil
	// means that they are refused (ruling 9).
	Secrets Sealer
	// Knowledge is what is known of Istio's releases; nil is what this rutter was
	// built with.
	Knowledge *knowledge.Base
	// Digest is an effect's digest as this run's journal has it; nil is Effect.Digest.
	Digest func(*effect.Effect) string
}

// Sealer encrypts and decrypts Secret material with the run's age keys.
type Sealer interface {
	Seal(plain []byte) ([]byte, error)
	Open(sealed []byte) ([]byte, error)
	// Mark is a digest of text, of what about names, under the same keys: who has
	// none of them can't try a guess on it.
	Mark(about, text string) string
}

// Call is one call of a builtin: everything that it may use. A Pure builtin
// gets no Reader and no Blobs.
type Call struct {
	Ctx    context.Context
	Env    *env.Env
	Reader cluster.Reader
	Blobs  Blobs
	Run    RunInfo
	// Distant: a dry-run is answered by a server that takes its time about it, also
	// where the run's clock is virtual.
	Distant bool
	Pos     diag.Pos // where the script calls
	Thread  *starlark.Thread
	Host    Host

	// Facts is what the run has established; treat as read-only.
	Facts *effect.Facts
	// Note establishes a fact; it is journaled with this call's value.
	Note func(effect.Fact)
	// Made reports whether an earlier execution of this step, which failed after
	// it, made an effect like this, so that whoever plans the same once more
	// leaves out what is done. Each effect is given to one asker only. Nil without
	// an engine.
	Made func(like func(*effect.Effect) bool) bool
	// Mark gives an effect the marks that it will be sent with, so that a dry-run of
	// it asks for what will be sent. It may be called from several goroutines at a
	// time. Nil without an engine.
	Mark func(*effect.Effect)
	// Emit tells the views what only this builtin knows: waves, diffs.
	Emit func(event.Body)
	// Progress tells the views how far a long read is.
	Progress func(done, total int, message string)
	// Health has the host judge how the services are (RUT014), as far as their
	// intervals have passed; its error must be returned. HealthEvery is how
	// often to call it while the call takes its time; 0 means never. Both are
	// nil without an engine.
	Health      func(effect.Look) error
	HealthEvery func(of []effect.Health) time.Duration
}

// Digest is an effect's digest as it may be noted in facts and shown.
func (c *Call) Digest(e *effect.Effect) string {
	if c.Run.Digest == nil {
		return e.Digest()
	}
	return c.Run.Digest(e)
}

// Host is the engine as Control builtins and bound methods of handles see it.
type Host interface {
	// Call invokes a declared builtin by its full name, as if the script had.
	Call(thread *starlark.Thread, name string, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error)
	Step(thread *starlark.Thread, s StepCall) (starlark.Value, error)
	Approve(thread *starlark.Thread, message string, covers []string) (starlark.Value, error)
	Attempt(thread *starlark.Thread, fn starlark.Callable, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error)
	Log(thread *starlark.Thread, message string)
}

// StepCall is one call of step().
type StepCall struct {
	Name    string
	Fn      starlark.Callable
	Args    starlark.Tuple
	Kwargs  []starlark.Tuple // those for Fn; options are taken out
	Retry   *Retry
	Timeout string            // duration, "" for none
	Undo    starlark.Callable // nil for before-images
	// OnFailure is what happens when the run fails in it: "stop", "rollback" or
	// "ask"; "" leaves that to the step around it, and then to the runbook.
	OnFailure string
}

// Retry is the value of retry(attempts, backoff).
type Retry struct {
	Attempts int
	Backoff  string // duration before the second attempt; doubles
}

// HostKey is the key of the thread-local under which the engine puts the Host.
const HostKey = "rutter.host"

// Bound is a method of a handle that is a declared builtin with its first
// argument filled in: saved.restore is Bound{Builtin: "backup.restore", Recv: saved}.
// As a step's undo it is recorded as data. It is a starlark.Callable, whose
// Name method leaves no room for a field of that name.
type Bound struct {
	Builtin string // full name, "backup.restore"
	Recv    starlark.Value
}
