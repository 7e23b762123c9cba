package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/cmd/modules"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/sim"
)

// kills is about how many points of each example a kill is tried at.
const kills = 25

// moment is a run that was killed before its example began: a disk and a
// cluster, of which every trial gets copies.
type moment struct {
	lab  *lab
	disk *journal.MemFS
	sim  *sim.Cluster
}

var errKilled = errors.New("killed")

// before runs an example's preamble, and is killed at its end.
func (l *lab) before(t *testing.T, s *builtin.Spec) *moment {
	t.Helper()
	st := settingOf(s)
	w := l.world(st.mesh)
	began := false
	w.on = func(e event.Event) {
		if m, ok := e.Body.(*event.Log); ok && m.Message == marker {
			began = true
			w.disk.Fault(func(int, string) error { return errKilled })
		}
	}
	err := w.run(st.source(s))
	if err == nil || !began {
		t.Fatalf("the run did not come to its example: %v\nin:\n%s", err, st.source(s))
	}
	return &moment{lab: l, disk: w.disk.Crash(1 << 30), sim: w.sim}
}

// world is a copy of the moment.
func (m *moment) world() *world {
	c := m.sim.Clone()
	return &world{lab: m.lab, sim: c, disk: m.disk.Crash(1 << 30)}
}

// outcome is what a run comes to.
type outcome struct {
	state map[string]string
	made  []string // mutations, sorted
}

// settleTime is how long the controllers get to come to rest.
const settleTime = 5 * time.Minute

func (w *world) outcome(t *testing.T) outcome {
	t.Helper()
	w.sim.Advance(settleTime)
	state, err := stateOf(w.sim)
	if err != nil {
		t.Fatal(err)
	}
	made := mutations(w.sim.Requests())
	slices.Sort(made)
	return outcome{state, made}
}

func TestWrites(t *testing.T) {
	l := laboratory(t)
	for _, s := range modules.Specs(l.renderer) {
		if s.Class != builtin.Write {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			m := l.before(t, s)
			w := m.world()
			plans := &planWatch{w: w, t: t}
			ops := 0
			count := func(int, string) error { ops++; return nil }
			w.disk.Fault(count)
			w.on = plans.event
			if err := w.resume(); err != nil {
				t.Fatalf("%v\nin:\n%s", err, settingOf(s).source(s))
			}
			w.disk.Fault(nil)
			want := w.outcome(t)
			if len(want.made) == 0 {
				t.Fatal("the example changes nothing")
			}
			plans.done()
			w.predicted(t, s)
			m.killed(t, ops, want)
		})
	}
}

// planWatch sees to it that nothing is written between the beginning of a step,
// or its last effect, and the plan of a call in it.
type planWatch struct {
	w     *world
	t     *testing.T
	seen  int // mutations so far
	plans int
}

func (p *planWatch) event(e event.Event) {
	now := mutations(p.w.sim.Requests())
	switch b := e.Body.(type) {
	case *event.PlanMade:
		p.plans++
		if len(now) != p.seen {
			p.t.Errorf("step %q: making the plan of %s wrote: %s", e.Step, b.Builtin, now[p.seen:])
		}
	case *event.StepStarted, *event.EffectDone, *event.EffectFailed, *event.EffectObserved:
		p.seen = len(now)
	}
}

func (p *planWatch) done() {
	if p.plans == 0 {
		p.t.Error("no plan was made")
	}
}

// predicted compares what was planned with what was done.
func (w *world) predicted(t *testing.T, s *builtin.Spec) {
	t.Helper()
	planned, intents := map[string][]string{}, map[string][]string{}
	forecast := map[string]*effect.Effect{} // by digest
	j, err := journal.Open(w.disk, journalRoot, runID, w.sim.Clock())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[effect.Class]bool{}
	keys := map[string]*journal.Intent{}
	shown := map[string]string{}
	for rec, err := range j.Records() {
		if err != nil {
			t.Fatal(err)
		}
		body, err := rec.Decode()
		if err != nil {
			t.Fatal(err)
		}
		switch b := body.(type) {
		case *journal.Plan:
			if b.Builtin != s.Name {
				continue
			}
			p, err := readPlan(j, b)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range p.Effects {
				planned[b.Step] = append(planned[b.Step], line(e))
				forecast[b.Step+e.Digest()] = e
			}
		case *journal.Intent:
			if b.Effect.Builtin == s.Name {
				intents[b.Step] = append(intents[b.Step], line(b.Effect))
				keys[b.Key] = b
				seen[b.Effect.Class] = true
				shown[b.Key] = fmt.Sprintf("%s %s (%s)", b.Effect.Verb, b.Effect.Ref, b.Effect.Class)
			}
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if len(planned) == 0 {
		t.Error("the journal holds no plan")
	}
	for step, want := range planned {
		got := intents[step]
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(want, got) {
			t.Errorf("step %q: planned and not done: %s; done and not planned: %s", step, without(want, got), without(got, want))
		}
	}
	compared := 0
	for _, m := range w.made {
		in := keys[m.key]
		if in == nil {
			continue
		}
		p := forecast[in.Step+in.Effect.Digest()]
		if p == nil || p.After == nil {
			continue
		}
		compared++
		if d := difference(p.After, m.obj); d != "" {
			t.Errorf("%s: was not what the plan predicted: %s", m.ref, d)
		}
	}
	t.Logf("%d effects, %d compared with their prediction: %s", len(keys), compared, slices.Sorted(maps.Values(shown)))
	declared(t, s, seen)
}

func readPlan(j journal.Journal, rec *journal.Plan) (*effect.Plan, error) {
	raw := []byte(rec.Plan.Inline)
	if rec.Plan.Blob != "" {
		var err error
		if raw, err = j.Get(rec.Plan.Blob); err != nil {
			return nil, err
		}
	}
	p := &effect.Plan{}
	return p, json.Unmarshal(raw, p)
}

// line names an effect. The move of fields that goes before an adopting apply
// is made out anew right before it is sent, because controllers reorder the
// owners all the time; only what it is done to is foreseen.
func line(e *effect.Effect) string {
	if manifest.IsMove(e) {
		return fmt.Sprintf("%s %s", e.Verb, e.Ref)
	}
	return fmt.Sprintf("%s %s %s", e.Verb, e.Ref, e.Digest())
}

func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

// difference says where the normal forms of two objects part, "" where they
// don't.
func difference(want, got *cluster.Object) string {
	a := cluster.Normalize(want, cluster.NormalizeOptions{}).Object
	b := cluster.Normalize(got, cluster.NormalizeOptions{}).Object
	if want.GetKind() == "Service" && want.GetResourceVersion() == "" { // its dry-run and its making are given different ones
		for _, field := range []string{"clusterIP", "clusterIPs"} {
			unstructured.RemoveNestedField(a, "spec", field)
			unstructured.RemoveNestedField(b, "spec", field)
		}
	}
	return parts("", a, b)
}

func parts(path string, a, b any) string {
	ma, oka := a.(map[string]any)
	mb, okb := b.(map[string]any)
	if oka && okb {
		keys := slices.Collect(maps.Keys(ma))
		for k := range mb {
			if _, ok := ma[k]; !ok {
				keys = append(keys, k)
			}
		}
		slices.Sort(keys)
		for _, k := range keys {
			if d := parts(path+"."+k, ma[k], mb[k]); d != "" {
				return d
			}
		}
		return ""
	}
	x, errX := cluster.CanonicalJSON(a)
	y, errY := cluster.CanonicalJSON(b)
	if errX != nil || errY != nil || string(x) != string(y) {
		return fmt.Sprintf("%s: want %.300s, got %.300s", path, x, y)
	}
	return ""
}

// killed kills the run at points spread over its journal operations, resumes
// it, and wants what an uninterrupted run comes to. Every other kill finds the
// operation done though its answer never came.
func (m *moment) killed(t *testing.T, ops int, want outcome) {
	t.Helper()
	points := min(kills, ops)
	for i := range points {
		at := 1 + i*(ops-1)/(points-1)
		w := m.world()
		cause := errKilled
		if i%2 == 1 {
			cause = journal.ErrCrashed
		}
		n := 0
		w.disk.Fault(func(int, string) error {
			if n++; n >= at {
				return cause
			}
			return nil
		})
		if err := w.resume(); err == nil {
			t.Fatalf("kill at %d of %d: the run noticed nothing", at, ops)
		}
		w.disk = w.disk.Crash(0)
		if err := w.resume(); err != nil {
			t.Errorf("kill at %d of %d: resume: %v", at, ops, err)
			continue
		}
		got := w.outcome(t)
		if !slices.Equal(got.made, want.made) {
			t.Errorf("kill at %d of %d: not written: %s; written besides: %s", at, ops, lessOne(want.made, got.made), lessOne(got.made, want.made))
		}
		for _, k := range slices.Sorted(maps.Keys(want.state)) {
			if got.state[k] != want.state[k] {
				t.Errorf("kill at %d of %d: %s is not as without the kill:\n%s\nwant\n%s", at, ops, k, got.state[k], want.state[k])
			}
		}
		for k := range got.state {
			if _, ok := want.state[k]; !ok {
				t.Errorf("kill at %d of %d: %s is there, and is not without the kill", at, ops, k)
			}
		}
	}
	t.Logf("killed at %d of %d journal operations", points, ops)
}

// lessOne is a without b, each of b taking away one.
func lessOne(a, b []string) []string {
	out := slices.Clone(a)
	for _, s := range b {
		if i := slices.Index(out, s); i >= 0 {
			out = slices.Delete(out, i, i+1)
		}
	}
	return out
}
