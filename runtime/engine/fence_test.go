package engine_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/lock"
	"rutter.dev/rutter/runtime/sim"
)

// locked are the world's options for a run that locks the mesh.
func (w *world) locked() engine.Options {
	o := w.options()
	o.Env.Clock = lock.NewClock(w.sim.Clock())
	o.Lock = &lock.Options{Rand: rand.NewChaCha8([32]byte{}), Holder: "tester", Host: "here", Alone: true}
	return o
}

// other is another run that holds the mesh; it takes it whoever holds it, as
// one does that has watched the Lease run out.
func (w *world) other() *lock.Lock {
	w.t.Helper()
	ctx := context.Background()
	err := w.client.Delete(ctx, cluster.Ref{Group: "coordination.k8s.io", Version: "v1", Kind: "Lease", Namespace: "kube-system", Name: lock.Name}, cluster.WriteOptions{})
	if err != nil && !errors.Is(err, cluster.ErrNotFound) {
		w.t.Fatal(err)
	}
	l, err := lock.Acquire(ctx, lock.Options{
		Cluster: w.client, Clock: w.sim.Clock(), Rand: rand.NewChaCha8([32]byte{1}), Namespace: "kube-system",
		Run: "theirs", Holder: "ann", Host: "there",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

func (w *world) resumeLocked() error {
	w.t.Helper()
	if err := w.journal.Close(); err != nil {
		w.t.Fatal(err)
	}
	var err error
	if w.journal, err = journal.Open(w.fs, "/runs", "test", w.sim.Clock()); err != nil {
		w.t.Fatal(err)
	}
	return engine.Resume(context.Background(), context.Background(), w.locked(), "")
}

func (w *world) lastEnd() *journal.End {
	w.t.Helper()
	var last *journal.End
	for rec, err := range w.journal.Records() {
		if err != nil {
			w.t.Fatal(err)
		}
		body, err := rec.Decode()
		if err != nil {
			w.t.Fatal(err)
		}
		last, _ = body.(*journal.End)
	}
	return last
}

func TestAHeldMeshIsRefusedBeforeAnything(t *testing.T) {
	w := newWorld(t, header+"def run(p):\n    step(\"a\", put, \"a\", \"1\")\n")
	theirs := w.other()
	err := runOptions(w.locked())
	var refusal *gate.Refusal
	if !errors.As(err, &refusal) || refusal.Findings[0].Code != gate.LockHeld || !strings.Contains(err.Error(), "run theirs, by ann on host there") {
		t.Fatalf("got %v", err)
	}
	if strings.Contains(err.Error()+refusal.Findings[0].Next, theirs.Nonce()) {
		t.Error("the refusal tells the nonce")
	}
	for rec := range w.journal.Records() {
		t.Errorf("journaled: %s", rec.Type)
	}
	if w.writes() != 0 {
		t.Error("something was written")
	}
}

// TestTheLockIsTakenAway: from the instant at which another run holds the mesh
// nothing more is sent, whatever the script does about that.
func TestTheLockIsTakenAway(t *testing.T) {
	for name, script := range map[string]string{
		"between two steps":     "def run(p):\n    step(\"a\", put, \"a\", \"1\")\n    step(\"b\", put, \"b\", \"1\")\n",
		"the script handles it": "def run(p):\n    step(\"a\", put, \"a\", \"1\")\n    if not attempt(step, \"b\", put, \"b\", \"1\").ok:\n        step(\"b2\", put, \"b\", \"1\")\n",
		"within a batch":        "def run(p):\n    step(\"a\", put, \"a\", \"1\")\n    step(\"b\", many, \"b\", \"1\")\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, header+script)
			var theirs *lock.Lock
			w.onEvent = func(e event.Event) {
				if d, ok := e.Body.(*event.EffectDone); ok && d.Ref.Name == "a" && theirs == nil {
					theirs = w.other()
					w.sim.Advance(lock.Duration) // the deadline is over: the next mutation must ask
				}
			}
			err := runOptions(w.locked())
			if diag.ExitCode(err) != diag.InDoubt || !errors.Is(err, lock.ErrLost) || !strings.Contains(err.Error(), "run theirs, by ann on host there") {
				t.Fatalf("exit %d, %v", diag.ExitCode(err), err)
			}
			if w.writes() != 1 {
				t.Errorf("%d writes, want that of a", w.writes())
			}
			if end := w.lastEnd(); end == nil || end.Status != journal.RunInterrupted || end.Exit != int(diag.InDoubt) {
				t.Errorf("the journal ends with %+v", end)
			}
			if err := theirs.Check(context.Background()); err != nil { // it goes on, and renews
				t.Fatal(err)
			}
			if err := w.resumeLocked(); diag.ExitCode(err) != diag.Blocked || !strings.Contains(err.Error(), "RUT002") {
				t.Fatalf("resume while theirs lives: %v", err)
			}
			if err := theirs.Release(context.Background()); err != nil {
				t.Fatal(err)
			}
			if err := w.resumeLocked(); err != nil || w.data("b") != "1" {
				t.Errorf("resume: %v, b=%s", err, w.data("b"))
			}
			if i, err := lock.Look(context.Background(), w.client, "kube-system"); i != nil || err != nil {
				t.Errorf("the lock of a run that is over: %v, %v", i, err)
			}
		})
	}
}

// TestAWaitEndsWithTheLock: a run that only waits notices the loss at the next
// renewal, not at its end.
func TestAWaitEndsWithTheLock(t *testing.T) {
	w := newWorld(t, header+"def run(p):\n    step(\"a\", put, \"a\", \"1\")\n    pause(\"10h\")\n")
	w.onEvent = func(e event.Event) {
		if _, ok := e.Body.(*event.EffectDone); ok {
			w.other()
		}
	}
	at := w.sim.Clock().Now()
	err := runOptions(w.locked())
	if !errors.Is(err, lock.ErrLost) || diag.ExitCode(err) != diag.InDoubt {
		t.Fatalf("%v", err)
	}
	if d := w.sim.Clock().Now().Sub(at); d > lock.Duration {
		t.Errorf("it waited on for %v", d)
	}
}

// TestEveryMutationIsFenced changes the target in the instant between the
// gates' look at it and the request, under rutter's own manager: the request of
// one who does not know that the mesh is another's must not go through. It is
// judged anew; here, where the mesh is still this run's, that lets it pass.
func TestEveryMutationIsFenced(t *testing.T) {
	for name, c := range map[string]struct {
		script, verb string
		absent       bool
	}{
		"apply":                   {`put, "a", "2"`, "apply", false},
		"apply of what is absent": {`put, "a", "2"`, "apply", true},
		"merge patch":             {`alter, "a", "merge"`, "patch", false},
		"JSON patch":              {`alter, "a", "json"`, "patch", false},
		"delete":                  {`drop, "a", ""`, "delete", false},
		"replace":                 {`alter, "a", "replace"`, "update", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, header+"def run(p):\n    step(\"s\", "+c.script+")\n")
			if !c.absent {
				w.outside("a", "1")
			}
			w.sim.Inject(sim.Fault{
				Verb: c.verb, Resource: "configmaps", LiveOnly: true, Kind: sim.FaultHook,
				Hook: func(sim.Request) { w.outside("a", "theirs") },
			})
			w.sim.ClearRequests()
			if err := w.run(); err != nil {
				t.Fatal(err)
			}
			var codes []int
			for _, r := range w.sim.Requests() {
				if r.Verb == c.verb && !r.DryRun && r.Resource == "configmaps" {
					codes = append(codes, r.Code)
				}
			}
			// Theirs, too, is an apply. A JSON patch whose test fails is a 422.
			if c.verb == "apply" {
				codes = slices.DeleteFunc(codes, func(code int) bool { return code == 201 })
			}
			refused := slices.IndexFunc(codes, func(code int) bool { return code == 409 || code == 422 })
			if refused < 0 {
				t.Errorf("it went through: %v", codes)
			}
		})
	}
}

// alter changes a ConfigMap in another way than by an apply.
var alter = builtin.NewWrite(builtin.WriteDef[putArgs]{
	Name: "alter", Doc: "Changes a ConfigMap.", Example: `alter("a", "merge")`, Returns: "int", Effects: []effect.Class{effect.Plain},
	Plan: func(c *builtin.Call, a *putArgs) (*effect.Plan, error) {
		ref := cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: "default", Name: a.Name}
		live, err := c.Reader.Get(c.Ctx, ref)
		if err != nil {
			return nil, err
		}
		var e *effect.Effect
		switch a.Value {
		case "merge":
			e, err = effect.PatchOf(ref, string(types.MergePatchType), map[string]any{"data": map[string]any{"v": "2"}})
		case "json":
			e, err = effect.PatchOf(ref, string(types.JSONPatchType), []any{map[string]any{"op": "replace", "path": "/data/v", "value": "2"}})
		default:
			e, err = effect.ReplaceOf(live, live)
		}
		if err != nil {
			return nil, err
		}
		e.Found(live)
		return &effect.Plan{Effects: []*effect.Effect{e}}, nil
	},
	Drive: func(c *builtin.Call, s effect.Submitter, _ *putArgs, p *effect.Plan) (any, error) {
		_, err := s.SubmitAll(c.Ctx, p.Effects)
		return len(p.Effects), err
	},
})

// A run that began where there was no mesh, and has made its namespace, still
// holds the mesh: another one finds its Lease.
func TestTheLeaseOfARunThatMakesTheNamespace(t *testing.T) {
	w := newWorld(t, header+"def run(p):\n    step(\"a\", put, \"a\", \"1\")\n")
	ctx := context.Background()
	where := func(want string) {
		t.Helper()
		if got, err := engine.LockNamespace(ctx, w.client); got != want || err != nil {
			t.Errorf("it is in %q, %v; want %s", got, err, want)
		}
	}
	where("kube-system")
	theirs := w.other()
	made := &cluster.Object{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "istio-system"}}}
	if _, err := w.client.Create(ctx, made, cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	where("kube-system")
	var refusal *gate.Refusal
	if err := runOptions(w.locked()); !errors.As(err, &refusal) || refusal.Findings[0].Code != gate.LockHeld {
		t.Errorf("a second run began: %v", err)
	}
	if err := theirs.Release(ctx); err != nil {
		t.Fatal(err)
	}
	where("istio-system")
}
