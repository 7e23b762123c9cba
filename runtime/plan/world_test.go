package plan_test

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/builtins/core"
	"rutter.dev/rutter/builtins/core/lang"
	"rutter.dev/rutter/builtins/diff"
	"rutter.dev/rutter/builtins/kube"
	"rutter.dev/rutter/builtins/restart"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/lock"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/plan"
	"rutter.dev/rutter/runtime/seal"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/twin"
	"rutter.dev/rutter/runtime/value"
)

const script = `
"""Changes a little of everything."""

runbook(
    name = "small", version = "1.2.3", api = 1,
    params = {"value": param.string(default = "2", doc = "a value")},
)

CONF = """
apiVersion: v1
kind: ConfigMap
metadata: {name: added, namespace: shop}
data: {a: "%s"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec: {containers: [{name: api, image: "api:2"}]}
"""

def run(p):
    review = step("review", diff.live, CONF % p.value)
    approve("change the shop", covers = [review])
    step("apply", kube.apply, CONF % p.value)
    step("label", kube.label, "ns/shop", set = {"tier": "gold"})
    step("restart", restart.workloads, ["deploy/web", "deploy/cart", "sts/db"], namespace = "shop", waves = restart.waves(canary = 1, then = 2), soak = "1m")
    step("remove", kube.delete, "configmap/old", namespace = "shop")
`

const objects = `
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {allocatable: {cpu: "8", memory: 16Gi, pods: "110"}, conditions: [{type: Ready, status: "True"}]}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: istio-system}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: istiod, namespace: istio-system, labels: {app: istiod, istio.io/rev: default}}, spec: {replicas: 2, selector: {matchLabels: {app: istiod}}, template: {metadata: {labels: {app: istiod, istio.io/rev: default}}, spec: {containers: [{name: discovery, image: "docker.io/istio/pilot:1.31.0"}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}, spec: {replicas: 3, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: "web:1"}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: cart, namespace: shop}, spec: {replicas: 2, selector: {matchLabels: {app: cart}}, template: {metadata: {labels: {app: cart}}, spec: {containers: [{name: cart, image: "cart:1"}]}}}}
---
{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db, namespace: shop}, spec: {replicas: 3, serviceName: db, updateStrategy: {type: OnDelete}, selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: db, image: "db:1"}]}}}}
---
{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: web, namespace: shop}, spec: {minAvailable: 2, selector: {matchLabels: {app: web}}}}
---
{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: db, namespace: shop}, spec: {minAvailable: 2, selector: {matchLabels: {app: db}}}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: old, namespace: shop}, data: {gone: soon}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: other, namespace: shop}, data: {not: mine}}
`

// lab is a live cluster with what rehearses on it and runs on it.
type lab struct {
	t      testing.TB
	host   *host.Host
	sim    *sim.Cluster
	root   string
	policy *gate.Policy
	params []string
	// beside is called on every event of a run.
	beside func(event.Event)
	// wrap comes between a rehearsal and the cluster, and user is as whom it asks.
	wrap   func(http.RoundTripper) http.RoundTripper
	user   string
	events []event.Event
}

func newLab(t testing.TB) *lab {
	t.Helper()
	var specs []*builtin.Spec
	for _, s := range [][]*builtin.Spec{interp.Builtins(), lang.Builtins(), core.Specs(), kube.Specs(), diff.Specs(), restart.Specs()} {
		specs = append(specs, s...)
	}
	set, err := builtin.NewSet(specs...)
	if err != nil {
		t.Fatal(err)
	}
	decoders := map[string]value.Decoder{manifest.Kind: manifest.Decode}
	maps.Copy(decoders, kube.Decoders())
	maps.Copy(decoders, diff.Decoders())
	maps.Copy(decoders, restart.Decoders())
	l := &lab{t: t, host: &host.Host{Builtins: set, Decoders: decoders, Version: "test", Cache: loader.NewCache()}, root: t.TempDir()}
	l.write(script)
	l.sim = l.cluster(objects)
	return l
}

func (l *lab) write(script string) {
	l.t.Helper()
	if err := os.WriteFile(filepath.Join(l.root, "small.star"), []byte(script), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) cluster(text string) *sim.Cluster {
	l.t.Helper()
	c, err := sim.New(sim.Options{Controllers: controllers.All()})
	if err != nil {
		l.t.Fatal(err)
	}
	objs, err := sim.ReadObjects(strings.NewReader(text), "objects")
	if err != nil {
		l.t.Fatal(err)
	}
	if err := c.Load(objs); err != nil {
		l.t.Fatal(err)
	}
	c.Advance(2 * time.Minute)
	return c
}

func (l *lab) runbook() (*host.Runbook, *interp.Params) {
	l.t.Helper()
	ld, err := loader.Dir(l.root, "small.star", nil, l.host.Cache)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = ld.Close() }() // read only: nothing can be lost
	rb, err := l.host.Load(l.t.Context(), ld)
	if err != nil {
		l.t.Fatal(err)
	}
	p, err := rb.Bind(l.params, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	return rb, p
}

func (l *lab) client() *cluster.Client {
	l.t.Helper()
	c, err := cluster.New(l.sim.Config(), "prod", l.sim.Clock(), cluster.ClientOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

func (l *lab) plan() (*plan.Plan, error) {
	l.t.Helper()
	cfg := l.sim.Config()
	cfg.Impersonate.UserName = l.user
	if l.wrap != nil {
		cfg.Transport = l.wrap(cfg.Transport)
	}
	c, err := cluster.New(cfg, "prod", l.sim.Clock(), cluster.ClientOptions{})
	if err != nil {
		return nil, err
	}
	tw, err := twin.New(l.t.Context(), c, twin.Options{Controllers: controllers.All(), Now: l.sim.Clock().Now()})
	if err != nil {
		return nil, err
	}
	rb, p := l.runbook()
	return plan.Rehearse(l.t.Context(), plan.Rehearsal{Host: l.host, Runbook: rb, Params: p, Twin: tw, Policy: l.policy, Workdir: l.root, Path: "small.star"})
}

func (l *lab) planned() *plan.Plan {
	l.t.Helper()
	p, err := l.plan()
	if err != nil {
		l.t.Fatal(err)
	}
	return p
}

type yes struct{}

func (yes) Approve(context.Context, string, string, []string) (string, bool, error) {
	return "me", true, nil
}
func (yes) Leave(context.Context, []gate.Finding) (string, bool, error) { return "me", true, nil }

// run runs the runbook for real, held to a saved plan; nil for none.
func (l *lab) run(saved []byte) error {
	l.t.Helper()
	return l.runOn(l.t.Context(), journal.NewMemFS(), saved)
}

// runOn is run with a journal of its own, which a resume can read.
func (l *lab) runOn(ctx context.Context, disk journal.FS, saved []byte) error {
	l.t.Helper()
	j, err := journal.Create(disk, "/runs", "r1", l.sim.Clock())
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = j.Close() }() // in memory
	s := l.session(j)
	s.Plan = saved
	rb, p := l.runbook()
	return l.host.Run(ctx, ctx, s, rb, p)
}

// resume takes the run on disk up where it ended.
func (l *lab) resume(disk journal.FS) error {
	l.t.Helper()
	j, err := journal.Open(disk, "/runs", "r1", l.sim.Clock())
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = j.Close() }() // in memory
	return l.host.Resume(l.t.Context(), l.t.Context(), l.session(j))
}

func (l *lab) session(j journal.Journal) host.Session {
	sealer, err := seal.Ephemeral()
	if err != nil {
		l.t.Fatal(err)
	}
	client, err := cluster.New(l.sim.Config(), "prod", lock.NewClock(l.sim.Clock()), cluster.ClientOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	return host.Session{
		Env: &env.Env{
			Clock: l.sim.Clock(), Rand: rand.NewChaCha8([32]byte{}), Getenv: func(string) string { return "" }, Stdin: strings.NewReader(""),
			Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}, IsTerminal: func(any) bool { return false }, Workdir: l.root,
		},
		Cluster: client, Journal: j, Approver: yes{}, Policy: l.policy, Sealer: sealer, Invocation: json.RawMessage("{}"), Conform: plan.Conform,
		Sink: event.SinkFunc(func(e event.Event) {
			l.events = append(l.events, e)
			if l.beside != nil {
				l.beside(e)
			}
		}),
	}
}

// made are the effects that a run made, as a plan names them.
func (l *lab) made() []string {
	var out []string
	for _, e := range l.events {
		if d, ok := e.Body.(*event.EffectDone); ok {
			out = append(out, e.Step+" "+string(d.Verb)+" "+d.Ref.String())
		}
	}
	return out
}
