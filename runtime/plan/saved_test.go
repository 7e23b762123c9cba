package plan_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/plan"
)

func (l *lab) saved() ([]byte, *plan.Plan) {
	l.t.Helper()
	b, err := plan.Save(l.planned())
	if err != nil {
		l.t.Fatal(err)
	}
	p, err := plan.Read("small.plan", b)
	if err != nil {
		l.t.Fatal(err)
	}
	return b, p
}

// differences is what the command line asks before it begins.
func (l *lab) differences(p *plan.Plan) []plan.Drift {
	l.t.Helper()
	rb, params := l.runbook()
	from, err := host.Installed(l.t.Context(), l.client())
	if err != nil {
		l.t.Fatal(err)
	}
	ds, err := p.Differences(l.t.Context(), plan.World{Runbook: rb, Params: params, Policy: l.policy, Cluster: l.client(), From: from})
	if err != nil {
		l.t.Fatal(err)
	}
	return ds
}

func (l *lab) patch(ref cluster.Ref, body string) {
	l.t.Helper()
	if _, err := l.client().Patch(l.t.Context(), ref, types.StrategicMergePatchType, []byte(body), cluster.WriteOptions{Manager: "kubectl"}); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) remove(ref cluster.Ref) {
	l.t.Helper()
	if err := l.client().Delete(l.t.Context(), ref, cluster.WriteOptions{}); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) create(text string) {
	l.t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		l.t.Fatal(err)
	}
	if _, err := l.client().Create(l.t.Context(), &cluster.Object{Object: m}, cluster.WriteOptions{Manager: "kubectl"}); err != nil {
		l.t.Fatal(err)
	}
}

func deployment(name string) cluster.Ref {
	return cluster.Ref{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "shop", Name: name}
}

func configmap(name string) cluster.Ref {
	return cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: "shop", Name: name}
}

// The same world as planned: nothing differs, and the run is let through to its
// end, also where pods are others by now.
func TestSavedPlanIsRun(t *testing.T) {
	l := newLab(t)
	l.params = []string{"value=<a href=x>&amp;</a>\u2028"} // the seal holds whatever is in it
	b, p := l.saved()
	l.remove(cluster.Ref{Version: "v1", Kind: "Pod", Namespace: "shop", Name: "db-1"}) // comes back as another
	l.sim.Advance(2 * 60e9)
	l.patch(deployment("web"), `{"spec":{"replicas":4}}`) // as an autoscaler does
	l.patch(configmap("other"), `{"data":{"x":"y"}}`)     // nobody's business
	l.sim.Advance(2 * 60e9)
	if ds := l.differences(p); len(ds) > 0 {
		t.Fatalf("differences: %+v", ds)
	}
	if err := l.run(b); err != nil {
		t.Fatal(err)
	}
	if got, want := len(l.made()), len(p.Effects); got != want {
		t.Errorf("%d effects of %d", got, want)
	}
}

func TestWhatDiffersIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*lab)
		want   string // subject, old and new
	}{
		"runbook":   {func(l *lab) { l.write(script + "\n# more\n") }, "runbook small: was sha256:"},
		"parameter": {func(l *lab) { l.params = []string{"value=3"} }, "parameter value: was 2, is 3"},
		"policy":    {func(l *lab) { l.policy = &gate.Policy{Digest: "sha256:other"} }, "policy: was none, is sha256:"},
		"istio": {func(l *lab) {
			l.patch(cluster.Ref{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "istio-system", Name: "istiod"}, `{"spec":{"template":{"spec":{"containers":[{"name":"discovery","image":"docker.io/istio/pilot:1.31.1"}]}}}}`)
		}, "installed Istio: was 1.31.0, is 1.31.1"},
		"template": {func(l *lab) {
			l.patch(deployment("web"), `{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"web:9"}]}}}}`)
		}, "deployment.apps/web in shop: template spec.containers[web].image: was web:1, is web:9"},
		"deleted object": {func(l *lab) { l.patch(configmap("old"), `{"data":{"gone":"never"}}`) }, "configmap/old in shop: whole data.gone: was soon, is never"},
		"gone":           {func(l *lab) { l.remove(configmap("old")) }, "configmap/old in shop: whole: was there, is absent"},
		"comes": {func(l *lab) {
			l.create(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"added","namespace":"shop"}}`)
		}, "configmap/added in shop: exists: was absent, is there"},
		"label": {func(l *lab) {
			l.patch(cluster.Ref{Version: "v1", Kind: "Namespace", Name: "shop"}, `{"metadata":{"labels":{"tier":"silver"}}}`)
		}, "namespace/shop: set metadata.labels.tier: was none, is silver"},
		"injection": {func(l *lab) {
			l.patch(cluster.Ref{Version: "v1", Kind: "Namespace", Name: "shop"}, `{"metadata":{"labels":{"istio-injection":"enabled"}}}`)
		}, "namespace/shop: labels istio-injection: was none, is enabled"},
		"budget": {func(l *lab) {
			l.patch(cluster.Ref{Group: "policy", Version: "v1", Kind: "PodDisruptionBudget", Namespace: "shop", Name: "web"}, `{"spec":{"minAvailable":3}}`)
		}, "poddisruptionbudget.policy/web in shop: spec minAvailable: was 2, is 3"},
		"new budget": {func(l *lab) {
			l.create(`{"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{"name":"cart","namespace":"shop"},"spec":{"minAvailable":1,"selector":{"matchLabels":{"app":"cart"}}}}`)
		}, `poddisruptionbudgets in shop: was ["db","web"], is ["cart","db","web"]`},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			_, p := l.saved()
			c.change(l)
			err := p.Refuse("small.plan", l.differences(p))
			if !errors.Is(err, plan.ErrNotAsPlanned) || diag.ExitCode(err) != diag.Blocked {
				t.Fatalf("not refused: %v", err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error\n%v\nhas no\n%s", err, c.want)
			}
		})
	}
}

func TestWrongCluster(t *testing.T) {
	l := newLab(t)
	_, p := l.saved()
	p.Cluster.UID = "another"
	err := p.Refuse("small.plan", l.differences(p))
	if err == nil || !strings.Contains(err.Error(), "cluster: was prod (uid another), is prod (uid ") {
		t.Errorf("error %v", err)
	}
}

// What changes after the run has begun is caught by RUT008.
func TestEffectsThatAreNotInThePlan(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*plan.Plan)
		want string
	}{
		"missing": {func(p *plan.Plan) {
			p.Effects = slices.DeleteFunc(p.Effects, func(e plan.Effect) bool { return e.Ref.Name == "old" })
		}, "RUT008: configmap/old in shop: it is not in the saved plan"},
		"other body": {func(p *plan.Plan) { p.Effects[0].Identity = "sha256:00" }, "the saved plan has another change of it"},
		"other verb": {func(p *plan.Plan) { p.Effects[0].Identity, p.Effects[0].Verb = "sha256:00", effect.Delete }, "the saved plan has delete of it in step \"apply\", not apply"},
		"other step": {func(p *plan.Plan) { p.Effects[0].Step = "label" }, "the saved plan changes it in step \"label\", not in step \"apply\""},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			p := l.planned()
			c.edit(p)
			b, err := plan.Save(p)
			if err != nil {
				t.Fatal(err)
			}
			err = l.run(b)
			var refusal *gate.Refusal
			if !errors.As(err, &refusal) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
}

func TestUnreadablePlans(t *testing.T) {
	b, _ := newLab(t).saved()
	edit := func(old, now string) []byte {
		if !bytes.Contains(b, []byte(old)) {
			t.Fatalf("no %s in the plan", old)
		}
		return bytes.Replace(b, []byte(old), []byte(now), 1)
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":       {nil, "small.plan: is empty"},
		"cut off":     {b[:len(b)/2], "small.plan: is cut off"},
		"without end": {b[:len(b)-1], "its seal is broken"},
		"added to":    {append(slices.Clone(b), ' '), "its seal is broken"},
		"changed":     {edit("web", "wed"), "its seal is broken"},
		"newer":       {edit(`"version":1,"digest"`, `"version":2,"digest"`), "is a plan in format 2, made by a newer rutter; expected format 1 at most"},
		"YAML":        {[]byte("format: rutter-plan\n"), "is no saved plan"},
		"other JSON":  {[]byte("{}"), "is no saved plan"},
		"twice":       {edit(`"version":1`, `"version":1,"version":1`), "its seal is broken"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := plan.Read("small.plan", c.data)
			if err == nil || diag.ExitCode(err) != diag.Usage || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"format":"rutter-plan","version":1,"digest":"sha256:","plan":{}}`))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := plan.Read("x", b)
		if err != nil {
			return
		}
		again, err := plan.Save(p)
		if err != nil {
			t.Fatalf("a plan that was read can't be saved: %v", err)
		}
		if _, err := plan.Read("x", again); err != nil {
			t.Fatalf("a plan that was saved can't be read: %v", err)
		}
	})
}

// TestNoneSlipsThrough changes plans and what a run does, 10,000 times. An
// independent account of what was planned says whether the gate may let an
// effect pass.
func TestNoneSlipsThrough(t *testing.T) {
	base := newLab(t).planned()
	sealed, err := plan.Save(base)
	if err != nil {
		t.Fatal(err)
	}
	originals := effectsOf(t, base)
	rnd := rand.New(rand.NewPCG(7, 8))
	refused, passed := 0, 0
	for i := range 10_000 {
		if i%2 == 0 {
			// The file: any byte changed, dropped or added is noticed.
			b := slices.Clone(sealed)
			at := rnd.IntN(len(b))
			switch rnd.IntN(3) {
			case 0:
				b[at] ^= byte(1 + rnd.IntN(255))
			case 1:
				b = slices.Delete(b, at, at+1)
			default:
				b = slices.Insert(b, at, byte(rnd.IntN(256)))
			}
			if p, err := plan.Read("x", b); err == nil && !bytes.Equal(b, sealed) {
				t.Fatalf("change %d of the file at byte %d was not noticed: %v", i, at, p.Runbook)
			}
			continue
		}
		// The run: some effects are others, are made twice, or come at another time.
		run := slices.Clone(originals)
		for range 1 + rnd.IntN(3) {
			run = disturb(rnd, run)
		}
		f := plan.NewInForce(base)
		ref := newAccount(base)
		for _, s := range run {
			found := f.Allows(s.step, s.ef, nil, false)
			if ok := ref.allows(s); ok != (len(found) == 0) {
				t.Fatalf("case %d: %s %s in %q: gate says %v, want allowed %v", i, s.ef.Verb, s.ef.Ref, s.step, found, ok)
			}
			if len(found) > 0 {
				refused++
				break // a run ends with its refusal
			}
			passed++
			f.Made(s.step, s.ef)
			ref.made(s)
		}
	}
	if refused < 1000 || passed < 1000 {
		t.Errorf("%d refused, %d passed: the test tries too little", refused, passed)
	}
}

// sent is one effect of a run.
type sent struct {
	step  string
	ef    *effect.Effect
	wave  string
	index int // in the plan; -1 for one that is not in it
}

// effectsOf makes effects that are those of the plan. Bodies are made up, and
// the plan's identities made to fit.
func effectsOf(t *testing.T, p *plan.Plan) []sent {
	t.Helper()
	var out []sent
	for i := range p.Effects {
		e := &p.Effects[i]
		ef := &effect.Effect{Verb: e.Verb, Ref: e.Ref, Wave: e.Wave, Body: json.RawMessage(fmt.Sprintf(`{"n":"%s"}`, e.Ref))}
		if e.Verb == effect.Evict {
			ef.Before = &cluster.Object{Object: map[string]any{"metadata": map[string]any{
				"name": e.Ref.Name, "ownerReferences": []any{map[string]any{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "u", "controller": true}},
			}}}
		}
		e.Identity = plan.Identify(ef)
		out = append(out, sent{e.Step, ef, e.Wave, i})
	}
	return out
}

func disturb(rnd *rand.Rand, run []sent) []sent {
	run = slices.Clone(run)
	i, j := rnd.IntN(len(run)), rnd.IntN(len(run))
	cp := *run[i].ef
	switch rnd.IntN(8) {
	case 0: // another body
		cp.Body = json.RawMessage(fmt.Sprintf(`{"n":%d}`, rnd.Int()))
		run[i].ef, run[i].index = &cp, -1
	case 1: // another object
		cp.Ref.Name += "x"
		if cp.Verb != effect.Evict { // of which any pod of the workload will do
			run[i].index = -1
		}
		run[i].ef = &cp
	case 2: // another verb
		cp.Verb = map[effect.Verb]effect.Verb{effect.Apply: effect.Patch, effect.Patch: effect.Delete, effect.Delete: effect.Apply, effect.Evict: effect.Delete}[cp.Verb]
		run[i].ef, run[i].index = &cp, -1
	case 3: // another step
		run[i].step, run[i].index = run[i].step+"/x", -1
	case 4: // once more
		run = slices.Insert(run, j, run[i])
	case 5: // not at all
		if len(run) > 1 {
			run = slices.Delete(run, i, i+1)
		}
	case 6, 7: // at another time
		run[i], run[j] = run[j], run[i]
	}
	return run
}

// account is what a plan allows, told in another way than InForce does: by
// index and wave.
type account struct {
	p     *plan.Plan
	count map[int]bool
	late  map[string]int // furthest group, by step
}

func newAccount(p *plan.Plan) *account { return &account{p, map[int]bool{}, map[string]int{}} }

func (a *account) allows(s sent) bool {
	if s.index < 0 {
		return false
	}
	evict := s.ef.Verb == effect.Evict
	if a.count[s.index] && !evict {
		return false
	}
	return a.p.Effects[s.index].Group >= a.late[s.step]
}

func (a *account) made(s sent) {
	a.count[s.index] = true
	a.late[s.step] = max(a.late[s.step], a.p.Effects[s.index].Group)
}

// Worlds that change while the run is under way: whatever happens beside it, no
// effect is made that the plan does not have.
func TestChangesMidway(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	changes := []func(*lab){
		func(l *lab) { l.patch(deployment("web"), `{"spec":{"replicas":5}}`) },
		func(l *lab) {
			l.patch(deployment("web"), `{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"web:9"}]}}}}`)
		},
		func(l *lab) { l.patch(configmap("old"), `{"data":{"a":"b"}}`) },
		func(l *lab) {
			l.patch(cluster.Ref{Group: "apps", Version: "v1", Kind: "StatefulSet", Namespace: "shop", Name: "db"}, `{"spec":{"replicas":4}}`)
		},
		func(l *lab) { l.patch(configmap("other"), `{"data":{"a":"b"}}`) },
	}
	for i := range 12 {
		l := newLab(t)
		b, p := l.saved()
		at, change := rnd.IntN(40), changes[i%len(changes)]
		n := 0
		l.beside = func(event.Event) {
			if n++; n == at {
				change(l)
			}
		}
		err := l.run(b)
		var refusal *gate.Refusal
		if err != nil && !errors.As(err, &refusal) {
			t.Errorf("case %d: %v", i, err)
		}
		for _, e := range l.events {
			d, ok := e.Body.(*event.EffectDone)
			if ok && !slices.ContainsFunc(p.Effects, func(x plan.Effect) bool {
				return x.Step == e.Step && x.Verb == d.Verb && (x.Ref.ID() == d.Ref.ID() || d.Verb == effect.Evict && strings.HasPrefix(d.Ref.Name, "db-"))
			}) {
				t.Errorf("case %d: %s of %s in %q is not in the plan", i, d.Verb, d.Ref, e.Step)
			}
		}
	}
}
