package plan_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/plan"
)

// killedAt runs a saved plan and kills the host when the n-th effect is made: its
// context ends, as at a second interrupt, and with it whatever was under way.
func (l *lab) killedAt(n int, saved []byte) (journal.FS, bool) {
	l.t.Helper()
	disk := journal.NewMemFS()
	ctx, kill := context.WithCancel(l.t.Context())
	defer kill()
	made := 0
	l.beside = func(e event.Event) {
		if _, ok := e.Body.(*event.EffectDone); ok {
			if made++; made == n {
				kill()
			}
		}
	}
	err := l.runOn(ctx, disk, saved)
	l.beside = nil
	return disk, err != nil
}

// A run of a saved plan that was killed is held to the plan when it is resumed: at
// whichever effect it was killed, what is not in the plan is still refused, what was
// made before still counts, and nothing is refused that is in it.
func TestResumeIsHeldToThePlan(t *testing.T) {
	whole := newLab(t).planned()
	for n := 1; n < len(whole.Effects); n++ {
		l := newLab(t)
		b, p := l.saved()
		disk, killed := l.killedAt(n, b)
		if !killed {
			t.Fatalf("killed at effect %d: the run went on", n)
		}
		if err := l.resume(disk); err != nil {
			t.Errorf("killed at effect %d: a run that keeps to its plan is not resumed: %v", n, err)
		}
		if got := distinct(l.made()); len(got) != len(p.Effects) {
			t.Errorf("killed at effect %d: made %q", n, got)
		}

		// The same, of a plan without the last effect.
		l = newLab(t)
		cut := l.planned()
		cut.Effects = slices.DeleteFunc(cut.Effects, func(e plan.Effect) bool { return e.Ref.Name == "old" })
		b, err := plan.Save(cut)
		if err != nil {
			t.Fatal(err)
		}
		if disk, killed = l.killedAt(n, b); !killed {
			t.Fatalf("killed at effect %d: the run went on", n)
		}
		err = l.resume(disk)
		var refusal *gate.Refusal
		if !errors.As(err, &refusal) || !strings.Contains(err.Error(), "RUT008: configmap/old in shop: it is not in the saved plan") {
			t.Errorf("killed at effect %d and resumed: %v", n, err)
		}
		if slices.ContainsFunc(l.made(), func(s string) bool { return strings.Contains(s, "configmap/old") }) {
			t.Errorf("killed at effect %d and resumed: what is not in the plan was made", n)
		}
	}
}

// distinct are effects by what they do, each eviction being one of its own.
func distinct(made []string) []string {
	out := slices.Clone(made)
	slices.Sort(out)
	return slices.Compact(out)
}

// A plan that was taken out of the journal is missed: the run is not resumed
// without it.
func TestResumeWithoutConform(t *testing.T) {
	l := newLab(t)
	b, _ := l.saved()
	disk, _ := l.killedAt(2, b)
	j, err := journal.Open(disk, "/runs", "r1", l.sim.Clock())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }() // in memory
	s := l.session(j)
	s.Conform = nil
	before := len(l.made())
	if err := l.host.Resume(t.Context(), t.Context(), s); err == nil || len(l.made()) != before {
		t.Errorf("resumed without its plan: %v", err)
	}
}
