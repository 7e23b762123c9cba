package engine_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/journal"
)

// people is an approver that answers by name.
type people struct {
	names   []string
	refuses bool
	leave   string
	asked   int
}

func (p *people) Approve(context.Context, string, string, []string) (string, bool, error) {
	return "somebody", true, nil
}

func (p *people) Sign(context.Context, string, string, []gate.Approval, []string) ([]string, bool, error) {
	p.asked++
	return p.names, !p.refuses, nil
}

func (p *people) Leave(context.Context, []gate.Finding) (string, bool, error) {
	p.asked++
	return p.leave, p.leave != "", nil
}

// as begins or resumes the run with somebody else to ask.
func (w *world) as(p engine.Approver, resume bool) error {
	w.t.Helper()
	if resume {
		if err := w.journal.Close(); err != nil {
			w.t.Fatal(err)
		}
		var err error
		if w.journal, err = journal.Open(w.fs, "/runs", "test", w.sim.Clock()); err != nil {
			w.t.Fatal(err)
		}
	}
	o := w.options()
	o.Approver = p
	if resume {
		return engine.Resume(context.Background(), context.Background(), o, "")
	}
	return runOptions(o)
}

// records are the bodies of a type in the journal.
func records[B journal.Body](w *world) []B {
	w.t.Helper()
	var out []B
	for rec, err := range w.journal.Records() {
		if err != nil {
			w.t.Fatal(err)
		}
		body, err := rec.Decode()
		if err != nil {
			w.t.Fatal(err)
		}
		if b, ok := body.(B); ok {
			out = append(out, b)
		}
	}
	return out
}

const approved = header + `
def run(p):
    step("one", put, "a", "1")
    who = approve("apply it")
    step("two", put, "b", who)
`

func two() *gate.Policy {
	return &gate.Policy{Approvals: []gate.Approval{{Step: "*apply*", People: []string{"ada", "grace", "joan"}, Count: 2}}}
}

// Two people approve, each from where they sit: one begins the run, the other
// resumes it.
func TestApprovalOfSeveralPeople(t *testing.T) {
	w := newWorld(t, approved)
	w.policy = two()
	err := w.as(&people{names: []string{"ada"}}, false)
	if diag.ExitCode(err) != diag.Blocked || !strings.Contains(err.Error(), "the policy wants 2 of ada, grace, joan; ada approved; 1 more of grace, joan must") {
		t.Fatalf("got %v", err)
	}
	err = w.as(&people{names: []string{"ada"}}, true)
	if diag.ExitCode(err) != diag.Blocked || !strings.Contains(err.Error(), "1 more of grace, joan must") {
		t.Fatalf("one person counted twice: %v", err)
	}
	if w.data("b") != "absent" {
		t.Fatal("it went on")
	}
	if err := w.as(&people{names: []string{"joan"}}, true); err != nil || w.data("b") != "ada, joan" {
		t.Fatalf("b=%s, %v", w.data("b"), err)
	}
	var by []string
	for _, a := range records[*journal.Approval](w) {
		by = append(by, a.By)
	}
	if want := []string{"ada", "joan", "ada, joan"}; !slices.Equal(by, want) {
		t.Errorf("the journal has approvals of %q, want %q", by, want)
	}
}

func TestApprovalByName(t *testing.T) {
	for name, c := range map[string]struct {
		by   engine.Approver
		want string // "" where it goes on
	}{
		"both at once":     {&people{names: []string{"grace", "ada"}}, ""},
		"nobody by name":   {&people{}, "the policy wants 2 of"}, // --yes
		"the same twice":   {&people{names: []string{"ada", "ada"}}, "1 more of grace, joan must"},
		"a stranger":       {&people{names: []string{"ada", "eve"}}, "the approval of eve does not count"},
		"one refuses":      {&people{names: []string{"ada"}, refuses: true}, "ada did not approve"},
		"who knows no one": {nil, "nobody can be named here"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, approved)
			w.policy = two()
			by := c.by
			if by == nil {
				by = w
			}
			err := w.as(by, false)
			switch {
			case c.want == "" && (err != nil || w.data("b") == "absent"):
				t.Errorf("got %v", err)
			case c.want != "" && (diag.ExitCode(err) != diag.Blocked || !strings.Contains(err.Error(), c.want) || w.data("b") != "absent"):
				t.Errorf("b=%s, got %v; want exit 3 and %q", w.data("b"), err, c.want)
			}
			if c.want != "" && records[*journal.End](w)[0].Status != journal.RunRefused {
				t.Error("the run does not count as refused")
			}
		})
	}
}

// asking is a policy whose rules ask about every change.
type asking struct{}

func (asking) Judge(context.Context, *gate.Run, *effect.Effect) []gate.Finding {
	return []gate.Finding{{Verdict: gate.Ask, Problem: "is it meant", Expect: "a yes"}}
}

// A gate's ask is answered by those whom the policy names, as many as it wants;
// their leave holds for this effect and after a resume.
func TestLeaveOfNamedPeople(t *testing.T) {
	w := newWorld(t, header+"def run(p):\n    step(\"one\", put, \"a\", \"1\")\n")
	w.policy = &gate.Policy{Organization: asking{}, Approvals: []gate.Approval{
		{Ask: true, Gates: []gate.Code{gate.OrganizationRules}, People: []string{"ada", "grace"}, Count: 2},
		{Ask: true, Gates: []gate.Code{gate.Disruption}, People: []string{"joan"}, Count: 1},
	}}
	for i, c := range []struct{ by, want string }{
		{"", "leave of ada and grace, by the policy"},
		{"eve", "that of eve does not count"},
		{"ada", "ada gave it, 1 more of grace must"},
		{"ada", "ada gave it, 1 more of grace must"},
	} {
		err := w.as(&people{leave: c.by}, i > 0)
		refused := records[*journal.Refused](w)
		if diag.ExitCode(err) != diag.Blocked || len(refused) != i+1 || !strings.Contains(refused[i].Findings[0].Expect, c.want) {
			t.Fatalf("leave of %q: got %v, findings %+v; want %q", c.by, err, refused, c.want)
		}
	}
	if err := w.as(&people{leave: "grace"}, true); err != nil || w.data("a") != "1" {
		t.Fatalf("got %v", err)
	}
}

// Without names in the policy whoever is there may give leave, as before.
func TestLeaveOfAnybody(t *testing.T) {
	w := newWorld(t, header+"def run(p):\n    step(\"one\", put, \"a\", \"1\")\n")
	w.policy = &gate.Policy{Organization: asking{}}
	p := &people{leave: "somebody"}
	if err := w.as(p, false); err != nil || p.asked != 1 {
		t.Errorf("asked %d times: %v", p.asked, err)
	}
}

// A run whose window closes stops at the next change, and is resumed in the
// next window. A rollback is not held by it: that is the way out.
func TestWindowOfTheRunsClock(t *testing.T) {
	w := newWorld(t, header+`
def run(p):
    step("one", put, "a", "1")
    pause("20m")
    step("two", put, "b", "2")
`)
	now := w.sim.Clock().Now()
	midnight := now.Truncate(24 * time.Hour)
	minutes := gate.ClockTime(now.Sub(midnight) / time.Minute)
	w.policy = &gate.Policy{Calendar: gate.Calendar{Windows: []gate.Window{{From: minutes, To: minutes + 10, Zone: time.UTC}}, Warn: time.Hour}}
	err := w.run()
	if diag.ExitCode(err) != diag.Blocked || !strings.Contains(err.Error(), "outside of the policy's change windows") || w.data("a") != "1" || w.data("b") != "absent" {
		t.Fatalf("a=%s b=%s, got %v", w.data("a"), w.data("b"), err)
	}
	var warned []string
	for _, e := range w.events {
		if f, ok := e.Body.(*event.Findings); ok {
			for _, x := range f.Findings {
				warned = append(warned, x.Verdict.String()+" "+x.Problem)
			}
		}
	}
	if len(warned) == 0 || !strings.Contains(warned[0], "warn the change window closes in ") {
		t.Errorf("not warned that the window closes: %q", warned)
	}
	if err := w.resume(); diag.ExitCode(err) != diag.Blocked {
		t.Fatalf("resumed outside of the window: %v", err)
	}
	w.sim.Advance(24*time.Hour - 20*time.Minute)
	if err := w.resume(); err != nil || w.data("b") != "2" {
		t.Fatalf("in the next window: b=%s, %v", w.data("b"), err)
	}
	w.sim.Advance(time.Hour)
	if err := w.rollBack(); err != nil || w.data("a") != "absent" || w.data("b") != "absent" {
		t.Fatalf("rollback: a=%s b=%s, %v", w.data("a"), w.data("b"), err)
	}
	last := w.events[len(w.events)-1]
	if _, ok := last.Body.(*event.RunEnded); !ok {
		t.Fatalf("the last event is %T", last.Body)
	}
	for _, e := range w.events {
		if p, ok := e.Body.(*event.RollbackPlan); ok {
			if len(p.Findings) == 0 || gate.Worst(p.Findings) != gate.Warn || p.Findings[0].Code != gate.ChangeWindow {
				t.Errorf("the plan's findings are %v, want a warning of the window", p.Findings)
			}
		}
	}
}

// rollBack undoes the run as another process would.
func (w *world) rollBack() error {
	w.t.Helper()
	if err := w.journal.Close(); err != nil {
		w.t.Fatal(err)
	}
	var err error
	if w.journal, err = journal.Open(w.fs, "/runs", "test", w.sim.Clock()); err != nil {
		w.t.Fatal(err)
	}
	o := w.options()
	o.Invoke = func(ctx context.Context, fn starlark.Callable, prepare func(*starlark.Thread)) error {
		t := &starlark.Thread{Name: "rollback"}
		t.SetLocal(builtin.ContextKey, ctx)
		prepare(t)
		_, err := starlark.Call(t, fn, nil, nil)
		return err
	}
	return engine.Rollback(context.Background(), context.Background(), o, engine.RollbackOptions{})
}

// A waiver lets a refused effect pass, and its use is in the journal with who
// answers for it.
func TestWaiverIsJournaled(t *testing.T) {
	w := newWorld(t, header+"def run(p):\n    step(\"one\", put, \"a\", \"1\")\n    step(\"two\", put, \"b\", \"1\")\n")
	w.policy = deny("ConfigMap")
	w.policy.Waivers = []gate.Waiver{{
		Gate: gate.Scope, Objects: []string{"default/a"}, Person: "ada", Reason: "agreed", Expires: w.sim.Clock().Now().Add(time.Hour),
	}}
	err := w.run()
	if diag.ExitCode(err) != diag.Blocked || w.data("a") != "1" || w.data("b") != "absent" {
		t.Fatalf("a=%s b=%s, got %v", w.data("a"), w.data("b"), err)
	}
	intents := records[*journal.Intent](w)
	if len(intents) != 1 || len(intents[0].Findings) != 1 {
		t.Fatalf("intents %+v", intents)
	}
	f := intents[0].Findings[0]
	if f.Verdict != gate.Warn || f.Waived == nil || f.Waived.Person != "ada" || f.Waived.Reason != "agreed" || f.Waived.Was != gate.Block {
		t.Errorf("the journal says %+v of the waiver", f)
	}
}

// A waiver that expires while the run lasts does not hold any longer.
func TestWaiverExpiresDuringARun(t *testing.T) {
	w := newWorld(t, header+"def run(p):\n    step(\"one\", put, \"a\", \"1\")\n    pause(\"2h\")\n    step(\"two\", put, \"a\", \"2\")\n")
	w.policy = deny("ConfigMap")
	w.policy.Waivers = []gate.Waiver{{
		Gate: gate.Scope, Objects: []string{"default/*"}, Person: "ada", Reason: "agreed", Expires: w.sim.Clock().Now().Add(time.Hour),
	}}
	err := w.run()
	if diag.ExitCode(err) != diag.Blocked || !strings.Contains(err.Error(), "the waiver of ada expired at") || w.data("a") != "1" {
		t.Errorf("a=%s, got %v", w.data("a"), err)
	}
}

// The organization's rules see the run as it is.
type seen struct{ runs []gate.Run }

func (s *seen) Judge(_ context.Context, run *gate.Run, _ *effect.Effect) []gate.Finding {
	s.runs = append(s.runs, *run)
	return nil
}

func TestRulesSeeTheRun(t *testing.T) {
	w := newWorld(t, header+"def run(p):\n    step(\"outer\", inner)\n\ndef inner():\n    step(\"one\", put, \"a\", \"1\")\n")
	s := &seen{}
	w.policy = &gate.Policy{Organization: s}
	if err := w.run(); err != nil {
		t.Fatal(err)
	}
	if len(s.runs) != 2 || !s.runs[0].Forecast || s.runs[1].Forecast {
		t.Fatalf("judged %d times", len(s.runs))
	}
	for _, r := range s.runs {
		if r.Step != "outer/one" || r.Runbook != "t" || r.Context != "sim" || r.ID != "test" || r.Now.IsZero() {
			t.Errorf("sees %+v", r)
		}
	}
}

// A rollback that the policy wants approved by name is approved so, and by
// nobody else; what is not approved leaves the run as it was.
func TestRollbackByName(t *testing.T) {
	w := newWorld(t, header+"def run(p):\n    step(\"one\", put, \"a\", \"1\")\n")
	if err := w.run(); err != nil {
		t.Fatal(err)
	}
	w.policy = &gate.Policy{Approvals: []gate.Approval{{Step: gate.RollbackStep, People: []string{"ada"}, Count: 1}}}
	if err := w.rollBack(); diag.ExitCode(err) != diag.Blocked || w.data("a") != "1" {
		t.Errorf("a=%s, got %v", w.data("a"), err)
	}
	w.policy.Approvals[0].Step = "*" // an approval of any step is none of the way out
	if err := w.rollBack(); err != nil || w.data("a") != "absent" {
		t.Errorf("a=%s, got %v", w.data("a"), err)
	}
}
