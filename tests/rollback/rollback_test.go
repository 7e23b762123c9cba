package rollback

import (
	"context"
	"errors"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/tests/workbench"
)

// upgraded is a world in which the whole in-place upgrade was carried out.
func upgraded(t testing.TB) *world {
	t.Helper()
	w := laboratory(t).world(t)
	if err := w.run(context.Background()); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestTheWholeUpgrade(t *testing.T) {
	l := laboratory(t)
	want := workbench.State(t, l.before)
	w := upgraded(t)
	w.sim.Advance(settle)
	if got := workbench.State(t, w.sim); got["deployment.apps/istiod in istio-system"] == want["deployment.apps/istiod in istio-system"] {
		t.Fatal("the upgrade changed nothing")
	}
	w.events = nil
	if err := w.rollback(engine.RollbackOptions{}); err != nil {
		t.Fatal(err)
	}
	workbench.Same(t, w.state(), want)
	if got := w.compared(); !strings.HasPrefix(got, "equal to before: ") || strings.Contains(got, "excepted") {
		t.Errorf("it says %q", got)
	}
	if err := w.rollback(engine.RollbackOptions{}); diag.ExitCode(err) != diag.Usage {
		t.Errorf("a second rollback: %v", err)
	}
	if err := w.resume(); diag.ExitCode(err) != diag.Usage || !errors.Is(err, engine.ErrRollback) {
		t.Errorf("a resume of it: %v", err)
	}
}

// A plan changes nothing, the journal included.
func TestThePlanChangesNothing(t *testing.T) {
	w := upgraded(t)
	before := w.sim.Objects()
	ops := 0
	w.disk.Fault(func(_ int, kind string) error {
		if kind == "write" {
			ops++
		}
		return nil
	})
	if err := w.rollback(engine.RollbackOptions{PlanOnly: true}); err != nil {
		t.Fatal(err)
	}
	if ops > 0 {
		t.Errorf("%d writes to the journal", ops)
	}
	if n := len(w.sim.Objects()); n != len(before) {
		t.Errorf("%d objects, before %d", n, len(before))
	}
	for i, o := range w.sim.Objects() {
		if o.GetResourceVersion() != before[i].GetResourceVersion() {
			t.Errorf("%s %s was written", o.GetKind(), o.GetName())
		}
	}
	if len(w.plan().Parts) == 0 {
		t.Error("the plan is empty")
	}
}

// Stopped at the beginning of each step, then rolled back.
func TestAfterAStopAtEachStep(t *testing.T) {
	l := laboratory(t)
	want := workbench.State(t, l.before)
	var steps []string
	for _, e := range upgraded(t).events {
		if b, ok := e.Body.(*event.StepStarted); ok && b.Depth == 0 {
			steps = append(steps, b.Name)
		}
	}
	if len(steps) < 6 {
		t.Fatalf("steps: %v", steps)
	}
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			w := l.world(t)
			soft, stop := context.WithCancel(context.Background())
			defer stop()
			w.on = func(e event.Event) {
				if b, ok := e.Body.(*event.StepStarted); ok && b.Name == step {
					stop()
				}
			}
			if err := w.run(soft); diag.ExitCode(err) != diag.Interrupted {
				t.Fatalf("the run: %v", err)
			}
			w.on = nil
			if err := w.rollback(engine.RollbackOptions{}); err != nil {
				t.Fatal(err)
			}
			workbench.Same(t, w.state(), want)
		})
	}
}

// trials is about how many points of each a kill is tried at.
const trials = 40

func points(ops int) []int {
	n := trials
	if testing.Short() {
		n = 8
	}
	n = min(n, ops)
	var out []int
	for i := range n {
		out = append(out, 1+i*(ops-1)/max(1, n-1))
	}
	return out
}

// The run is killed at points spread over its journal, then rolled back.
func TestKilledThenRolledBack(t *testing.T) {
	l := laboratory(t)
	want := workbench.State(t, l.before)
	counted := l.world(t)
	ops := 0
	counted.disk.Fault(func(int, string) error { ops++; return nil })
	if err := counted.run(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i, at := range points(ops) {
		w := l.world(t)
		w.killAt(at, i%2 == 1)
		if err := w.run(context.Background()); err == nil {
			t.Fatalf("kill at %d of %d: the run noticed nothing", at, ops)
		}
		w.reborn()
		err := w.rollback(engine.RollbackOptions{})
		switch {
		case errors.Is(err, journal.ErrNotBegun), errors.Is(err, journal.ErrNoRun):
		case err != nil:
			t.Errorf("kill at %d of %d: %v", at, ops, err)
			continue
		}
		workbench.Same(t, w.state(), want)
	}
	t.Logf("of %d journal operations", ops)
}

// The rollback is killed at points spread over its journal, and called again.
func TestRollbackKilledAnywhere(t *testing.T) {
	l := laboratory(t)
	want := workbench.State(t, l.before)
	up := upgraded(t)
	counted := up.again()
	ops := 0
	counted.disk.Fault(func(int, string) error { ops++; return nil })
	if err := counted.rollback(engine.RollbackOptions{}); err != nil {
		t.Fatal(err)
	}
	for i, at := range points(ops) {
		w := up.again()
		w.killAt(at, i%2 == 1)
		if err := w.rollback(engine.RollbackOptions{}); err == nil {
			t.Fatalf("kill at %d of %d: the rollback noticed nothing", at, ops)
		}
		w.reborn()
		err := w.rollback(engine.RollbackOptions{})
		if diag.ExitCode(err) == diag.Usage && strings.Contains(err.Error(), "rolled back already") {
			err = nil // killed after its last record
		}
		if err != nil {
			t.Errorf("kill at %d of %d: %v", at, ops, err)
			continue
		}
		workbench.Same(t, w.state(), want)
	}
	t.Logf("of %d journal operations", ops)
}
