// Package rollback proves the way back: whatever a run did, and wherever it or
// its rollback was killed, the cluster is in the end what it was before.
package rollback

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"rutter.dev/rutter/builtins/istioctl"
	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/cmd/modules"
	"rutter.dev/rutter/runbooks"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/seal"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/stdlib"
	"rutter.dev/rutter/tests/workbench"
)

const (
	from = "1.30.3"
	to   = lib.LinkedVersion

	runs  = "/runs"
	runID = "test"
	// secret is what no output and no journal may hold.
	secret = "c2VjcmV0LXdvcmQtMTIzNA=="
)

// lab is what all tests share: the host, and the mesh as it is before a run.
type lab struct {
	host   *host.Host
	sealer *seal.Sealer
	before *sim.Cluster
}

var theLab = sync.OnceValues(newLab)

func laboratory(t testing.TB) *lab {
	t.Helper()
	l, err := theLab()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func newLab() (*lab, error) {
	if err := lib.Setup(); err != nil {
		return nil, err
	}
	renderer := lib.NewRenderer("")
	set, err := modules.Set(renderer)
	if err != nil {
		return nil, err
	}
	l := &lab{host: &host.Host{Builtins: set, Decoders: modules.Decoders(), Stdlib: stdlib.FS, Version: "test", Cache: loader.NewCache()}}
	if l.sealer, err = newSealer(); err != nil {
		return nil, err
	}
	r, err := renderer.Render(context.Background(), lib.RenderOptions{Profile: "default"})
	if err != nil {
		return nil, err
	}
	c, err := sim.New(sim.Options{Seed: 1, Controllers: controllers.All(), Injector: lib.NewInjector(), InjectOnLoad: true})
	if err != nil {
		return nil, err
	}
	spec := mesh.Spec{Istio: from, Workloads: 5, Namespaces: 2, Nodes: 2, Seed: 1, OnDelete: 1}
	if err := mesh.Populate(c, mesh.Build(spec, mesh.Retag(r.Objects, to, from))); err != nil {
		return nil, err
	}
	extra, err := sim.ReadFiles(os.DirFS("testdata"), "extra.yaml")
	if err != nil {
		return nil, err
	}
	if err := c.Load(extra); err != nil {
		return nil, err
	}
	c.Advance(settle)
	l.before = c
	return l, nil
}

func newSealer() (*seal.Sealer, error) {
	dir, err := os.MkdirTemp("", "rollback")
	if err != nil {
		return nil, err
	}
	s, err := seal.Open(dir)
	return s, errors.Join(err, os.RemoveAll(dir))
}

// settle is how long the controllers get to come to rest.
const settle = 5 * time.Minute

// world is one run on a cluster and a disk of its own.
type world struct {
	t      testing.TB
	lab    *lab
	sim    *sim.Cluster
	disk   *journal.MemFS
	events []event.Event
	on     func(event.Event)
	leave  bool // what an operator answers to a gate that asks
	yes    bool // and to a plan
	asked  []gate.Finding
	files  map[string]string // evidence
	said   string            // in every container's log, beside what is there
	source string            // of the runbook; "" for the in-place upgrade
}

func (l *lab) world(t testing.TB) *world {
	return &world{t: t, lab: l, sim: l.before.Clone(), disk: journal.NewMemFS(), leave: true, yes: true, files: map[string]string{}}
}

// again is a copy of the world as it is: another trial of what comes next.
func (w *world) again() *world {
	cp := *w
	cp.sim, cp.disk, cp.events, cp.on = w.sim.Clone(), w.disk.Crash(1<<30), nil, nil
	return &cp
}

// Approve implements engine.Approver.
func (w *world) Approve(context.Context, string, string, []string) (string, bool, error) {
	return "tester", w.yes, nil
}

// Leave implements engine.Approver.
func (w *world) Leave(_ context.Context, fs []gate.Finding) (string, bool, error) {
	w.asked = append(w.asked, fs...)
	return "tester", w.leave, nil
}

func (w *world) session(j journal.Journal) (host.Session, error) {
	client, err := cluster.New(w.sim.Config(), "sim", w.sim.Clock(), cluster.ClientOptions{})
	return host.Session{
		Env: &env.Env{Clock: w.sim.Clock()}, Cluster: chatty{client, w.said}, Analyze: istioctl.Mistakes, Journal: j, Approver: w, Sealer: w.lab.sealer,
		Sink: event.SinkFunc(func(e event.Event) {
			w.events = append(w.events, e)
			if w.on != nil {
				w.on(e)
			}
		}),
		Evidence: func(name string, content []byte) (string, error) {
			w.files[name] = string(content)
			return name, nil
		},
	}, err
}

// chatty is a cluster in which every container says something.
type chatty struct {
	*cluster.Client
	said string
}

// Logs implements cluster.Reader.
func (c chatty) Logs(ctx context.Context, namespace, pod, container string, lines int64, previous bool) (string, error) {
	text, err := c.Client.Logs(ctx, namespace, pod, container, lines, previous)
	return text + c.said, err
}

// run begins the run; soft is what an operator's interrupt ends.
func (w *world) run(soft context.Context) error {
	j, err := journal.Create(w.disk, runs, runID, w.sim.Clock())
	if err != nil {
		return err
	}
	l := loader.FS(runbooks.FS, "istio/in-place.star", stdlib.FS, nil, nil)
	if w.source != "" {
		l = loader.FromBundle(&loader.Bundle{Entry: "//test.star", Files: map[string]string{"//test.star": w.source}}, nil)
	}
	rb, err := w.lab.host.Load(soft, l)
	if err != nil {
		return err
	}
	given := map[string]any{"to": to, "soak": "30s"}
	if w.source != "" {
		given = nil
	}
	p, err := rb.Bind(nil, given)
	if err != nil {
		return err
	}
	s, err := w.session(j)
	if err != nil {
		return err
	}
	return closing(j, w.lab.host.Run(soft, context.Background(), s, rb, p))
}

func (w *world) open(do func(host.Session) error) error {
	j, err := journal.Open(w.disk, runs, runID, w.sim.Clock())
	if err != nil {
		return err
	}
	s, err := w.session(j)
	if err != nil {
		return err
	}
	return closing(j, do(s))
}

func (w *world) resume() error {
	ctx := context.Background()
	return w.open(func(s host.Session) error { return w.lab.host.Resume(ctx, ctx, s) })
}

// rollback undoes the run as another process would.
func (w *world) rollback(o engine.RollbackOptions) error {
	ctx := context.Background()
	return w.open(func(s host.Session) error { return w.lab.host.Rollback(ctx, ctx, s, o) })
}

// closing closes a journal, which a killed run leaves broken.
func closing(j journal.Journal, err error) error {
	if cerr := j.Close(); err == nil && cerr != nil {
		return cerr
	}
	return err
}

var errKilled = errors.New("killed")

// killAt makes the disk fail from its n-th operation on, as for a host that is
// killed; with after, that operation itself is still done.
func (w *world) killAt(n int, after bool) {
	cause := errKilled
	if after {
		cause = journal.ErrCrashed
	}
	i := 0
	w.disk.Fault(func(int, string) error {
		if i++; i >= n {
			return cause
		}
		return nil
	})
}

// reborn is the disk as another process finds it after a kill.
func (w *world) reborn() { w.disk = w.disk.Crash(0) }

// plan is the last rollback plan that was shown.
func (w *world) plan() *event.RollbackPlan {
	var p *event.RollbackPlan
	for _, e := range w.events {
		if b, ok := e.Body.(*event.RollbackPlan); ok {
			p = b
		}
	}
	if p == nil {
		w.t.Fatal("no rollback plan was shown")
	}
	return p
}

// compared is the last comparison.
func (w *world) compared() string {
	for _, e := range slices.Backward(w.events) {
		if b, ok := e.Body.(*event.Compared); ok {
			return b.Text
		}
	}
	return "not compared"
}

// state is everything there is, as far as it is no history: the normal form of
// every object, who owns its fields, and what runs in every workload's pods.
func (w *world) state() map[string]string {
	w.t.Helper()
	w.sim.Advance(settle)
	return workbench.State(w.t, w.sim)
}
