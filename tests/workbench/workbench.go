// Package workbench is what tests of builtins call them with: a simulated mesh,
// and a submitter that sends effects as the engine does, without gates and
// journal. It is for tests only.
package workbench

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.starlark.net/starlark"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// Memory keeps blobs by digest.
type Memory map[string][]byte

// Put implements builtin.Blobs.
func (m Memory) Put(b []byte) (string, error) {
	h := sha256.Sum256(b)
	d := "sha256:" + hex.EncodeToString(h[:])
	m[d] = b
	return d, nil
}

// Get implements builtin.Blobs.
func (m Memory) Get(d string) ([]byte, error) {
	b, ok := m[d]
	if !ok {
		return nil, errors.New("no blob " + d)
	}
	return b, nil
}

// Bench is what a call needs, on a simulated mesh.
type Bench struct {
	T      *testing.T
	Specs  []*builtin.Spec
	Sim    *sim.Cluster
	Client *cluster.Client
	Facts  effect.Facts
	Blobs  Memory
	Run    builtin.RunInfo
	Events []event.Body     // what builtins told the views
	Sent   []*effect.Effect // what they submitted
	Made   []*effect.Effect // what an earlier execution of the step made
}

// New makes a small upgraded-from mesh (Istio 1.30.3) and a bench for specs on it.
func New(t *testing.T, specs []*builtin.Spec) *Bench {
	t.Helper()
	c, err := sim.New(sim.Options{Seed: 1, Controllers: controllers.All(), Injector: mesh.StubInjector{}, InjectOnLoad: true})
	if err != nil {
		t.Fatal(err)
	}
	spec := mesh.Spec{Istio: "1.30.3", Workloads: 4, Namespaces: 2, Nodes: 2, Seed: 1}
	if err := mesh.Populate(c, mesh.Build(spec, mesh.Retag(Target(t), "1.31.0", "1.30.3"))); err != nil {
		t.Fatal(err)
	}
	return On(t, specs, c)
}

// On is a bench for specs on a cluster that is there already.
func On(t *testing.T, specs []*builtin.Spec, c *sim.Cluster) *Bench {
	t.Helper()
	client, err := cluster.New(c.Config(), "sim", c.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &Bench{T: t, Specs: specs, Sim: c, Client: client, Blobs: Memory{}, Run: builtin.RunInfo{ID: "run-1", From: "1.30.3", To: "1.31.0"}}
}

// Target is a cut-down manifest of Istio 1.31.0.
func Target(t *testing.T) []*cluster.Object {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "runtime", "sim", "mesh", "testdata", "small-1.31.0.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	objs, err := manifest.Parse(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return objs
}

// Manifest is Target as a handle.
func (b *Bench) Manifest() *manifest.Manifest {
	b.T.Helper()
	m, err := manifest.New(Target(b.T), manifest.Info{Version: "1.31.0"}, b.Blobs)
	if err != nil {
		b.T.Fatal(err)
	}
	return m
}

// NewCall is one call of a builtin.
func (b *Bench) NewCall() *builtin.Call {
	return &builtin.Call{
		Ctx: context.Background(), Env: &env.Env{Clock: b.Sim.Clock()}, Reader: b.Client, Blobs: b.Blobs, Run: b.Run, Facts: &b.Facts,
		Note: b.Facts.Add, Emit: func(e event.Body) { b.Events = append(b.Events, e) }, Progress: func(int, int, string) {},
		Made: func(like func(*effect.Effect) bool) bool { return slices.ContainsFunc(b.Made, like) },
	}
}

// Spec finds a builtin by its full name.
func (b *Bench) Spec(name string) *builtin.Spec {
	for _, s := range b.Specs {
		if s.Name == name {
			return s
		}
	}
	b.T.Fatalf("no builtin %s", name)
	return nil
}

// Kw is one keyword argument.
func Kw(name string, v starlark.Value) starlark.Tuple {
	return starlark.Tuple{starlark.String(name), v}
}

// Call runs a builtin; a write is planned and driven.
func (b *Bench) Call(name string, args starlark.Tuple, kwargs ...starlark.Tuple) (any, error) {
	b.T.Helper()
	s := b.Spec(name)
	a, err := s.Unpack(args, kwargs)
	if err != nil {
		b.T.Fatal(err)
	}
	c := b.NewCall()
	if s.Class != builtin.Write {
		return s.Do(c, a)
	}
	p, err := s.PlanCall(c, a)
	if err != nil {
		return nil, err
	}
	for _, e := range p.Effects {
		if e.Class = effect.Classify(e); !s.Declares(e.Class) {
			b.T.Errorf("%s: undeclared class %s", e.Ref, e.Class)
		}
	}
	return s.DriveCall(c, b, a, p)
}

// Must is Call, and fails the test on an error.
func (b *Bench) Must(name string, args starlark.Tuple, kwargs ...starlark.Tuple) any {
	b.T.Helper()
	v, err := b.Call(name, args, kwargs...)
	if err != nil {
		b.T.Fatalf("%s: %v", name, err)
	}
	return v
}

// Get reads an object as it is now; nil when there is none.
func (b *Bench) Get(kind, group, namespace, name string) *cluster.Object {
	b.T.Helper()
	o, err := b.Client.Get(context.Background(), cluster.Ref{Group: group, Version: "v1", Kind: kind, Namespace: namespace, Name: name})
	if errors.Is(err, cluster.ErrNotFound) {
		return nil
	}
	if err != nil {
		b.T.Fatal(err)
	}
	return o
}

// Submit implements effect.Submitter.
func (b *Bench) Submit(ctx context.Context, e *effect.Effect) (*effect.Result, error) {
	b.Sent = append(b.Sent, e)
	o := cluster.WriteOptions{UID: types.UID(e.UID), ResourceVersion: e.ResourceVersion, Propagation: e.Propagation}
	switch e.Verb {
	case effect.Patch:
		got, err := b.Client.Patch(ctx, e.Ref, types.PatchType(e.PatchType), e.Body, o)
		return &effect.Result{Object: got}, err
	case effect.Delete:
		return &effect.Result{}, b.Client.Delete(ctx, e.Ref, o)
	case effect.Evict:
		return &effect.Result{}, b.Client.Evict(ctx, e.Ref, o)
	}
	obj := &cluster.Object{}
	if err := obj.UnmarshalJSON(e.Body); err != nil {
		return nil, err
	}
	obj.SetAnnotations(merge(obj.GetAnnotations(), map[string]string{cluster.AnnotationRun: b.Run.ID, cluster.AnnotationEffect: "k"}))
	var got *cluster.Object
	var err error
	switch e.Verb {
	case effect.Create:
		got, err = b.Client.Create(ctx, obj, o)
	case effect.Replace:
		obj.SetResourceVersion(e.ResourceVersion)
		obj.SetUID(types.UID(e.UID))
		got, err = b.Client.Replace(ctx, obj, o)
	default:
		got, err = b.Client.Apply(ctx, obj, cluster.ApplyOptions{Force: len(e.Adopt) > 0})
	}
	return &effect.Result{Object: got}, err
}

func merge(a, b map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range []map[string]string{a, b} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

// SubmitAll implements effect.Submitter.
func (b *Bench) SubmitAll(ctx context.Context, es []*effect.Effect) ([]*effect.Result, error) {
	out := make([]*effect.Result, len(es))
	for i, e := range es {
		r, err := b.Submit(ctx, e)
		if err != nil {
			return out, err
		}
		out[i] = r
	}
	return out, nil
}

// Progress implements effect.Submitter.
func (b *Bench) Progress(int, int, string) {}

// Settle lets the controllers work.
func (b *Bench) Settle() { b.Sim.Advance(2 * time.Minute) }
