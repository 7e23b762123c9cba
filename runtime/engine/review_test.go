package engine_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/sim"
)

func deny(kind string) *gate.Policy {
	return &gate.Policy{Deny: []gate.Rules{{Kinds: []string{kind}}}}
}

func TestWhatIsFatalCannotBeDropped(t *testing.T) {
	for name, c := range map[string]struct {
		body   string
		policy *gate.Policy
		fault  *sim.Fault
		code   diag.Code
	}{
		"refused in the forecast": {`    attempt(step, "s", careless, "a", "1").ok`, deny("ConfigMap"), nil, diag.Blocked},
		"refused live": {`    attempt(step, "s", careless, "a", "1", retry = retry(3)).ok`, nil, &sim.Fault{
			Verb: "apply", Resource: "configmaps", Kind: sim.FaultDeny, Skip: 1, Times: -1,
		}, diag.Blocked},
		"outside of a step": {`    attempt(put, "a", "1").ok`, nil, nil, diag.Usage},
		"a name twice":      {"    step(\"x\", log, \"l\")\n    attempt(step, \"x\", log, \"l\").ok", nil, nil, diag.Usage},
		"approval":          {`    attempt(approve, "really").ok`, nil, nil, diag.Blocked},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, header+"def run(p):\n"+c.body+"\n    step(\"after\", put, \"b\", \"1\")\n")
			w.policy, w.yes = c.policy, false
			if c.fault != nil {
				w.sim.Inject(*c.fault)
			}
			err := w.run()
			if diag.ExitCode(err) != c.code {
				t.Errorf("exit %d, want %d: %v", diag.ExitCode(err), c.code, err)
			}
			if w.writes() != 0 {
				t.Error("something was written")
			}
		})
	}
}

func TestAttemptHandlesOrdinaryErrors(t *testing.T) {
	w := newWorld(t, header+`
def wrong():
    return 1 + "a"

def run(p):
    for r in [
        attempt(fail, "no"), attempt(wrong), attempt(lambda: {}["a"]),
        attempt(step, "unknown keyword", put, "a", "1", colour = "red"),
        attempt(step, "not there", drop, "none", ""),
    ]:
        if r.ok: fail("went well")
    step("after", put, "b", "1")
`)
	if err := w.run(); err != nil || w.data("b") != "1" {
		t.Errorf("b=%s, %v", w.data("b"), err)
	}
}

func TestStaleTargetsAreReadAnew(t *testing.T) {
	for times, ok := range map[int]bool{2: true, 9: false} {
		w := newWorld(t, header+"def run(p):\n    step(\"a\", put, \"a\", \"1\")\n    step(\"b\", drop, \"a\", \"\")\n")
		w.sim.Inject(sim.Fault{Verb: "delete", Resource: "configmaps", Kind: sim.FaultConflict, LiveOnly: true, Times: times})
		err := w.run()
		if (err == nil) != ok || (w.data("a") == "absent") != ok {
			t.Errorf("%d conflicts: %v, a=%s", times, err, w.data("a"))
		}
	}
}

func TestThrottledRequestsAreAskedAgain(t *testing.T) {
	w := newWorld(t, header+"def run(p):\n    step(\"a\", put, \"a\", \"1\")\n")
	w.sim.Inject(sim.Fault{Verb: "apply", Resource: "configmaps", Kind: sim.FaultThrottle, Times: 4})
	if err := w.run(); err != nil || w.data("a") != "1" {
		t.Errorf("a=%s, %v", w.data("a"), err)
	}
}

func (w *world) outside(name, v string) {
	w.t.Helper()
	o := &cluster.Object{}
	if err := o.UnmarshalJSON([]byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"` + name + `","namespace":"default"},"data":{"v":"` + v + `"}}`)); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.client.Apply(context.Background(), o, cluster.ApplyOptions{Force: true}); err != nil {
		w.t.Fatal(err)
	}
}

// What somebody undid between a failure and the resume is made again; what this
// run replaced itself is not.
func TestDriftBetweenFailureAndResume(t *testing.T) {
	w := newWorld(t, header+`
def both():
    put("a", "1")
    put("b", "1")
    put("b", "2")
    if count() < 2:
        fail("not yet")

def run(p):
    step("s", both)
`)
	if err := w.run(); err == nil {
		t.Fatal("want a failure")
	}
	w.outside("a", "somebody's")
	if err := w.resume(); err != nil {
		t.Fatal(err)
	}
	if w.data("a") != "1" || w.data("b") != "2" {
		t.Errorf("a=%s b=%s, want 1 and 2", w.data("a"), w.data("b"))
	}
}

func outcomes(t *testing.T, j journal.Journal) map[journal.Status]int {
	t.Helper()
	out := map[journal.Status]int{}
	for rec, err := range j.Records() {
		if err != nil {
			t.Fatal(err)
		}
		body, err := rec.Decode()
		if err != nil {
			t.Fatal(err)
		}
		if o, ok := body.(*journal.Outcome); ok {
			out[o.Status]++
		}
	}
	return out
}

func TestBatchStopsAtTheFirstFailure(t *testing.T) {
	w := newWorld(t, header+"def run(p):\n    step(\"s\", many, \"a,b,c\", \"\")\n")
	w.sim.Inject(sim.Fault{Verb: "apply", Resource: "configmaps", Name: "b", Kind: sim.FaultDeny, LiveOnly: true})
	if err := w.run(); diag.ExitCode(err) != diag.Failed {
		t.Fatalf("got %v", err)
	}
	if got := outcomes(t, w.journal); got[journal.Done] != 1 || got[journal.Failed] != 1 || got[journal.NotHappened] != 1 {
		t.Errorf("outcomes %v", got)
	}
	if err := w.resume(); err != nil || w.data("c") != "1" {
		t.Errorf("c=%s, %v", w.data("c"), err)
	}
}

// The second interrupt cuts a request off: nobody knows, and the resume looks.
func TestHardCancelInFlight(t *testing.T) {
	w := newWorld(t, header+"def run(p):\n    step(\"s\", put, \"a\", \"1\")\n")
	soft, cancelSoft := context.WithCancel(context.Background())
	hard, cancelHard := context.WithCancel(context.Background())
	w.sim.Inject(sim.Fault{Verb: "apply", Resource: "configmaps", LiveOnly: true, Kind: sim.FaultReset, Hook: func(sim.Request) { cancelSoft(); cancelHard() }})
	err := engine.Run(soft, hard, w.options())
	if diag.ExitCode(err) != diag.InDoubt {
		t.Errorf("exit %d, want 5: %v", diag.ExitCode(err), err)
	}
	if err := w.resume(); err != nil || w.data("a") != "1" {
		t.Errorf("a=%s, %v", w.data("a"), err)
	}
}

func TestTimeouts(t *testing.T) {
	for name, c := range map[string]struct {
		body, want string
		took       time.Duration
	}{
		"own":       {`    step("s", pause, "1m", timeout = "10s")`, "longer than its timeout of 10s", 10 * time.Second},
		"inherited": {`    step("s", lambda: step("t", pause, "1m", timeout = "1h"), timeout = "10s")`, "longer than its timeout of 10s", 10 * time.Second},
		"in time":   {`    step("s", pause, "5s", timeout = "10s")`, "", 5 * time.Second},
		"handled":   {`    if attempt(step, "s", pause, "1m", timeout = "10s").ok: fail("in time?")`, "", 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, header+"def run(p):\n"+c.body+"\n")
			began := w.sim.Clock().Now()
			err := w.run()
			if (c.want == "") != (err == nil) || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Count(err.Error(), "longer than") != 1) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if got := w.sim.Clock().Now().Sub(began); got != c.took {
				t.Errorf("took %s, want %s", got, c.took)
			}
		})
	}
}

// A call that made its changes returns the same value after a kill.
func TestFinishedWritesReplayTheirValue(t *testing.T) {
	script := header + `
def once():
    n = ensure("a", "1")
    log("made")
    m = count()
    put("n", str(n))

def run(p):
    step("s", once)
    step("t", put, "b", "1")
`
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
		_ = w.run() // killed, or not: the resume tells
		if !dead {
			break
		}
		// Whatever was written reached the disk: the worst place to lose a value.
		w.fs = w.fs.Crash(1 << 20)
		j, err := journal.Open(w.fs, "/runs", "test", w.sim.Clock())
		if err != nil {
			continue
		}
		w.journal = j
		if body, err := begun(j); err != nil || body == nil {
			continue
		}
		if err := engine.Resume(context.Background(), context.Background(), w.options(), ""); err != nil {
			t.Fatalf("kill %d: %v", kill, err)
		}
		if w.data("n") != "1" {
			t.Errorf("kill %d: n=%s, want 1", kill, w.data("n"))
		}
	}
}

type flip struct{}

func (flip) Seal(b []byte) ([]byte, error) {
	out := make([]byte, len(b))
	for i := range b {
		out[i] = b[i] ^ 0xff
	}
	return out, nil
}
func (f flip) Open(b []byte) ([]byte, error) { return f.Seal(b) }

func (flip) Mark(about, text string) string {
	sum := sha256.Sum256([]byte("key of this test" + about + text))
	return hex.EncodeToString(sum[:])
}

func TestNoSecretLeavesTheRun(t *testing.T) {
	const canary = "canary-7f3a"
	for name, c := range map[string]struct {
		sealer builtin.Sealer
		deny   bool
		code   diag.Code
	}{
		"sealed": {flip{}, false, diag.OK}, "no key": {nil, false, diag.Blocked}, "denied": {flip{}, true, diag.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, header+"load(\"//v.star\", \"v\")\ndef run(p):\n    step(\"s\", hide, \"a\", v)\n    step(\"t\", hide, \"a\", v + \"2\")\n")
			w.script = strings.Replace(w.script, "load(\"//v.star\", \"v\")", "v = \""+canary+"\"", 1)
			if c.deny {
				w.sim.Inject(sim.Fault{Verb: "apply", Resource: "secrets", Kind: sim.FaultDeny, LiveOnly: true, Message: "refused: " + canary})
			}
			o := w.options()
			o.Sealer = c.sealer
			err := runOptions(o)
			if diag.ExitCode(err) != c.code {
				t.Errorf("exit %d, want %d: %v", diag.ExitCode(err), c.code, err)
			}
			seen := fmt.Sprint(err)
			for _, e := range w.events {
				raw, _ := json.Marshal(e.Body)
				seen += string(raw) + fmt.Sprintf("%+v", e)
			}
			for rec, err := range w.journal.Records() {
				if err != nil {
					t.Fatal(err)
				}
				seen += string(rec.Body)
			}
			if i := strings.Index(seen, canary); i >= 0 {
				t.Errorf("the Secret shows: …%s", seen[max(0, i-120):i+20])
			}
		})
	}
}

// What one effect costs in requests: two reads of its target, two dry-runs and
// the write; the cluster's identity once per judgement, not per effect.
func TestRequestsPerEffect(t *testing.T) {
	w := newWorld(t, header+"def run(p):\n    step(\"s\", many, \"a,b,c,d\", \"\")\n")
	o := w.options()
	before := len(w.sim.Requests())
	if err := runOptions(o); err != nil {
		t.Fatal(err)
	}
	if got, want := len(w.sim.Requests())-before, 4*5+2; got != want {
		for _, r := range w.sim.Requests()[before:] {
			t.Logf("%s %s/%s dry=%v", r.Verb, r.Resource, r.Name, r.DryRun)
		}
		t.Errorf("%d requests for 4 effects, want %d", got, want)
	}
}
