package plan_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/plan"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/runtime/twin"
)

const outdated = `
runbook(name = "waves", version = "1.0.0", api = 1)

def run(p):
    step("data plane", restart.outdated, waves = restart.waves(canary = 1, then = "25%"), soak = "1m")
`

// staleMesh is a mesh whose control plane is at 1.31.0 and whose proxies are at
// 1.30.3.
func (l *lab) staleMesh(spec mesh.Spec) {
	l.t.Helper()
	target, err := sim.ReadFiles(os.DirFS(filepath.Join("..", "sim", "mesh", "testdata")), "small-1.31.0.yaml")
	if err != nil {
		l.t.Fatal(err)
	}
	c, err := sim.New(sim.Options{Seed: 1, Controllers: controllers.All(), Injector: mesh.StubInjector{}, InjectOnLoad: true})
	if err != nil {
		l.t.Fatal(err)
	}
	if err := mesh.Populate(c, mesh.Build(spec, mesh.Retag(target, "1.31.0", "1.30.3"))); err != nil {
		l.t.Fatal(err)
	}
	c.Advance(2 * time.Minute)
	l.sim = c
	for _, o := range target {
		if _, err := l.client().Apply(l.t.Context(), o.DeepCopy(), cluster.ApplyOptions{Force: true}); err != nil {
			l.t.Fatal(err)
		}
	}
	c.Advance(2 * time.Minute)
	l.write(outdated)
}

// both plans and runs, and compares.
func (l *lab) both(injector sim.Injector) (*plan.Fidelity, error) {
	l.t.Helper()
	before := l.sim.Objects()
	tw, err := twin.New(l.t.Context(), l.client(), twin.Options{Controllers: controllers.All(), Injector: injector, Now: l.sim.Clock().Now()})
	if err != nil {
		return nil, err
	}
	rb, p := l.runbook()
	planned, err := plan.Rehearse(l.t.Context(), plan.Rehearsal{Host: l.host, Runbook: rb, Params: p, Twin: tw, Workdir: l.root, Path: "small.star"})
	if err != nil {
		return nil, err
	}
	predicted := overlay(before, tw.Changes())
	j, err := journal.Create(journal.NewMemFS(), "/runs", "r1", l.sim.Clock())
	if err != nil {
		return nil, err
	}
	defer func() { _ = j.Close() }() // in memory
	rb, p = l.runbook()
	s := l.session(j)
	runErr := l.host.Run(l.t.Context(), l.t.Context(), s, rb, p)
	if (runErr == nil) != (planned.Status == "done") {
		return nil, fmt.Errorf("planned %s (%s), and the run: %w", planned.Status, planned.Error, runErr)
	}
	made, err := plan.Made(j, s.Sealer)
	if err != nil {
		return nil, err
	}
	return planned.Measure(made, before, predicted, l.sim.Objects()), nil
}

// overlay is what a cluster would be with the changes of its twin.
func overlay(before []*unstructured.Unstructured, changes []sim.Change) []*unstructured.Unstructured {
	gone := map[string]bool{}
	var out []*unstructured.Unstructured
	for _, ch := range changes {
		if ch.Before != nil {
			gone[cluster.RefOf(ch.Before).ID()] = true
		}
		if ch.After != nil {
			out = append(out, ch.After)
		}
	}
	for _, o := range before {
		if !gone[cluster.RefOf(o).ID()] {
			out = append(out, o)
		}
	}
	return out
}

// TestFidelity measures how far plans of simulated meshes come true.
func TestFidelity(t *testing.T) {
	total := &plan.Fidelity{}
	add := func(name string, f *plan.Fidelity, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if f.Effects == 0 || f.Objects == 0 {
			t.Errorf("%s: nothing was done", name)
		}
		if f.Same != f.Effects {
			t.Errorf("%s: %d of %d effects as planned", name, f.Same, f.Effects)
		}
		total.Effects, total.Same = total.Effects+f.Effects, total.Same+f.Same
		total.Objects, total.Equal = total.Objects+f.Objects, total.Equal+f.Equal
		total.Fields, total.EqualFields = total.Fields+f.Fields, total.EqualFields+f.EqualFields
		for _, d := range f.Differences {
			total.Differences = append(total.Differences, name+": "+d)
		}
	}
	l := newLab(t)
	f, err := l.both(nil)
	add("small", f, err)
	for name, spec := range map[string]mesh.Spec{
		"plain":     {Istio: "1.30.3", Workloads: 10, Namespaces: 3, Nodes: 2, Seed: 1},
		"on delete": {Istio: "1.30.3", Workloads: 12, Namespaces: 2, Nodes: 2, Seed: 2, OnDelete: 2},
		"single":    {Istio: "1.30.3", Workloads: 9, Namespaces: 3, Nodes: 3, Seed: 3, SingleReplica: 2},
		"strict":    {Istio: "1.30.3", Workloads: 8, Namespaces: 2, Nodes: 2, Seed: 3, StrictPDBs: 3},
	} {
		l := newLab(t)
		l.staleMesh(spec)
		f, err := l.both(mesh.StubInjector{})
		if name == "strict" && err == nil && f.Effects == 0 {
			continue // refused, in the plan as in the run
		}
		add(name, f, err)
	}
	var b bytes.Buffer
	if err := total.Write(&b); err != nil {
		t.Fatal(err)
	}
	t.Log(b.String())
	if 100*total.Equal < 99*total.Objects {
		t.Errorf("%d of %d objects are as planned", total.Equal, total.Objects)
	}
}
