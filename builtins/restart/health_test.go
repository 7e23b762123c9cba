package restart_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/metrics"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// oracle is a Prometheus over HTTP; answer gives the value of an expression as
// text, "" for no data.
type oracle struct {
	r      *run
	answer func(promql string) string
	at     []time.Time // when it was asked, on the run's clock
	down   bool
}

func (o *oracle) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	o.at = append(o.at, o.r.sim.Clock().Now())
	if o.down {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	result := []any{}
	if v := o.answer(req.FormValue("query")); v != "" {
		result = append(result, map[string]any{"metric": map[string]string{"service": "web"}, "value": []any{0, v}})
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": map[string]any{"resultType": "vector", "result": result}})
}

const errorRate = `rate(errors[1m])`

// prophesied is a run whose policy asks a real HTTP server for the error rate
// every 20 seconds; answer is given when asked, on the run's clock.
func prophesied(t *testing.T, spec mesh.Spec, script string) (*run, *oracle) {
	t.Helper()
	r := newRun(t, spec, script)
	o := &oracle{r: r, answer: func(string) string { return "0" }}
	s := httptest.NewServer(o)
	t.Cleanup(s.Close)
	most := 0.05
	r.policy = &gate.Policy{Prometheus: &gate.Prometheus{URL: s.URL, Interval: 20 * time.Second, Queries: []gate.HealthQuery{{Name: "errors", Query: errorRate, Max: &most}}}}
	c, err := metrics.New(metrics.Options{URL: s.URL, Clock: r.sim.Clock()})
	if err != nil {
		t.Fatal(err)
	}
	r.metrics = c
	return r, o
}

var small = mesh.Spec{Istio: "1.30.3", Workloads: 8, Namespaces: 2, Nodes: 2, Seed: 1}

func refusedBy(t *testing.T, err error, code gate.Code) *gate.Refusal {
	t.Helper()
	var refused *gate.Refusal
	if !errors.As(err, &refused) {
		t.Fatalf("got %v, want a refusal", err)
	}
	for _, f := range refused.Findings {
		if f.Code == code && f.Verdict >= gate.Ask {
			return refused
		}
	}
	t.Fatalf("refused by others than %s: %v", code, err)
	return nil
}

func TestHealthStaysSilent(t *testing.T) {
	r, o := prophesied(t, small, script)
	if err := engine.Run(context.Background(), context.Background(), r.options()); err != nil {
		t.Fatal(err)
	}
	if len(o.at) < 4 { // the forecast, two waves, and the soak between them
		t.Errorf("asked %d times", len(o.at))
	}
	for _, e := range r.events {
		if f, ok := e.Body.(*event.Findings); ok && strings.Contains(fmt.Sprint(f.Findings), string(gate.HealthKept)) {
			t.Errorf("findings %v", f.Findings)
		}
	}
}

// Whatever is not known, or bad, before the first write stops there.
func TestHealthBlocksBeforeTheFirstWrite(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		down   bool
	}{
		"bad": {answer: "0.2"}, "no data": {answer: ""}, "no number": {answer: "NaN"}, "no answer": {answer: "0", down: true},
	} {
		t.Run(name, func(t *testing.T) {
			r, o := prophesied(t, small, script)
			o.answer, o.down = func(string) string { return c.answer }, c.down
			err := engine.Run(context.Background(), context.Background(), r.options())
			if !refusedBy(t, err, gate.HealthKept).Forecast {
				t.Errorf("refused later than before the first write: %v", err)
			}
			if v := r.proxies(); v["1.31.0"] > 1 {
				t.Errorf("proxies afterwards: %v", v)
			}
		})
	}
}

// A service that goes bad while the canary soaks stops the run within one
// interval, and nothing else is restarted.
func TestHealthStopsASoakWithinOneInterval(t *testing.T) {
	const patient = `
def run(p):
    step("data plane", restart.outdated, soak = "10m")
`
	r, o := prophesied(t, small, patient)
	var canary, bad time.Time
	restarted := 0
	r.on = func(e event.Event) {
		if d, ok := e.Body.(*event.EffectDone); ok && d.Class == effect.Restart {
			restarted++
			canary = r.sim.Clock().Now()
		}
	}
	o.answer = func(string) string {
		now := r.sim.Clock().Now()
		if restarted == 0 || now.Sub(canary) < 3*time.Minute {
			return "0.01"
		}
		if bad.IsZero() {
			bad = now
		}
		return "0.07"
	}
	err := engine.Run(context.Background(), context.Background(), r.options())
	refusal := refusedBy(t, err, gate.HealthKept)
	late := r.sim.Clock().Now().Sub(canary.Add(3 * time.Minute))
	if late > 20*time.Second {
		t.Errorf("stopped %s after it went bad, the interval is 20s", late)
	}
	if restarted != 1 {
		t.Errorf("%d workloads restarted, want the canary alone", restarted)
	}
	for _, says := range []string{"query/errors", "0.07", `service="web"`, "at most 0.05"} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("the refusal does not say %q: %v", says, err)
		}
	}
	if f := refusal.Findings[0]; !strings.Contains(f.Expect, errorRate) {
		t.Errorf("the finding does not hold the expression: %+v", f)
	}
}

// A wave that takes long is looked at, too.
func TestHealthStopsARollingWave(t *testing.T) {
	const slow = `
def run(p):
    step("data plane", restart.outdated, waves = restart.waves(canary = 0, then = 1), health = [
        metrics.query("latency", max = 250, name = "p99", interval = "5s"),
    ])
`
	r, o := prophesied(t, small, slow)
	restarted := 0
	r.on = func(e event.Event) {
		if d, ok := e.Body.(*event.EffectDone); ok && d.Class == effect.Restart {
			restarted++
		}
	}
	o.answer = func(promql string) string {
		if promql == "latency" && restarted >= 3 {
			return "300"
		}
		return "0"
	}
	err := engine.Run(context.Background(), context.Background(), r.options())
	refusedBy(t, err, gate.HealthKept)
	if restarted < 3 || restarted > 4 {
		t.Errorf("%d workloads restarted, want to stop at once after the third", restarted)
	}
	if !strings.Contains(err.Error(), "query/p99") {
		t.Errorf("the refusal does not name the runbook's query: %v", err)
	}
}

func TestHealthIsAssumedInARehearsal(t *testing.T) {
	r, o := prophesied(t, small, script)
	r.metrics = gate.Assumed{}
	if err := engine.Run(context.Background(), context.Background(), r.options()); err != nil {
		t.Fatal(err)
	}
	said := false
	for _, e := range r.events {
		f, ok := e.Body.(*event.Findings)
		said = said || ok && f.Forecast && strings.Contains(fmt.Sprint(f.Findings), "assumed to be within its bounds")
	}
	if len(o.at) != 0 || !said {
		t.Errorf("asked %d times; the assumption is shown: %v", len(o.at), said)
	}
}

// Containers that restart in a namespace that the run changes, and pods that
// are not ready there, hold the next wave up, though they are no workload of it.
func TestHealthThresholdsStopTheNextWave(t *testing.T) {
	const patient = `
def run(p):
    report = step("canary", restart.outdated, waves = restart.waves(canary = 1), soak = "5m")
`
	r := newRun(t, small, patient)
	none := 0
	r.policy = &gate.Policy{Thresholds: gate.Thresholds{MaxRestarts: &none}}
	restarted := 0
	r.on = func(e event.Event) {
		d, ok := e.Body.(*event.EffectDone)
		if !ok || d.Class != effect.Restart {
			return
		}
		if restarted++; restarted == 1 {
			crash(t, r, d.Ref)
		}
	}
	err := engine.Run(context.Background(), context.Background(), r.options())
	refusedBy(t, err, gate.HealthKept)
	if restarted != 1 || !strings.Contains(err.Error(), "since the last wave") {
		t.Errorf("%d workloads restarted: %v", restarted, err)
	}
}

// crash makes a container of a pod in the workload's namespace restart, of
// another workload.
func crash(t *testing.T, r *run, of cluster.Ref) {
	t.Helper()
	for _, o := range r.sim.Objects() {
		if o.GetKind() != "Pod" || o.GetNamespace() != of.Namespace || strings.HasPrefix(o.GetName(), of.Name+"-") {
			continue
		}
		patch := `[{"op":"replace","path":"/status/containerStatuses/0/restartCount","value":3}]`
		if _, err := r.client.Patch(context.Background(), cluster.RefOf(o), "application/json-patch+json", []byte(patch), cluster.WriteOptions{Subresource: "status"}); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no other pod in %s", of.Namespace)
}
