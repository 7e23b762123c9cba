package restart

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// gateways is how many pods the mesh's gateway has: its image is given, and
// comes with the manifest.
const gateways = 1

// stale wishes for every workload that has a proxy of 1.30.3.
func (w *world) stale() []wish {
	byPod := map[string]wish{}
	for _, o := range w.sim.Objects() {
		px, has := proxyOf(o)
		got := px.version
		if o.GetKind() != "Pod" || !has || got == "1.31.0" || o.GetNamespace() == mesh.SystemNamespace || len(o.GetOwnerReferences()) == 0 {
			continue
		}
		owner := o.GetOwnerReferences()[0]
		ref := cluster.Ref{Group: "apps", Version: "v1", Kind: owner.Kind, Namespace: o.GetNamespace(), Name: owner.Name}
		if owner.Kind == "ReplicaSet" {
			ref.Kind, ref.Name = "Deployment", owner.Name[:strings.LastIndex(owner.Name, "-")]
		}
		byPod[ref.ID()] = wish{ref: ref, reason: "proxy 1.30.3, injection gives 1.31.0", from: got, to: "1.31.0"}
	}
	var out []wish
	for _, id := range slices.Sorted(maps.Keys(byPod)) {
		out = append(out, byPod[id])
	}
	return out
}

func (w *world) plan(waves *Waves, limit int) *effect.Plan {
	w.t.Helper()
	p, err := newPlanner(w.call(), waves, limit).plan(w.stale(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) versions() map[string]int {
	n := map[string]int{}
	for _, o := range w.sim.Objects() {
		if got, has := proxyOf(o); has && o.GetKind() == "Pod" && o.GetDeletionTimestamp() == nil {
			n[got.version]++
		}
	}
	return n
}

func usual() limits { return limits{perNamespace: 4, timeout: 10 * time.Minute} }

func TestSixtyWorkloadsWithinLimits(t *testing.T) {
	spec := mesh.Default()
	spec.OnDelete, spec.SingleReplica = 2, 3
	w := newWorld(t, spec)
	start := w.clock.Now()
	most, mostIn := 0, 0
	w.clock.each = func() {
		all := w.sim.Objects()
		total, per := rolling(all)
		most, mostIn = max(most, total), max(mostIn, per)
		w.budgetsHold(all)
	}
	p := w.plan(&Waves{Canary: 1, Then: defaultWaves().Then}, 20)
	r, err := drive(w.call(), w, p, limits{perNamespace: 2, timeout: 10 * time.Minute, soak: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if v := w.versions(); v["1.30.3"] > gateways || v["1.31.0"] == 0 {
		t.Errorf("proxies afterwards: %v", v)
	}
	share := (len(r.Restarted) + 3) / 4
	if most > share || mostIn > 2 || most < share-3 {
		t.Errorf("%d workloads in flight at once (%d in one namespace), want about %d and at most 2", most, mostIn, share)
	}
	if len(r.Restarted) != len(w.wanted(p)) {
		t.Errorf("%d restarted of %d", len(r.Restarted), len(w.wanted(p)))
	}
	if r.Waves[0].Name != "canary" || r.Waves[0].Size != 1 || r.Waves[0].Seconds < 300 || len(r.Waves) != 2 {
		t.Errorf("waves %+v: want a soaked canary and the rest", r.Waves)
	}
	if took := w.clock.Now().Sub(start); took > 10*time.Minute {
		t.Errorf("took %s of virtual time", took)
	}
}

func (w *world) wanted(p *effect.Plan) map[string]bool {
	out := map[string]bool{}
	for _, e := range p.Effects {
		name := e.Ref.ID()
		if e.Ref.Kind == "Pod" {
			name = "pods of " + e.Ref.Name[:strings.LastIndex(e.Ref.Name, "-")] + e.Ref.Namespace
		}
		out[name] = true
	}
	return out
}

// rolling counts workloads whose pods are being replaced, in all and at most in
// one namespace.
func rolling(all []*unstructured.Unstructured) (total, most int) {
	per := map[string]map[string]bool{}
	for _, o := range all {
		if o.GetKind() != "Pod" || podReady(o) && o.GetDeletionTimestamp() == nil || o.GetDeletionTimestamp() != nil {
			continue
		}
		if per[o.GetNamespace()] == nil {
			per[o.GetNamespace()] = map[string]bool{}
		}
		per[o.GetNamespace()][o.GetLabels()["app"]] = true
	}
	for _, names := range per {
		total += len(names)
		most = max(most, len(names))
	}
	return total, most
}

// budgetsHold fails the test when a budget has fewer healthy pods than it asks for.
func (w *world) budgetsHold(all []*unstructured.Unstructured) {
	w.t.Helper()
	for _, o := range all {
		if o.GetKind() != "PodDisruptionBudget" {
			continue
		}
		healthy, desired := number(o, 0, "status", "currentHealthy"), number(o, 0, "status", "desiredHealthy")
		if healthy < desired {
			w.t.Errorf("%s: %s has %d healthy pods of %d at %s", o.GetNamespace(), o.GetName(), healthy, desired, w.clock.Now().Format(time.TimeOnly))
		}
	}
}

func TestSameRunSameEffects(t *testing.T) {
	var first []string
	for range 2 {
		w := newWorld(t, mesh.Spec{Istio: "1.30.3", Workloads: 24, Namespaces: 4, Nodes: 2, Seed: 3, OnDelete: 1})
		if _, err := drive(w.call(), w, w.plan(nil, 6), usual()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range w.sent {
			got = append(got, e.Digest()+" "+e.Ref.String()+" "+e.Wave)
		}
		got = append(got, w.clock.Now().String())
		if first != nil && !slices.Equal(first, got) {
			t.Errorf("two runs differ:\n%v\n%v", first, got)
		}
		first = got
	}
}

func TestBarrierWaves(t *testing.T) {
	w := newWorld(t, mesh.Spec{Istio: "1.30.3", Workloads: 9, Namespaces: 3, Nodes: 2, Seed: 1})
	waves := &Waves{Canary: 1, Then: defaultWaves().Then, Barrier: true}
	if _, err := drive(w.call(), w, w.plan(waves, 20), limits{perNamespace: 4, timeout: time.Minute, soak: time.Minute}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range w.events {
		switch b := b.(type) {
		case *event.WaveStarted:
			got = append(got, fmt.Sprintf("%s: %d of %d", b.Name, b.Size, b.Total))
		case *event.WaveEnded:
			got = append(got, fmt.Sprintf("%s ok %v", b.Name, b.OK))
		}
	}
	want := []string{
		"canary: 1 of 6", "canary ok true", "2 of 4: 2 of 6", "2 of 4 ok true",
		"3 of 4: 2 of 6", "3 of 4 ok true", "4 of 4: 1 of 6", "4 of 4 ok true",
	}
	if !slices.Equal(got, want) {
		t.Errorf("waves\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestBadImageStopsTheCanary(t *testing.T) {
	w := newWorld(t, mesh.Spec{Istio: "1.30.3", Workloads: 8, Namespaces: 2, Nodes: 2, Seed: 1})
	p := w.plan(nil, 20)
	canary := p.Effects[0].Ref
	w.before = func(e *effect.Effect) error {
		w.before = nil // the application's next image is broken, and nobody knows yet
		w.patch(e.Ref.Kind, e.Ref.Namespace, e.Ref.Name, `{"spec":{"template":{"spec":{"containers":[{"name":"app","image":"registry.example/app:1-bad"}]}}}}`)
		return nil
	}
	_, err := drive(w.call(), w, p, usual())
	var d *diag.Error
	if !errors.As(err, &d) || d.Subject != canary.String() {
		t.Fatalf("error %v, want one about %s", err, canary)
	}
	for _, want := range []string{"wave canary stops here", "container app: ", "restarted: none", "not begun: ", "last event: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
	if len(w.sent) != 1 {
		t.Errorf("%d effects, want only the canary's", len(w.sent))
	}
	if e, ok := w.events[len(w.events)-1].(*event.WaveEnded); !ok || e.OK || e.Error == "" {
		t.Errorf("last event %+v", w.events[len(w.events)-1])
	}
}

func TestNeverReadyTimesOut(t *testing.T) {
	w := newWorld(t, mesh.Spec{Istio: "1.30.3", Workloads: 8, Namespaces: 2, Nodes: 2, Seed: 1})
	p := w.plan(&Waves{Then: defaultWaves().Then}, 20)
	last := p.Effects[len(p.Effects)-1].Ref
	w.patch(last.Kind, last.Namespace, last.Name, `{"spec":{"paused":true,"template":{"metadata":{"annotations":{"sim.rutter.dev/never-ready":"true"}}}}}`)
	w.before = func(e *effect.Effect) error {
		if e.Ref == last {
			w.patch(last.Kind, last.Namespace, last.Name, `{"spec":{"paused":false}}`)
		}
		return nil
	}
	_, err := drive(w.call(), w, p, limits{perNamespace: 4, timeout: time.Minute})
	if err == nil || !strings.Contains(err.Error(), last.String()) || !strings.Contains(err.Error(), "not ready after 1m0s") {
		t.Fatalf("error %v", err)
	}
	if !strings.Contains(err.Error(), "restarted: ") || strings.Contains(err.Error(), "restarted: none") {
		t.Errorf("error does not say what was restarted: %v", err)
	}
}

func TestWrongProxyStops(t *testing.T) {
	w := newWorld(t, mesh.Spec{Istio: "1.30.3", Workloads: 6, Namespaces: 2, Nodes: 2, Seed: 1})
	wishes := w.stale()
	for i := range wishes {
		wishes[i].to = "1.32.0"
	}
	p, err := newPlanner(w.call(), nil, 5).plan(wishes, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = drive(w.call(), w, p, usual())
	if err == nil || !strings.Contains(err.Error(), "came back with proxy 1.31.0, expected 1.32.0") {
		t.Errorf("error %v", err)
	}
}

func TestOnDeleteGoesOneByOneFromTheTop(t *testing.T) {
	w := newWorld(t, mesh.Spec{Istio: "1.30.3", Workloads: 4, Namespaces: 1, Nodes: 2, Seed: 5, OnDelete: 1})
	p := w.plan(nil, 5)
	if _, err := drive(w.call(), w, p, usual()); err != nil {
		t.Fatal(err)
	}
	var evicted []string
	for _, e := range w.sent {
		if e.Verb == effect.Evict {
			evicted = append(evicted, e.Ref.Name[strings.LastIndex(e.Ref.Name, "-")+1:])
		}
	}
	if len(evicted) < 2 || !slices.IsSortedFunc(evicted, func(a, b string) int { return strings.Compare(b, a) }) {
		t.Errorf("evicted ordinals %v, want the highest first", evicted)
	}
	if v := w.versions(); v["1.30.3"] > gateways {
		t.Errorf("proxies afterwards: %v", v)
	}
}

func TestStrictBudgetIsLeftToTheGate(t *testing.T) {
	w := newWorld(t, mesh.Spec{Istio: "1.30.3", Workloads: 5, Namespaces: 1, Nodes: 2, Seed: 2, StrictPDBs: 1})
	var strict cluster.Ref
	for _, o := range w.sim.Objects() {
		if o.GetKind() == "PodDisruptionBudget" && number(o, 0, "status", "expectedPods") == number(o, 0, "status", "desiredHealthy") {
			strict = cluster.Ref{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: o.GetNamespace(), Name: o.GetName()}
		}
	}
	w.patch(strict.Kind, strict.Namespace, strict.Name, `{"spec":{"strategy":{"rollingUpdate":{"maxSurge":0,"maxUnavailable":1}}}}`)
	refused := errors.New("refused by RUT013")
	w.before = func(e *effect.Effect) error {
		if e.Ref == strict {
			return refused
		}
		return nil
	}
	_, err := drive(w.call(), w, w.plan(nil, 5), limits{perNamespace: 4, timeout: time.Minute})
	if !errors.Is(err, refused) {
		t.Errorf("error %v, want the gate's", err)
	}
}

func TestSharedBudgetIsNotOverdrawn(t *testing.T) {
	w := newWorld(t, mesh.Spec{Istio: "1.30.3", Workloads: 6, Namespaces: 1, Nodes: 2, Seed: 2})
	for _, o := range w.sim.Objects() {
		if o.GetKind() == "PodDisruptionBudget" {
			if err := w.client.Delete(context.Background(), cluster.RefOf(o), cluster.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, wi := range w.stale() {
		if wi.ref.Kind == "Deployment" {
			w.patch(wi.ref.Kind, wi.ref.Namespace, wi.ref.Name, `{"spec":{"strategy":{"rollingUpdate":{"maxSurge":0,"maxUnavailable":1}}}}`)
		}
	}
	w.sim.Advance(2 * time.Minute)
	one := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": map[string]any{"name": "all", "namespace": w.stale()[0].ref.Namespace},
		"spec": map[string]any{"maxUnavailable": int64(1), "selector": map[string]any{"matchLabels": map[string]any{"version": "v1"}}},
	}}
	if _, err := w.client.Create(context.Background(), one, cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.sim.Advance(time.Minute)
	w.clock.each = func() { w.budgetsHold(w.sim.Objects()) }
	if _, err := drive(w.call(), w, w.plan(nil, 5), usual()); err != nil {
		t.Fatal(err)
	}
}

func TestResumeRepeatsNothing(t *testing.T) {
	w := newWorld(t, mesh.Spec{Istio: "1.30.3", Workloads: 12, Namespaces: 3, Nodes: 2, Seed: 4, OnDelete: 1})
	p := w.plan(nil, 4)
	ctx, kill := context.WithCancel(context.Background())
	c := w.call()
	c.Ctx = ctx
	w.before = func(*effect.Effect) error {
		if len(w.sent) == 5 {
			kill()
		}
		return nil
	}
	if _, err := drive(c, w, p, usual()); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	before := len(w.sent)
	w.before = nil
	if _, err := drive(w.call(), w, p, usual()); err != nil {
		t.Fatal(err)
	}
	if len(w.sent) != len(p.Effects) || before == 0 || before == len(p.Effects) {
		t.Errorf("%d effects sent before the kill, %d in all, %d planned", before, len(w.sent), len(p.Effects))
	}
	if v := w.versions(); v["1.30.3"] > gateways {
		t.Errorf("proxies afterwards: %v", v)
	}
}

func TestDaemonSetOnDeleteAndRecreate(t *testing.T) {
	w := newWorld(t, mesh.Spec{Istio: "1.30.3", Workloads: 8, Namespaces: 1, Nodes: 3, Seed: 1})
	evictions := 0
	for _, wi := range w.stale() {
		switch wi.ref.Kind {
		case "DaemonSet":
			evictions = 3
			w.patch(wi.ref.Kind, wi.ref.Namespace, wi.ref.Name, `{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}`)
		case "Deployment":
			w.patch(wi.ref.Kind, wi.ref.Namespace, wi.ref.Name, `{"spec":{"strategy":{"type":"Recreate","rollingUpdate":null}}}`)
		}
	}
	for _, o := range w.sim.Objects() {
		if o.GetKind() == "PodDisruptionBudget" {
			if err := w.client.Delete(context.Background(), cluster.RefOf(o), cluster.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := drive(w.call(), w, w.plan(nil, 5), usual()); err != nil {
		t.Fatal(err)
	}
	for _, e := range w.sent {
		if e.Verb == effect.Evict {
			evictions--
		}
	}
	if v := w.versions(); v["1.30.3"] > gateways || evictions != 0 {
		t.Errorf("proxies afterwards: %v, %d evictions too few", v, evictions)
	}
}

func TestDeletedMeanwhile(t *testing.T) {
	w := newWorld(t, mesh.Spec{Istio: "1.30.3", Workloads: 5, Namespaces: 1, Nodes: 2, Seed: 1})
	p := w.plan(nil, 1)
	gone := p.Effects[len(p.Effects)-1].Ref
	w.before = func(*effect.Effect) error {
		w.before = nil
		return w.client.Delete(context.Background(), gone, cluster.WriteOptions{})
	}
	r, err := drive(w.call(), w, p, usual())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Skipped) != 1 || r.Skipped[0].Name != gone.Name || !strings.Contains(r.Skipped[0].Reason, "deleted") {
		t.Errorf("left alone: %+v, want %s", r.Skipped, gone)
	}
}

func TestOnlyTheNodesThatAreNamed(t *testing.T) {
	w := newWorld(t, mesh.Spec{Istio: "1.30.3", Workloads: 8, Namespaces: 1, Nodes: 3, Seed: 1})
	var wishes []wish
	for _, wi := range w.stale() {
		if wi.ref.Kind == "DaemonSet" {
			wishes = append(wishes, wish{ref: wi.ref, reason: "test", nodes: []string{"node-2"}})
		}
	}
	if len(wishes) != 1 {
		t.Fatalf("%d DaemonSets, want one", len(wishes))
	}
	if _, err := newPlanner(w.call(), nil, 5).plan(wishes, nil); err == nil || !strings.Contains(err.Error(), "replaces the pods of all nodes") {
		t.Errorf("rolled by its controller: got %v", err)
	}
	w.patch("DaemonSet", wishes[0].ref.Namespace, wishes[0].ref.Name, `{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}`)
	p, err := newPlanner(w.call(), nil, 5).plan(wishes, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := drive(w.call(), w, p, usual()); err != nil {
		t.Fatal(err)
	}
	if len(w.sent) != 1 || text(w.sent[0].Before, "spec", "nodeName") != "node-2" {
		t.Errorf("sent %v", w.sent)
	}
	wishes[0].nodes = []string{"node-9"}
	if p, err = newPlanner(w.call(), nil, 5).plan(wishes, nil); err != nil || len(p.Effects) != 0 || !strings.Contains(strings.Join(p.Notes, "\n"), "it has no pod on node-9") {
		t.Errorf("no such node: %v, %v", p, err)
	}
}
