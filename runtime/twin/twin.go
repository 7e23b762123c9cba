package twin

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/sim"
)

// Options say how a twin lives on by itself.
type Options struct {
	Controllers []sim.Controller
	Injector    sim.Injector
	Now         time.Time // where virtual time begins
	Seed        int64     // of uids and generated names
	// Admission judges what is written to the twin, beside what the cluster has:
	// a rehearsal of something going wrong.
	Admission []sim.AdmissionHook
	// Connector answers probes of pods and Services; nil: nobody does. The
	// cluster's own are never asked, and each use is an assumption.
	Connector sim.Connector
}

// Twin is a simulated cluster that begins as another one.
type Twin struct {
	sim  *sim.Cluster
	name string // of the cluster's context
	live *live  // nil for a snapshot
	said *assumptions
	seen *recorder
}

// New makes the twin of a live cluster. It reads what the cluster serves, and
// the rest when it is first looked at. ctx bounds all of its requests.
func New(ctx context.Context, c *cluster.Client, o Options) (*Twin, error) {
	t := &Twin{name: c.Context(), said: &assumptions{}}
	l, err := newLive(ctx, c, t.said)
	if err != nil {
		return nil, err
	}
	l.ahead(first())
	in, err := l.introduce()
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", t.name, err)
	}
	t.live = l
	return t, t.begin(o, l, in.served, in.version.GitVersion)
}

func (t *Twin) begin(o Options, src sim.Backing, served []sim.Served, kubernetes string) error {
	t.seen = &recorder{}
	var err error
	t.sim, err = sim.New(sim.Options{
		Clock0: o.Now, Seed: o.Seed, KubernetesVersion: kubernetes, Injector: o.Injector,
		Controllers: append(append([]sim.Controller{}, o.Controllers...), t.seen), Backing: src, Served: served,
		Connector: t.connector(o.Connector),
	})
	if err != nil {
		return fmt.Errorf("cluster %s: %w", t.name, err)
	}
	for _, h := range o.Admission {
		t.sim.OnAdmission(h)
	}
	return nil
}

// Client is a client of the twin under the name of its cluster.
func (t *Twin) Client(clock env.Clock, o cluster.ClientOptions) (*cluster.Client, error) {
	if o.Record == nil { // else somebody wants to know of every request
		o.Store = t.sim
	}
	o.Distant = t.live != nil
	return cluster.New(t.sim.Config(), t.name, clock, o)
}

// Clock is the twin's virtual clock.
func (t *Twin) Clock() env.Clock { return t.sim.Clock() }

// Err is why nothing that the twin says is to be trusted any more: its cluster
// stopped answering half way (ErrUnreachable). Nil as long as it does.
func (t *Twin) Err() error { return t.sim.Backed() }

// Counts are the requests sent to the cluster so far.
func (t *Twin) Counts() (out Counts) {
	if t.live != nil {
		t.live.mu.Lock()
		defer t.live.mu.Unlock()
		out = t.live.counts
	}
	return out
}

// Assume names one more thing that was assumed.
func (t *Twin) Assume(a Assumption) { t.said.say(a) }

// Assumptions are all things that the twin could not know, in a fixed order.
func (t *Twin) Assumptions() []Assumption { return t.said.sorted() }

// Changes are the objects that are not as they came, in order: what the cluster
// would be afterwards.
func (t *Twin) Changes() []sim.Change { return t.sim.Changes() }

// Workloads says how those that changed fared, by name.
func (t *Twin) Workloads() (out []Course) {
	t.sim.View(func(sim.View) { out = t.seen.courses() })
	return out
}

// Budgets are the PodDisruptionBudgets that changed or stood in the way.
func (t *Twin) Budgets() (out []BudgetCourse) {
	t.sim.View(func(sim.View) { out = t.seen.budgets() })
	return out
}

// Origins are the objects of a resource as the cluster has them, as far as the
// rehearsal has looked for them.
func (t *Twin) Origins(gr schema.GroupResource) []*unstructured.Unstructured {
	return t.sim.Origins(gr)
}
