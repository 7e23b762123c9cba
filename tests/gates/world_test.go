// Package gates shows each gate at work on the simulated cluster, through the
// real engine and journal: a change that it blocks before the first write, and
// the same change where nothing is wrong with it.
package gates

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.starlark.net/starlark"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"rutter.dev/rutter/builtins/backup"
	"rutter.dev/rutter/builtins/core"
	"rutter.dev/rutter/builtins/diff"
	"rutter.dev/rutter/builtins/kube"
	"rutter.dev/rutter/builtins/restart"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/lock"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/runtime/value"
)

const (
	from = "1.30.3"
	to   = "1.31.0"
)

// meshes are built once; every world is a clone: one whose control plane is
// still at the old version, and one where it is at the new one.
var meshes = sync.OnceValues(func() (map[bool]*sim.Cluster, error) {
	target, err := rendered()
	if err != nil {
		return nil, err
	}
	c, err := sim.New(sim.Options{Seed: 1, Controllers: controllers.All(), Injector: mesh.StubInjector{}})
	if err != nil {
		return nil, err
	}
	spec := mesh.Spec{Istio: from, Workloads: 6, Namespaces: 2, Nodes: 2, Seed: 1}
	if err := mesh.Populate(c, mesh.Build(spec, mesh.Retag(target, to, from))); err != nil {
		return nil, err
	}
	c.Advance(2 * time.Minute)
	old := c.Clone()
	client, err := cluster.New(c.Config(), "sim", c.Clock(), cluster.ClientOptions{})
	if err != nil {
		return nil, err
	}
	for _, o := range target {
		if _, err := client.Apply(context.Background(), o.DeepCopy(), cluster.ApplyOptions{Force: true, Manager: "setup"}); err != nil {
			return nil, err
		}
	}
	c.Advance(2 * time.Minute)
	return map[bool]*sim.Cluster{false: old, true: c}, nil
})

// rendered is the manifest of a small install.
func rendered() ([]*unstructured.Unstructured, error) {
	data, err := os.ReadFile(filepath.Join("..", "..", "runtime", "sim", "mesh", "testdata", "small-1.31.0.yaml"))
	if err != nil {
		return nil, err
	}
	var out []*unstructured.Unstructured
	for _, doc := range strings.Split("\n"+string(data), "\n---") {
		raw, err := yaml.ToJSON([]byte(doc))
		if err != nil {
			return nil, err
		}
		u := &unstructured.Unstructured{}
		if string(raw) == "null" {
			continue
		}
		if err := u.UnmarshalJSON(raw); err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}

// world is one simulated mesh and one run on it.
type world struct {
	t        *testing.T
	sim      *sim.Cluster
	client   *cluster.Client
	policy   *gate.Policy
	metrics  gate.Metrics
	plan     gate.Conformance // in force; nil without one
	journal  journal.Journal
	locked   bool // the run takes the mesh's Lease
	from, to string
	leave    bool
	events   []event.Event
	// writes are the requests of the run that were sent to change something.
	writes []string
	begun  bool
}

func newWorld(t *testing.T, upgraded bool) *world {
	t.Helper()
	all, err := meshes()
	if err != nil {
		t.Fatal(err)
	}
	c := all[upgraded].Clone()
	w := &world{t: t, sim: c, from: from, to: to, policy: &gate.Policy{}}
	w.client, err = cluster.New(c.Config(), "sim", c.Clock(), cluster.ClientOptions{Record: w.asked})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// asked notes what the run itself sent to change the cluster.
func (w *world) asked(a cluster.Asked) {
	q := a.Request.URL
	if !w.begun || a.Request.Method == http.MethodGet || q.Query().Get("dryRun") != "" || strings.Contains(q.Path, "accessreviews") {
		return
	}
	var options struct { // of a deletion, or inside an eviction
		DryRun        []string
		DeleteOptions struct{ DryRun []string }
	}
	if err := json.Unmarshal(a.Body, &options); err == nil && len(options.DryRun)+len(options.DeleteOptions.DryRun) > 0 {
		return
	}
	w.writes = append(w.writes, a.Request.Method+" "+q.Path)
}

// Approve implements engine.Approver.
func (w *world) Approve(context.Context, string, string, []string) (string, bool, error) {
	return "tester", true, nil
}

// Leave implements engine.Approver.
func (w *world) Leave(context.Context, []gate.Finding) (string, bool, error) {
	return "tester", w.leave, nil
}

type noArgs struct{}

// precheck stands for istioctl.precheck, which links Istio: it finds nothing.
var precheck = builtin.NewRead(builtin.ReadDef[noArgs]{
	Name: "precheck", Doc: "Notes a precheck without findings.", Example: "precheck()", Returns: "None",
	Do: func(c *builtin.Call, _ *noArgs) (any, error) {
		c.Note(effect.Fact{Precheck: &effect.Precheck{Target: c.Run.To, At: c.Env.Clock.Now()}})
		return nil, nil
	},
})

func (w *world) run(script string) error {
	w.t.Helper()
	var specs []*builtin.Spec
	for _, s := range [][]*builtin.Spec{core.Specs(), interp.Builtins(), kube.Specs(), backup.Specs(), diff.Specs(), restart.Specs(), {precheck}} {
		specs = append(specs, s...)
	}
	set, err := builtin.NewSet(specs...)
	if err != nil {
		w.t.Fatal(err)
	}
	bundle := &loader.Bundle{Entry: "//t.star", Files: map[string]string{"//t.star": "runbook(name = \"t\", version = \"1.0.0\")\n" + script}}
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
	log, err := journal.Create(journal.NewMemFS(), "/runs", "r1", w.sim.Clock())
	if err != nil {
		w.t.Fatal(err)
	}
	w.journal = log
	decoders := map[string]value.Decoder{}
	for _, d := range []map[string]value.Decoder{kube.Decoders(), backup.Decoders(), diff.Decoders(), restart.Decoders()} {
		maps.Copy(decoders, d)
	}
	o := engine.Options{
		Env: &env.Env{Clock: w.sim.Clock()}, Cluster: w.client, Journal: log, Builtins: set,
		Codec: &value.Codec{Decoders: decoders}, Approver: w, Policy: w.policy, Metrics: w.metrics, Plan: w.plan,
		Sink:  event.SinkFunc(func(e event.Event) { w.events = append(w.events, e) }),
		Begin: journal.Begin{Run: "r1", Runbook: rb.Name, ClusterUID: uid, Context: "sim", From: w.from, To: w.to},
		Scope: rb.Scope,
		Exec: func(ctx context.Context, prepare func(*starlark.Thread)) error {
			return rb.Exec(ctx, p, interp.ExecOptions{}, prepare)
		},
	}
	if w.locked {
		o.Lock = &lock.Options{Rand: strings.NewReader(strings.Repeat("nonce", 100)), Holder: "tester", Host: "here", Alone: true}
	}
	w.begun = true
	err = engine.Run(context.Background(), context.Background(), o)
	return errors.Join(err, log.Close())
}

// apply puts an object into the cluster as somebody else would.
func (w *world) apply(text string) {
	w.t.Helper()
	for _, doc := range strings.Split(text, "\n---\n") {
		raw, err := yaml.ToJSON([]byte(doc))
		if err != nil {
			w.t.Fatal(err)
		}
		o := &cluster.Object{}
		if err := o.UnmarshalJSON(raw); err != nil {
			w.t.Fatal(err)
		}
		if _, err := w.client.Apply(context.Background(), o, cluster.ApplyOptions{Force: true, Manager: "kubectl"}); err != nil {
			w.t.Fatal(err)
		}
	}
	w.sim.Advance(30 * time.Second)
}

// patch changes an object as somebody else would.
func (w *world) patch(ref cluster.Ref, patch string) {
	w.t.Helper()
	if _, err := w.client.Patch(context.Background(), ref, "application/merge-patch+json", []byte(patch), cluster.WriteOptions{Manager: "kubectl"}); err != nil {
		w.t.Fatal(err)
	}
	w.sim.Advance(time.Minute)
}

// every calls f for all objects of a kind.
func (w *world) every(kind string, f func(ref cluster.Ref)) {
	for _, o := range w.sim.Objects() {
		if o.GetKind() == kind {
			f(cluster.RefOf(o))
		}
	}
}

// found lists what the gate said in the whole run.
func (w *world) found(code gate.Code) []gate.Finding {
	var out []gate.Finding
	for _, e := range w.events {
		if f, ok := e.Body.(*event.Findings); ok {
			for _, x := range f.Findings {
				if x.Code == code {
					out = append(out, x)
				}
			}
		}
	}
	return out
}
