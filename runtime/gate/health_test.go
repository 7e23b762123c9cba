package gate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/metrics"
)

// prophet answers queries; what is missing has no data.
type prophet struct {
	values map[string][]float64
	err    error
	asked  int
}

func (m *prophet) Query(_ context.Context, promql string) ([]metrics.Sample, error) {
	m.asked++
	var out []metrics.Sample
	for i, v := range m.values[promql] {
		out = append(out, metrics.Sample{Series: fmt.Sprintf(`{n="%d"}`, i), Value: v})
	}
	return out, m.err
}

func number(f float64) *float64 { return &f }
func count(n int) *int          { return &n }

func waveOf(ns, name, wave string, health ...effect.Health) *effect.Effect {
	return &effect.Effect{Verb: effect.Patch, Class: effect.Restart, Wave: wave, Health: health, Ref: cluster.Ref{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: ns, Name: name}}
}

func errorsBelow(most float64) *Policy {
	return &Policy{Prometheus: &Prometheus{URL: "http://x", Interval: time.Minute, Queries: []HealthQuery{{Name: "errors", Query: "err", Max: number(most)}}}}
}

func TestHealth(t *testing.T) {
	both := &Policy{Prometheus: &Prometheus{Queries: []HealthQuery{{Name: "load", Query: "load", Max: number(3), Min: number(1)}}}}
	of := func(v ...float64) *prophet { return &prophet{values: map[string][]float64{"err": v, "load": v}} }
	for name, c := range map[string]struct {
		policy  *Policy
		metrics Metrics
		health  []effect.Health
		want    Verdict
		says    string
	}{
		"nothing is asked":             {&Policy{}, nil, nil, Pass, ""},
		"below":                        {errorsBelow(0.05), of(0.01, 0.05), nil, Pass, ""},
		"above":                        {errorsBelow(0.05), of(0.01, 0.07), nil, Block, `{n="1"} 0.07; at most 0.05 is allowed`},
		"many above":                   {errorsBelow(0.05), of(1, 2, 3, 4, 5), nil, Block, "and 2 more"},
		"between":                      {both, of(1, 3), nil, Pass, ""},
		"too little":                   {both, of(0), nil, Block, "allowed is 1 to 3"},
		"infinite":                     {errorsBelow(0.05), of(math.Inf(1)), nil, Block, "+Inf"},
		"no number":                    {errorsBelow(0.05), of(math.NaN()), nil, Block, "1 of 1 samples are not a number"},
		"no data":                      {errorsBelow(0.05), of(), nil, Block, "there is no data"},
		"no answer":                    {errorsBelow(0.05), &prophet{err: errors.New("refused")}, nil, Block, "could not find out: refused"},
		"nobody to ask":                {errorsBelow(0.05), nil, nil, Block, "names no Prometheus"},
		"a rehearsal":                  {errorsBelow(0.05), Assumed{}, nil, Warn, "assumed to be within its bounds"},
		"the runbook's question":       {&Policy{}, of(0.01), []effect.Health{{Name: "q", Query: "err", Max: number(0.05)}}, Pass, ""},
		"the runbook's question, no":   {errorsBelow(9), of(0.5), []effect.Health{{Name: "q", Query: "err", Max: number(0.05)}}, Block, "0.5"},
		"the runbook's, without where": {&Policy{}, nil, []effect.Health{{Name: "q", Query: "err", Max: number(0.05)}}, Block, "names no Prometheus"},
	} {
		t.Run(name, func(t *testing.T) {
			e := waveOf("shop", "web", "canary", c.health...)
			for _, forecast := range []bool{true, false} {
				run := &Run{Policy: c.policy, Metrics: c.metrics, Forecast: forecast, Pulse: &Pulse{}, Call: []*effect.Effect{e}}
				got := judge(t, health, &fake{}, run, e, c.want)
				if c.want != Pass && !strings.Contains(fmt.Sprint(got), c.says) {
					t.Errorf("findings don't say %q: %v", c.says, got)
				}
				run.Rollback = true
				judge(t, health, &fake{}, run, e, Pass)
			}
		})
	}
}

// A wave is judged when it begins, and while it lasts as often as the interval
// says: neither for each of its workloads nor later than that.
func TestHealthInterval(t *testing.T) {
	m := &prophet{values: map[string][]float64{"err": {0}}}
	run := &Run{Policy: errorsBelow(0.05), Metrics: m, Pulse: &Pulse{}, Now: time.Unix(0, 0)}
	asks := func(want int, what string, fs []Finding, verdict Verdict) {
		t.Helper()
		if m.asked != want || Worst(fs) != verdict {
			t.Errorf("%s: asked %d times and %s, want %d and %s", what, m.asked, Worst(fs), want, verdict)
		}
	}
	before := func(e *effect.Effect) []Finding {
		t.Helper()
		fs, err := health.Before(context.Background(), &fake{}, run, e)
		if err != nil {
			t.Fatal(err)
		}
		return fs
	}
	look := func() []Finding { return JudgeHealth(context.Background(), &fake{}, run, effect.Look{Settled: true}) }
	es := []*effect.Effect{waveOf("shop", "a", "canary"), waveOf("shop", "b", "canary"), waveOf("shop", "c", "2 of 2")}
	run.Forecast, run.Call = true, es
	asks(1, "forecast", before(es[0]), Pass)
	run.Earlier = es[:1]
	asks(1, "forecast, second", before(es[1]), Pass)
	run.Forecast, run.Call, run.Earlier = false, nil, nil
	asks(2, "first of a wave", before(es[0]), Pass)
	asks(2, "second of a wave", before(es[1]), Pass)
	m.values["err"] = []float64{1}
	run.Now = run.Now.Add(59 * time.Second)
	asks(2, "an effect before the interval", before(es[1]), Pass)
	asks(3, "a look before the interval: the next would come after it", look(), Block)
	asks(3, "and what was found stays", before(es[1]), Block)
	run.Now = run.Now.Add(time.Minute)
	asks(4, "an effect after the interval", before(es[1]), Block)
	m.values["err"] = []float64{0}
	asks(5, "the next wave", before(es[2]), Pass)
	if got := HealthEvery(run.Policy, nil); got != time.Minute {
		t.Errorf("every %s", got)
	}
	if got := HealthEvery(run.Policy, []effect.Health{{Interval: time.Second}}); got != time.Second {
		t.Errorf("every %s with a call's own", got)
	}
	if HealthEvery(&Policy{}, nil) != 0 || HealthEvery(&Policy{Thresholds: Thresholds{MaxNotReady: count(0)}}, nil) != healthInterval {
		t.Error("what is asked nothing is looked at, or what has a threshold is not")
	}
}

func servingPod(name string, restarts int, ready string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"namespace":"shop","uid":%q},"status":{"phase":"Running","conditions":[{"type":"Ready","status":%q}],"containerStatuses":[{"restartCount":%d}]}}`, name, name, ready, restarts)
}

func TestHealthThresholds(t *testing.T) {
	strict := &Policy{Thresholds: Thresholds{MaxRestarts: count(1), MaxNotReady: count(1)}}
	a, b := waveOf("shop", "a", "canary"), waveOf("shop", "b", "2 of 2")
	elsewhere := strings.ReplaceAll(servingPod("x", 0, "False"), `"shop"`, `"bank"`)
	done := strings.Replace(servingPod("y", 0, "False"), "Running", "Succeeded", 1)
	r := &fake{objects: objects(t, servingPod("a", 5, "True"), servingPod("b", 0, "False"), elsewhere, done)}
	run := &Run{Policy: strict, Pulse: &Pulse{}, Now: time.Unix(0, 0), Forecast: true, Call: []*effect.Effect{a, b}}
	step := func(what string, want Verdict, says string, judge func() []Finding) {
		t.Helper()
		fs := judge()
		if Worst(fs) != want || !strings.Contains(fmt.Sprint(fs), says) {
			t.Errorf("%s: %s, want %s saying %q: %v", what, Worst(fs), want, says, fs)
		}
		run.Now = run.Now.Add(healthInterval)
	}
	of := func(e *effect.Effect) func() []Finding {
		return func() []Finding {
			fs, err := health.Before(context.Background(), r, run, e)
			if err != nil {
				t.Fatal(err)
			}
			return fs
		}
	}
	look := func(settled bool) func() []Finding {
		return func() []Finding {
			return JudgeHealth(context.Background(), r, run, effect.Look{Settled: settled})
		}
	}
	step("forecast: one is not ready, old restarts are past", Pass, "", of(a))
	run.Forecast, run.Call = false, nil
	r.objects = objects(t, servingPod("a", 6, "True"), servingPod("new", 0, "False"), servingPod("b", 0, "False"))
	step("a wave rolls: pods come up", Pass, "", look(false))
	step("it has settled: two are not ready", Block, "2 pods are not ready: pod/new in shop", look(true))
	r.objects = objects(t, servingPod("a", 6, "True"), servingPod("new", 1, "True"), servingPod("b", 0, "False"))
	step("two restarts", Block, "containers restarted 2 times since the last wave", look(true))
	r.objects = objects(t, servingPod("a", 5, "True"), servingPod("new", 1, "True"), servingPod("b", 0, "False"))
	step("the next wave begins", Pass, "", of(b))
	step("what was before it is past", Pass, "", look(true))
	r.fail = cluster.ErrUnreachable
	step("not known", Block, "could not find out", look(true))
}
