package failures

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"rutter.dev/rutter/builtins/istioctl"
	"rutter.dev/rutter/runbooks"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/lock"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/runtime/sim/mesh/istiod"
	"rutter.dev/rutter/runtime/sim/streams"
	"rutter.dev/rutter/stdlib"
	"rutter.dev/rutter/tests/workbench"
)

// flow is a runbook of the catalogue that comes with rutter.
type flow string

// The flows.
const (
	inPlace flow = "in-place" // the default
)

// file is the runbook of a flow.
func (f flow) file() string { return "istio/" + string(f) + ".star" }

// world is one run of a flow on a cluster and a disk of its own.
type world struct {
	t      testing.TB
	lab    *lab
	sim    *sim.Cluster
	admin  *cluster.Client
	disk   *journal.MemFS
	flow   flow
	std    fs.FS // the library; nil: rutter's
	params map[string]any
	policy *gate.Policy
	config *rest.Config // of the run; nil: within the process
	events []event.Event
	on     func(event.Event) // what others do meanwhile
}

func newWorld(t testing.TB, b base, f flow) *world {
	t.Helper()
	l := laboratory(t)
	w := &world{t: t, lab: l, disk: journal.NewMemFS(), flow: f, params: map[string]any{"to": to, "soak": "30s"}}
	var err error
	if b.Listening {
		w.listen(b)
	} else if w.sim, err = l.cluster(b); err != nil {
		t.Fatal(err)
	}
	if w.admin, err = admin(w.sim); err != nil {
		t.Fatal(err)
	}
	w.params["set"] = b.set()
	if b.Profile != "" && f == inPlace { // other flows have their own
		w.params["profile"] = b.Profile
	}
	return w
}

// listen makes a mesh whose istiods answer, and that the run reaches as it reaches
// a real one: by its address, with port forwards. A clone would not do, since its
// istiods are those of what it was cloned from.
func (w *world) listen(b base) {
	w.t.Helper()
	istiods := mesh.NewIstiods()
	c, err := w.lab.build(b.withDefaults(), istiods)
	if err != nil {
		w.t.Fatal(err)
	}
	pods, err := istiod.New(c, istiods)
	if err != nil {
		w.t.Fatal(err)
	}
	c.OnConnect(streams.New(pods))
	server := httptest.NewServer(c.Handler())
	w.t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		if err := pods.Close(); err != nil {
			w.t.Error(err)
		}
	})
	w.sim, w.config = c, &rest.Config{Host: server.URL}
}

// apply puts objects into the cluster as somebody with kubectl does.
func (w *world) apply(text string) {
	w.t.Helper()
	for _, o := range objects(w.t, text) {
		if _, err := w.admin.Apply(context.Background(), o, cluster.ApplyOptions{Force: true, Manager: "kubectl"}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// load puts objects into the cluster as a backup does: with status and without
// owners of fields.
func (w *world) load(text string) {
	w.t.Helper()
	if err := w.sim.Load(objects(w.t, text)); err != nil {
		w.t.Fatal(err)
	}
}

// patch changes objects as their managers do.
func (w *world) patch(all ...patch) {
	w.t.Helper()
	for _, p := range all {
		body, err := json.Marshal(p.Merge)
		if err != nil {
			w.t.Fatal(err)
		}
		kind := types.MergePatchType
		if p.Type == "strategic" {
			kind = types.StrategicMergePatchType
		}
		o := cluster.WriteOptions{Manager: cmp.Or(p.By, "kubectl")}
		if _, err := w.admin.Patch(context.Background(), w.ref(p.object), kind, body, o); err != nil {
			w.t.Fatalf("%s: %v", p.Ref, err)
		}
	}
}

// remove deletes objects.
func (w *world) remove(all ...object) {
	w.t.Helper()
	for _, o := range all {
		if err := w.admin.Delete(context.Background(), w.ref(o), cluster.WriteOptions{}); err != nil {
			w.t.Fatalf("%s: %v", o.Ref, err)
		}
	}
}

// Approve implements engine.Approver: whoever runs this says yes to what is shown.
func (w *world) Approve(context.Context, string, string, []string) (string, bool, error) {
	return "tester", true, nil
}

// Leave implements engine.Approver: and gives no leave to what a gate asks.
func (w *world) Leave(context.Context, []gate.Finding) (string, bool, error) {
	return "tester", false, nil
}

func (w *world) session(j journal.Journal) (host.Session, error) {
	clock := lock.NewClock(w.sim.Clock())
	config := w.config
	if config == nil {
		config = w.sim.Config()
	}
	client, err := cluster.New(config, "sim", clock, cluster.ClientOptions{Version: "test"})
	return host.Session{
		Env: &env.Env{Clock: clock, Rand: rand.NewChaCha8([32]byte{})}, Cluster: client, Analyze: istioctl.Mistakes,
		Journal: j, Approver: w, Sealer: w.lab.sealer, Policy: w.policy,
		Lock: &lock.Options{Rand: rand.NewChaCha8([32]byte{}), Holder: "tester", Host: "test", Alone: true},
		Sink: event.Serial(event.SinkFunc(func(e event.Event) {
			w.events = append(w.events, e)
			if w.on != nil {
				w.on(e)
			}
		})),
	}, err
}

const (
	runs  = "/runs"
	runID = "test"
)

// run carries the flow out.
func (w *world) run() error {
	ctx := context.Background()
	w.sim.ClearRequests()
	j, err := journal.Create(w.disk, runs, runID, w.sim.Clock())
	if err != nil {
		return err
	}
	std := w.std
	if std == nil {
		std = stdlib.FS
	}
	rb, err := w.lab.host.Load(ctx, loader.FS(runbooks.FS, w.flow.file(), std, nil, nil))
	if err != nil {
		return err
	}
	p, err := rb.Bind(nil, w.params)
	if err != nil {
		return err
	}
	s, err := w.session(j)
	if err != nil {
		return err
	}
	return closing(j, w.lab.host.Run(ctx, ctx, s, rb, p))
}

// rollback undoes the run as another process would.
func (w *world) rollback() error {
	ctx := context.Background()
	j, err := journal.Open(w.disk, runs, runID, w.sim.Clock())
	if err != nil {
		return err
	}
	s, err := w.session(j)
	if err != nil {
		return err
	}
	return closing(j, w.lab.host.Rollback(ctx, ctx, s, engine.RollbackOptions{}))
}

func closing(j journal.Journal, err error) error { return errors.Join(err, j.Close()) }

// writes are the requests by which the run changed the cluster, or tried to, as
// the API server's own log has them. What a run does to its own Lease changes
// nothing of the mesh.
func (w *world) writes() []string {
	var out []string
	for _, r := range w.sim.Requests() {
		reading := slices.Contains([]string{"get", "list", "watch"}, r.Verb)
		if reading || r.DryRun || strings.HasSuffix(r.Resource, "accessreviews") || strings.HasSuffix(r.Resource, "rulesreviews") || r.Resource == "leases" {
			continue
		}
		out = append(out, r.Verb+" "+r.Resource+" "+r.Namespace+"/"+r.Name)
	}
	return out
}

// state is everything there is once the controllers are at rest.
func (w *world) state() map[string]string {
	w.t.Helper()
	w.sim.Advance(settle)
	return workbench.State(w.t, w.sim)
}

// found lists what gates found that stops a run.
func (w *world) found() []gate.Finding {
	var out []gate.Finding
	for _, e := range w.events {
		if b, ok := e.Body.(*event.Findings); ok {
			for _, f := range b.Findings {
				if f.Verdict >= gate.Ask {
					out = append(out, f)
				}
			}
		}
	}
	return out
}

// failed is the outermost step that failed; "" if none did.
func (w *world) failed() string {
	for _, e := range w.events {
		if b, ok := e.Body.(*event.StepEnded); ok && !b.OK && b.Depth == 0 {
			return b.Name
		}
	}
	return ""
}

// restarted counts the workloads whose restart was done.
func (w *world) restarted() int {
	n := 0
	for _, e := range w.events {
		if b, ok := e.Body.(*event.EffectDone); ok && b.Class == effect.Restart {
			n++
		}
	}
	return n
}
