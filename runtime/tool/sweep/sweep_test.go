package sweep

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/sim"
)

func emptyWorld(t *testing.T) *world {
	t.Helper()
	c, err := sim.New(sim.Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	return newWorld(&Subject{Before: c})
}

// write sends a write of an effect through the wire.
func write(t *testing.T, p *process, name, key string) error {
	t.Helper()
	cfg := p.w.sim.Config()
	cfg.Transport = wire{p, cfg.Transport}
	c, err := cluster.New(cfg, contextName, p.w.sim.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": name, "namespace": "default", "annotations": map[string]any{cluster.AnnotationEffect: key}},
	}}
	_, err = c.Create(context.Background(), o, cluster.WriteOptions{})
	return err
}

// A write is let pass only when its intent is on the disk and open.
func TestWritesNeedAnIntentOnTheDisk(t *testing.T) {
	for _, c := range []struct {
		name                    string
		intent, synced, outcome bool
		want                    string
	}{
		{"none", false, false, false, "no open intent"},
		{"written", true, false, false, "not on the disk"},
		{"synced", true, true, false, ""},
		{"concluded", true, true, true, "no open intent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := emptyWorld(t)
			j, err := journal.Create(w.disk, root, w.run, w.sim.Clock())
			if err != nil {
				t.Fatal(err)
			}
			l := ledgered{j, &process{w: w}}
			add := func(b journal.Body, sync bool) {
				if _, err := l.Append(b, sync); err != nil {
					t.Fatal(err)
				}
			}
			add(&journal.Begin{Run: w.run}, true)
			if c.intent {
				add(&journal.Intent{Key: "step apply a", Effect: &effect.Effect{Verb: effect.Create}}, c.synced)
			}
			if c.outcome {
				add(&journal.Outcome{Key: "step apply a", Status: journal.Done}, true)
			}
			if err := write(t, &process{w: w}, "a", "step apply a"); err != nil {
				t.Fatal(err)
			}
			got := strings.Join(w.broken, "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if len(w.sent) != 1 || !w.sent[0].took() {
				t.Errorf("sent: %+v", w.sent)
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// An effect that a gate blocked and that is about to be made all the same; some
// gates don't hold a rollback.
func TestGatesHold(t *testing.T) {
	for _, c := range []struct {
		code    gate.Code
		verdict gate.Verdict
		undoing bool
		want    int
	}{
		{gate.Disruption, gate.Pass, false, 0},
		{gate.Disruption, gate.Ask, false, 0},
		{gate.Disruption, gate.Block, false, 1},
		{gate.Disruption, gate.Block, true, 1},
		{"RUT003", gate.Block, false, 1},
		{"RUT003", gate.Block, true, 0},
	} {
		w := emptyWorld(t)
		w.limits.undoing = c.undoing
		j, err := journal.Create(w.disk, root, w.run, w.sim.Clock())
		if err != nil {
			t.Fatal(err)
		}
		i := &journal.Intent{Key: "k", Effect: &effect.Effect{Verb: effect.Create}, Findings: []gate.Finding{{Code: c.code, Verdict: c.verdict}}}
		if _, err := (ledgered{j, &process{w: w}}).Append(i, true); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if len(w.broken) != c.want {
			t.Errorf("%+v: %v", c, w.broken)
		}
	}
}

// A write that the wire did not see shows in the server's own log.
func TestWritesBesideTheWire(t *testing.T) {
	w := emptyWorld(t)
	c, err := cluster.New(w.sim.Config(), contextName, w.sim.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a", "namespace": "default"},
	}}
	if _, err := c.Create(context.Background(), o, cluster.WriteOptions{DryRun: true}); err != nil {
		t.Fatal(err)
	}
	if w.served(); len(w.broken) > 0 {
		t.Fatalf("a dry run: %v", w.broken)
	}
	if _, err := c.Create(context.Background(), o, cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if w.served(); len(w.broken) != 1 {
		t.Errorf("broken: %v", w.broken)
	}
}

func TestEachFault(t *testing.T) {
	names := map[string]bool{}
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) {
			if names[f.name] {
				t.Error("the name is not its own")
			}
			names[f.name] = true
			w := emptyWorld(t)
			p := &process{w: w, plan: plan{failAt: 1, fault: &f}}
			tr := wire{p, w.sim.Config().Transport}
			body := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"default"}}`
			r, err := http.NewRequest(http.MethodPost, "http://sim/api/v1/namespaces/default/configmaps", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			resp, err := tr.RoundTrip(r)
			if err == nil {
				_, err = io.ReadAll(resp.Body)
			}
			if err == nil && resp.StatusCode < 400 {
				t.Errorf("the request went well: %d", resp.StatusCode)
			}
			made := false
			for _, o := range w.sim.Objects() {
				made = made || o.GetKind() == "ConfigMap" && o.GetName() == "a"
			}
			if made != f.after {
				t.Errorf("took effect: %v, want %v", made, f.after)
			}
		})
	}
}

func TestCaseIDs(t *testing.T) {
	points := []point{{get: true}, {writes: true}, {}}
	cases := all(points, 2, 2)
	seen := map[string]bool{}
	for _, c := range cases {
		id := c.String()
		if seen[id] {
			t.Errorf("%s twice", id)
		}
		seen[id] = true
		got, err := ParseCase(id)
		if err != nil || got != c {
			t.Errorf("%s: %+v, %v", id, got, err)
		}
	}
	for _, id := range []string{"r1.deny.resume", "r3.timeout-after.resume"} {
		if seen[id] {
			t.Errorf("%s: a fault that is for writes", id)
		}
	}
	for _, id := range []string{"r2.deny.resume", "r2.timeout-after.rollback", "j2.power3.again", "r1.500.resume", "r1.stall.resume", "r2.stall-after.rollback", "w2.cut.resume", "w1.stall.resume"} {
		if !seen[id] {
			t.Errorf("%s is left out", id)
		}
	}
	for _, id := range []string{"", "r0.500.resume", "r1.501.resume", "j1.500.resume", "r1.500", "x1.500.resume", "j1.kill.later", "w1.500.resume", "w0.cut.resume", "j1.cut.resume"} {
		if _, err := ParseCase(id); err == nil {
			t.Errorf("%q is taken for a case", id)
		}
	}
}

func TestSample(t *testing.T) {
	cases := all(make([]point, 30), 5, 10)
	a, b, c := sample(cases, 50, 1), sample(cases, 50, 1), sample(cases, 50, 2)
	if len(a) != 50 || !slices.Equal(a, b) {
		t.Errorf("%d cases, not the same ones", len(a))
	}
	if slices.Equal(a, c) {
		t.Error("another seed picks the same")
	}
	if n := len(sample(cases, 0, 1)); n != len(cases) {
		t.Errorf("%d of all %d", n, len(cases))
	}
}

// What a fork does is not seen by what it was forked from.
func TestForksAreApart(t *testing.T) {
	w := emptyWorld(t)
	j, err := journal.Create(w.disk, root, w.run, w.sim.Clock())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(&journal.Begin{Run: w.run}, true); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(&journal.Log{Message: "written, not synced"}, false); err != nil {
		t.Fatal(err)
	}
	holds := func(d *journal.MemFS, s string) bool {
		found := false
		d.Contents(func(_ string, b []byte) { found = found || bytes.Contains(b, []byte(s)) })
		return found
	}
	killed, cut := w.fork(), w.fork()
	cut.disk = cut.disk.Crash(0)
	if _, err := j.Append(&journal.Log{Message: "after the fork"}, true); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if !holds(w.disk, "after the fork") || holds(killed.disk, "after the fork") {
		t.Error("the fork sees what came after it")
	}
	if !holds(killed.disk, "written, not synced") {
		t.Error("what a killed process wrote is gone")
	}
	if holds(cut.disk, "written, not synced") {
		t.Error("what was not synced survived the power cut")
	}
	if err := killed.reopened(); err != nil || !killed.begun {
		t.Errorf("killed: begun %v, %v", killed.begun, err)
	}
}
