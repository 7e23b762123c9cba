package restart

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// world is a simulated mesh, and an engine in miniature: it makes effects and
// remembers them, but has neither gates nor a disk.
type world struct {
	t      *testing.T
	sim    *sim.Cluster
	client *cluster.Client
	events []event.Body
	// sent are the effects that were sent, in order; keyed ones are replayed.
	sent   []*effect.Effect
	known  map[string]*effect.Result
	before func(e *effect.Effect) error // called before each effect is sent
	clock  *watchedClock
}

// watchedClock calls each whenever time has passed, at every step of it where a
// rollout is waited for.
type watchedClock struct {
	env.Clock
	each func()
	step time.Duration
}

func (c *watchedClock) Sleep(ctx context.Context, d time.Duration) error {
	for d > 0 {
		step := d
		if c.each != nil && d < soakEvery {
			step = min(d, c.step)
		}
		if err := c.Clock.Sleep(ctx, step); err != nil {
			return err
		}
		d -= step
		if c.each != nil {
			c.each()
		}
	}
	return ctx.Err()
}

func manifestObjects(t testing.TB) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	data, err := os.ReadFile(filepath.Join("..", "..", "runtime", "sim", "mesh", "testdata", "small-1.31.0.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range strings.Split("\n"+string(data), "\n---") {
		raw, err := yaml.ToJSON([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		if string(raw) == "null" {
			continue
		}
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(raw); err != nil {
			t.Fatal(err)
		}
		out = append(out, u)
	}
	return out
}

// newWorld builds the mesh of spec at Istio 1.30.3, lets it come up, and then
// brings the control plane's injector to 1.31.0, so that every proxy is stale.
func newWorld(t *testing.T, spec mesh.Spec) *world {
	t.Helper()
	target := manifestObjects(t)
	old := mesh.Retag(target, "1.31.0", "1.30.3")
	return newWorldOf(t, mesh.Build(spec, old), target)
}

func newWorldOf(t *testing.T, objects, target []*unstructured.Unstructured) *world {
	t.Helper()
	c, err := sim.New(sim.Options{Seed: 1, Controllers: controllers.All(), Injector: mesh.StubInjector{}})
	if err != nil {
		t.Fatal(err)
	}
	clock := &watchedClock{Clock: c.Clock(), step: time.Second}
	client, err := cluster.New(c.Config(), "sim", clock, cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, sim: c, client: client, known: map[string]*effect.Result{}, clock: clock}
	create := func(o *unstructured.Unstructured) {
		if _, err := client.Create(context.Background(), o, cluster.WriteOptions{Manager: "setup"}); err != nil && !errors.Is(err, cluster.ErrExists) {
			t.Fatalf("%s: %v", cluster.RefOf(o), err)
		}
	}
	var bare []*unstructured.Unstructured
	for _, o := range objects {
		if o.GetKind() == "Pod" {
			bare = append(bare, o) // injected, and nobody would try again
			continue
		}
		create(o)
	}
	c.Advance(2 * time.Minute)
	for _, o := range bare {
		create(o)
	}
	for _, o := range target {
		if o.GetKind() == "ConfigMap" && strings.HasPrefix(o.GetName(), "istio-sidecar-injector") {
			if _, err := client.Apply(context.Background(), o, cluster.ApplyOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.Advance(time.Minute)
	return w
}

func (w *world) call() *builtin.Call {
	return &builtin.Call{
		Ctx: context.Background(), Env: &env.Env{Clock: w.clock}, Reader: w.client,
		Run: builtin.RunInfo{ID: "run-1", From: "1.30.3", To: "1.31.0"}, Facts: &effect.Facts{},
		Emit:     func(b event.Body) { w.events = append(w.events, b) },
		Note:     func(effect.Fact) {},
		Progress: func(int, int, string) {},
	}
}

// Submit implements effect.Submitter.
func (w *world) Submit(ctx context.Context, e *effect.Effect) (*effect.Result, error) {
	if r := w.known[e.Digest()]; r != nil {
		return &effect.Result{Object: r.Object, Replayed: true}, nil
	}
	if w.before != nil {
		if err := w.before(e); err != nil {
			return nil, err
		}
	}
	r := &effect.Result{}
	var err error
	switch e.Verb {
	case effect.Patch:
		r.Object, err = w.client.Patch(ctx, e.Ref, types.PatchType(e.PatchType), e.Body, cluster.WriteOptions{UID: types.UID(e.UID)})
	case effect.Evict:
		err = w.client.Evict(ctx, e.Ref, cluster.WriteOptions{UID: types.UID(e.UID)})
	default:
		err = fmt.Errorf("%s: unexpected", e.Verb)
	}
	if err != nil {
		return nil, err
	}
	w.known[e.Digest()] = r
	w.sent = append(w.sent, e)
	return r, nil
}

// SubmitAll implements effect.Submitter.
func (w *world) SubmitAll(ctx context.Context, es []*effect.Effect) ([]*effect.Result, error) {
	out := make([]*effect.Result, len(es))
	for i, e := range es {
		var err error
		if out[i], err = w.Submit(ctx, e); err != nil {
			return out, err
		}
	}
	return out, nil
}

// Progress implements effect.Submitter.
func (w *world) Progress(int, int, string) {}

// patch changes a workload, as a person would in advance of a test.
func (w *world) patch(kind, namespace, name, body string) {
	w.t.Helper()
	ref := cluster.Ref{Group: "apps", Version: "v1", Kind: kind, Namespace: namespace, Name: name}
	if _, err := w.client.Patch(context.Background(), ref, types.MergePatchType, []byte(body), cluster.WriteOptions{}); err != nil {
		w.t.Fatal(err)
	}
}
