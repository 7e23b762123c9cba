package restart_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.starlark.net/starlark"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"rutter.dev/rutter/builtins/core"
	"rutter.dev/rutter/builtins/restart"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/runtime/value"
)

// run is a runbook on a simulated mesh whose control plane is at 1.31.0 and
// whose proxies are at 1.30.3, through the real engine, gates and journal.
type run struct {
	t      testing.TB
	sim    *sim.Cluster
	client *cluster.Client
	fs     *journal.MemFS
	log    journal.Journal
	script string
	leave  bool
	events []event.Event
	on     func(event.Event)
	// What RUT014 goes by.
	policy  *gate.Policy
	metrics gate.Metrics
}

func newRun(t testing.TB, spec mesh.Spec, script string) *run {
	t.Helper()
	var target []*unstructured.Unstructured
	data, err := os.ReadFile(filepath.Join("..", "..", "runtime", "sim", "mesh", "testdata", "small-1.31.0.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range strings.Split("\n"+string(data), "\n---") {
		raw, err := yaml.ToJSON([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		if u := (&unstructured.Unstructured{}); string(raw) != "null" {
			if err := u.UnmarshalJSON(raw); err != nil {
				t.Fatal(err)
			}
			target = append(target, u)
		}
	}
	c, err := sim.New(sim.Options{Seed: 1, Controllers: controllers.All(), Injector: mesh.StubInjector{}})
	if err != nil {
		t.Fatal(err)
	}
	client, err := cluster.New(c.Config(), "sim", c.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range mesh.Build(spec, mesh.Retag(target, "1.31.0", "1.30.3")) {
		if _, err := client.Create(context.Background(), o, cluster.WriteOptions{Manager: "setup"}); err != nil && !errors.Is(err, cluster.ErrExists) {
			t.Fatalf("%s: %v", cluster.RefOf(o), err)
		}
	}
	c.Advance(2 * time.Minute)
	for _, o := range target {
		if _, err := client.Apply(context.Background(), o.DeepCopy(), cluster.ApplyOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	c.Advance(time.Minute)
	r := &run{t: t, sim: c, client: client, fs: journal.NewMemFS(), script: script, leave: true}
	if r.log, err = journal.Create(r.fs, "/runs", "r1", c.Clock()); err != nil {
		t.Fatal(err)
	}
	return r
}

// Approve implements engine.Approver.
func (r *run) Approve(context.Context, string, string, []string) (string, bool, error) {
	return "tester", true, nil
}

// Leave implements engine.Approver.
func (r *run) Leave(context.Context, []gate.Finding) (string, bool, error) {
	return "tester", r.leave, nil
}

func (r *run) options() engine.Options {
	r.t.Helper()
	set, err := builtin.NewSet(append(append(core.Specs(), interp.Builtins()...), restart.Specs()...)...)
	if err != nil {
		r.t.Fatal(err)
	}
	bundle := &loader.Bundle{Entry: "//t.star", Files: map[string]string{"//t.star": "runbook(name = \"t\", version = \"1.0.0\")\n" + r.script}}
	rb, err := interp.Load(context.Background(), loader.FromBundle(bundle, nil), set.Predeclared(), interp.Limits{})
	if err != nil {
		r.t.Fatal(err)
	}
	p, err := rb.Bind(nil, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	uid, err := r.client.UID(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	return engine.Options{
		Env: &env.Env{Clock: r.sim.Clock()}, Cluster: r.client, Journal: r.log, Builtins: set,
		Codec: &value.Codec{Decoders: restart.Decoders()}, Approver: r, Policy: r.policy, Metrics: r.metrics,
		Sink: event.SinkFunc(func(e event.Event) {
			r.events = append(r.events, e)
			if r.on != nil {
				r.on(e)
			}
		}),
		Begin: journal.Begin{Run: "r1", Runbook: rb.Name, ClusterUID: uid, Context: "sim", From: "1.30.3", To: "1.31.0"},
		Scope: rb.Scope,
		Exec: func(ctx context.Context, prepare func(*starlark.Thread)) error {
			return rb.Exec(ctx, p, interp.ExecOptions{}, prepare)
		},
	}
}

func (r *run) proxies() map[string]int {
	n := map[string]int{}
	for _, o := range r.sim.Objects() {
		for _, field := range []string{"initContainers", "containers"} {
			list, _, _ := unstructured.NestedSlice(o.Object, "spec", field)
			for _, c := range list {
				if m, ok := c.(map[string]any); ok && m["name"] == "istio-proxy" && o.GetKind() == "Pod" {
					image := fmt.Sprint(m["image"])
					n[image[strings.LastIndex(image, ":")+1:]]++
				}
			}
		}
	}
	return n
}

const script = `
def run(p):
    report = step("data plane", restart.outdated, soak = "1m")
    log("%d restarted in %d waves" % (len(report.restarted), len(report.waves)))
`

func TestThroughGatesAndJournal(t *testing.T) {
	r := newRun(t, mesh.Spec{Istio: "1.30.3", Workloads: 14, Namespaces: 3, Nodes: 2, Seed: 1, OnDelete: 1, SingleReplica: 1}, script)
	if err := engine.Run(context.Background(), context.Background(), r.options()); err != nil {
		t.Fatal(err)
	}
	if v := r.proxies(); v["1.30.3"] != 0 || v["1.31.0"] == 0 {
		t.Errorf("proxies afterwards: %v", v)
	}
}

func TestKilledAndResumed(t *testing.T) {
	r := newRun(t, mesh.Spec{Istio: "1.30.3", Workloads: 14, Namespaces: 3, Nodes: 2, Seed: 1, OnDelete: 1}, script)
	soft, stop := context.WithCancel(context.Background())
	made := map[string]int{}
	r.on = func(e event.Event) {
		if d, ok := e.Body.(*event.EffectDone); ok {
			made[d.Key]++
			if len(made) == 4 {
				stop()
			}
		}
	}
	if err := engine.Run(soft, context.Background(), r.options()); err == nil {
		t.Fatal("an interrupted run ended well")
	}
	if err := r.log.Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.log, err = journal.Open(r.fs, "/runs", "r1", r.sim.Clock()); err != nil {
		t.Fatal(err)
	}
	if err := engine.Resume(context.Background(), context.Background(), r.options(), ""); err != nil {
		t.Fatal(err)
	}
	for key, n := range made {
		if n != 1 {
			t.Errorf("effect %s was made %d times", key, n)
		}
	}
	if v := r.proxies(); v["1.30.3"] != 0 {
		t.Errorf("proxies afterwards: %v", v)
	}
}

func TestStrictBudgetIsRefusedBeforeAnythingIsRestarted(t *testing.T) {
	r := newRun(t, mesh.Spec{Istio: "1.30.3", Workloads: 10, Namespaces: 2, Nodes: 2, Seed: 3, StrictPDBs: 3}, script)
	err := engine.Run(context.Background(), context.Background(), r.options())
	var refused *gate.Refusal
	if !errors.As(err, &refused) || !refused.Forecast || !strings.Contains(err.Error(), string(gate.Disruption)) {
		t.Fatalf("error %v, want the forecast's refusal", err)
	}
	if v := r.proxies(); v["1.31.0"] > 1 {
		t.Errorf("proxies afterwards: %v", v)
	}
}

// BenchmarkSixty is a data plane of 60 workloads through engine, gates and a
// journal in memory.
func BenchmarkSixty(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		r := newRun(b, mesh.Default(), script)
		b.StartTimer()
		if err := engine.Run(context.Background(), context.Background(), r.options()); err != nil {
			b.Fatal(err)
		}
	}
}
