package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.starlark.net/starlark"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/builtins/core"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/value"
)

type noArgs struct{}

// world is one simulated cluster with one run's journal.
type world struct {
	t       testing.TB
	sim     *sim.Cluster
	client  *cluster.Client
	journal journal.Journal
	fs      *journal.MemFS
	events  []event.Event
	reads   int
	yes     bool
	policy  *gate.Policy
	script  string
	onEvent func(event.Event)
}

func newWorld(t testing.TB, script string) *world {
	t.Helper()
	s, err := sim.New(sim.Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.New(s.Config(), "sim", s.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, sim: s, client: c, fs: journal.NewMemFS(), yes: true, script: script}
	w.journal, err = journal.Create(w.fs, "/runs", "test", s.Clock())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// count is a read that tells how often it was really made.
func (w *world) count() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[noArgs]{
		Name: "count", Doc: "Counts its calls.", Example: "count()", Returns: "int",
		Do: func(*builtin.Call, *noArgs) (any, error) {
			w.reads++
			return w.reads, nil
		},
	})
}

func (w *world) Approve(context.Context, string, string, []string) (string, bool, error) {
	return "tester", w.yes, nil
}

func (w *world) Leave(context.Context, []gate.Finding) (string, bool, error) {
	return "tester", w.yes, nil
}

func (w *world) options() engine.Options {
	w.t.Helper()
	specs := append(append(core.Specs(), interp.Builtins()...), put, careless, ensure, many, drop, hide, alter, validate, w.count())
	set, err := builtin.NewSet(specs...)
	if err != nil {
		w.t.Fatal(err)
	}
	bundle := &loader.Bundle{Entry: "//t.star", Files: map[string]string{"//t.star": w.script}}
	rb, err := interp.Load(context.Background(), loader.FromBundle(bundle, nil), set.Predeclared(), interp.Limits{})
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := rb.Bind(nil, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	uid, err := w.client.UID(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return engine.Options{
		Env: &env.Env{Clock: w.sim.Clock()}, Cluster: w.client, Journal: w.journal, Builtins: set, Codec: &value.Codec{}, Approver: w, Policy: w.policy,
		Sink: event.SinkFunc(func(e event.Event) {
			w.events = append(w.events, e)
			if w.onEvent != nil {
				w.onEvent(e)
			}
		}),
		Begin: journal.Begin{Run: "test", Runbook: rb.Name, ClusterUID: uid, Context: "sim"}, Scope: rb.Scope,
		Exec: func(ctx context.Context, prepare func(*starlark.Thread)) error {
			return rb.Exec(ctx, p, interp.ExecOptions{}, prepare)
		},
	}
}

func (w *world) run() error {
	return runOptions(w.options())
}

// resume reopens the journal as another process would.
func (w *world) resume() error {
	w.t.Helper()
	if err := w.journal.Close(); err != nil && !errors.Is(err, journal.ErrBroken) {
		w.t.Fatal(err)
	}
	var err error
	if w.journal, err = journal.Open(w.fs, "/runs", "test", w.sim.Clock()); err != nil {
		w.t.Fatal(err)
	}
	return engine.Resume(context.Background(), context.Background(), w.options(), "")
}

func (w *world) data(name string) string {
	w.t.Helper()
	o, err := w.client.Get(context.Background(), cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: "default", Name: name})
	if errors.Is(err, cluster.ErrNotFound) {
		return "absent"
	}
	if err != nil {
		w.t.Fatal(err)
	}
	v, _, _ := unstructured.NestedString(o.Object, "data", "v")
	return v
}

// writes counts the mutations that the cluster saw, dry-runs apart.
func (w *world) writes() int {
	n := 0
	for _, r := range w.sim.Requests() {
		if !r.DryRun && slices.Contains([]string{"create", "update", "patch", "apply", "delete"}, r.Verb) && r.Resource == "configmaps" {
			n++
		}
	}
	return n
}

const header = "runbook(name = \"t\", version = \"1.0.0\")\n"

func TestStepsAndValues(t *testing.T) {
	w := newWorld(t, header+`
def inner(x):
    put("b", x)
    return {"x": x, "l": [1, 2.5, None]}

def run(p):
    a = step("first", put, "a", "1")
    b = step("second", inner, x = a)
    if b["x"] != "a=1" or b["l"][1] != 2.5:
        fail("got %r" % b)
`)
	if err := w.run(); err != nil {
		t.Fatal(err)
	}
	if w.data("a") != "1" || w.data("b") != "a=1" {
		t.Errorf("a=%s b=%s", w.data("a"), w.data("b"))
	}
}

func TestAStepThatIsOverNeverRunsAgain(t *testing.T) {
	w := newWorld(t, header+`
def run(p):
    n = step("count", count)
    step("put", put, "a", str(n))
    step("stop", stop, n)

def stop(n):
    if count() < 3:
        fail("not yet")
    put("b", str(n))
`)
	if err := w.run(); err == nil {
		t.Fatal("want a failure")
	}
	before := w.writes()
	if err := w.resume(); err != nil {
		t.Fatal(err)
	}
	if got := w.data("b"); got != "1" {
		t.Errorf("b = %s, want the recorded 1", got)
	}
	if got := w.writes() - before; got != 1 {
		t.Errorf("%d writes on resume, want 1", got)
	}
}

func TestWritesOutsideOfAStep(t *testing.T) {
	w := newWorld(t, header+`
def run(p):
    put("a", "1")
`)
	err := w.run()
	if diag.ExitCode(err) != diag.Usage || !strings.Contains(err.Error(), "outside of a step") {
		t.Errorf("got %v", err)
	}
	if w.writes() != 0 {
		t.Error("something was written")
	}
}

func TestSiblingNamesAreUnique(t *testing.T) {
	w := newWorld(t, header+`
def run(p):
    step("x", put, "a", "1")
    step("x", put, "a", "2")
`)
	if err := w.run(); err == nil || !strings.Contains(err.Error(), `second step named "x"`) {
		t.Errorf("got %v", err)
	}
}

func TestAttempt(t *testing.T) {
	for name, c := range map[string]struct{ body, want string }{
		"looked at":     {`    r = attempt(fail, "no")` + "\n    log(r.error)", ""},
		"never seen":    {`    r = attempt(fail, "no")` + "\n    log(str(r))", "no"},
		"of a step":     {`    r = attempt(step, "s", fail, "no")` + "\n    if r.ok: fail('ok?')", ""},
		"refusal":       {`    r = attempt(step, "s", put, "istio", "1")` + "\n    if r.ok: fail('ok?')", "RUT016"},
		"retry refusal": {`    step("s", put, "istio", "1", retry = retry(3))`, "RUT016"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, header+"\ndef run(p):\n"+c.body+"\n")
			w.policy = &gate.Policy{Deny: []gate.Rules{{Kinds: []string{"ConfigMap"}}}}
			err := w.run()
			switch {
			case c.want == "" && err != nil:
				t.Errorf("got %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			}
			if c.want == "RUT016" && diag.ExitCode(err) != diag.Blocked {
				t.Errorf("exit code %d, want 3", diag.ExitCode(err))
			}
			if w.writes() != 0 {
				t.Error("something was written")
			}
		})
	}
}

func TestRetryWaitsOnTheRunsClock(t *testing.T) {
	w := newWorld(t, header+`
def flaky():
    if count() < 3:
        fail("again")
    put("a", "1")
    return count()

def run(p):
    step("s", flaky, retry = retry(3, backoff = "10s"))
`)
	began := w.sim.Clock().Now()
	if err := w.run(); err != nil {
		t.Fatal(err)
	}
	if got := w.sim.Clock().Now().Sub(began); got != 30*time.Second {
		t.Errorf("took %s, want 10s + 20s", got)
	}
}

func TestRefusedApprovalIsAskedAgain(t *testing.T) {
	w := newWorld(t, header+`
def run(p):
    step("one", put, "a", "1")
    approve("go on")
    step("two", put, "b", "2")
`)
	w.yes = false
	err := w.run()
	if diag.ExitCode(err) != diag.Blocked || w.data("b") != "absent" {
		t.Fatalf("got %v, b=%s", err, w.data("b"))
	}
	w.yes = true
	if err := w.resume(); err != nil {
		t.Fatal(err)
	}
	if w.data("b") != "2" {
		t.Error("b is not there")
	}
}

// A kill at every journal write and at every request, then a resume: the end
// is the same, and nothing is written twice.
func TestKilledAnywhere(t *testing.T) {
	script := header + `
def pair(n):
    put("p%d" % n, "1")
    count()
    put("q%d" % n, str(count()))
    return n

def run(p):
    for n in range(3):
        step("pair %d" % n, pair, n)
    step("again", put, "p0", "2")
`
	clean := newWorld(t, script)
	if err := clean.run(); err != nil {
		t.Fatal(err)
	}
	want := clean.writes()
	ops := 0
	for kill := 1; ; kill++ {
		w := newWorld(t, script)
		n, dead := 0, false
		w.fs.Fault(func(int, string) error {
			if n++; n >= kill {
				dead = true
				return errors.New("killed")
			}
			return nil
		})
		err := w.run()
		if !dead {
			break
		}
		ops++
		if err == nil {
			t.Fatalf("kill %d: the run noticed nothing", kill)
		}
		w.fs = w.fs.Crash(0)
		w.journal, err = journal.Open(w.fs, "/runs", "test", w.sim.Clock())
		if errors.Is(err, journal.ErrNotBegun) {
			continue
		}
		if err != nil {
			t.Fatalf("kill %d: %v", kill, err)
		}
		if body, err := begun(w.journal); err != nil || body == nil {
			continue // killed before the first record was durable: nothing happened
		}
		if err := engine.Resume(context.Background(), context.Background(), w.options(), ""); err != nil {
			t.Fatalf("kill %d: resume: %v", kill, err)
		}
		if got := w.writes(); got != want {
			t.Errorf("kill %d: %d writes, want %d", kill, got, want)
		}
		if w.data("p0") != "2" || w.data("q2") == "absent" {
			t.Errorf("kill %d: p0=%s q2=%s", kill, w.data("p0"), w.data("q2"))
		}
	}
	if ops < 20 {
		t.Errorf("only %d kill points were tried", ops)
	}
}

func begun(j journal.Journal) (journal.Body, error) {
	for rec, err := range j.Records() {
		if err != nil {
			return nil, err
		}
		return rec.Decode()
	}
	return nil, nil
}

func TestAnswersThatNeverCame(t *testing.T) {
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("took effect %v", after), func(t *testing.T) {
			w := newWorld(t, header+`
def run(p):
    step("s", put, "a", "1", retry = retry(2))
`)
			// The first two applies are dry-runs: the forecast's and the gate's.
			w.sim.Inject(sim.Fault{Verb: "apply", Resource: "configmaps", Kind: sim.FaultStatus, Code: 503, Skip: 2, After: after})
			if err := w.run(); err != nil {
				t.Fatal(err)
			}
			if w.data("a") != "1" {
				t.Errorf("a = %s", w.data("a"))
			}
		})
	}
}

func TestInterruptStopsBetweenEffects(t *testing.T) {
	w := newWorld(t, header+`
def run(p):
    step("one", put, "a", "1")
    step("two", put, "b", "2")
`)
	soft, cancel := context.WithCancel(context.Background())
	w.onEvent = func(e event.Event) {
		if _, ok := e.Body.(*event.EffectDone); ok {
			cancel()
		}
	}
	err := engine.Run(soft, context.Background(), w.options())
	if diag.ExitCode(err) != diag.Interrupted {
		t.Fatalf("got %v (exit %d), want 130", err, diag.ExitCode(err))
	}
	if w.data("a") != "1" || w.data("b") != "absent" {
		t.Errorf("a=%s b=%s", w.data("a"), w.data("b"))
	}
	w.onEvent = nil
	if err := w.resume(); err != nil {
		t.Fatal(err)
	}
	if w.data("b") != "2" || w.writes() != 2 {
		t.Errorf("b=%s after %d writes", w.data("b"), w.writes())
	}
}

func TestAnotherCluster(t *testing.T) {
	w := newWorld(t, header+`
def run(p):
    step("one", put, "a", "1")
    fail("stop")
`)
	if err := w.run(); err == nil {
		t.Fatal("want a failure")
	}
	o := w.options()
	o.Begin.ClusterUID = "another"
	err := engine.Resume(context.Background(), context.Background(), o, "")
	if diag.ExitCode(err) != diag.Blocked || !strings.Contains(err.Error(), "it began on cluster another") {
		t.Errorf("got %v", err)
	}
}

func TestEndlessLoop(t *testing.T) {
	w := newWorld(t, header+`
def run(p):
    attempt(spin)

def spin():
    for i in range(1000000):
        for j in range(1000000):
            pass
`)
	err := w.run()
	if err == nil || !strings.Contains(err.Error(), "budget") {
		t.Errorf("got %v", err)
	}
}

func runOptions(o engine.Options) error {
	return engine.Run(context.Background(), context.Background(), o)
}
