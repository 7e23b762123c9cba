package restart

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.starlark.net/starlark"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/runtime/value"
)

func spec(t *testing.T, name string) *builtin.Spec {
	t.Helper()
	for _, s := range Specs() {
		if s.Name == "restart."+name {
			return s
		}
	}
	t.Fatalf("no builtin restart.%s", name)
	return nil
}

func kw(name string, v starlark.Value) starlark.Tuple {
	return starlark.Tuple{starlark.String(name), v}
}

// run plans and drives a builtin, the plan having gone through the journal.
func (w *world) run(name string, args starlark.Tuple, kwargs ...starlark.Tuple) (*Report, *effect.Plan, error) {
	w.t.Helper()
	s := spec(w.t, name)
	a, err := s.Unpack(args, kwargs)
	if err != nil {
		return nil, nil, err
	}
	p, err := s.PlanCall(w.call(), a)
	if err != nil {
		return nil, nil, err
	}
	raw, err := json.Marshal(p)
	if err != nil {
		w.t.Fatal(err)
	}
	recorded := &effect.Plan{}
	if err := json.Unmarshal(raw, recorded); err != nil {
		w.t.Fatal(err)
	}
	v, err := s.DriveCall(w.call(), w, a, recorded)
	if err != nil {
		return nil, p, err
	}
	return v.(*Report), p, nil
}

func TestOutdated(t *testing.T) {
	w := newWorld(t, mesh.Spec{Istio: "1.30.3", Workloads: 16, Namespaces: 4, Nodes: 2, Seed: 1, NoSidecar: 2, BarePods: 1, OnDelete: 1})
	requests := len(w.sim.Requests())
	r, p, err := w.run("outdated", nil, kw("soak", starlark.String("1m")))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range p.Effects {
		if c := effect.Classify(e); c != effect.Restart && c != effect.Eviction {
			t.Errorf("%s is of class %s", e.Ref, c)
		}
		if e.Before == nil || e.Why == "" || e.Wave == "" || strings.Contains(string(e.Body), "2026") {
			t.Errorf("effect %+v", e)
		}
		if e.Verb == effect.Patch && (e.After == nil || e.After.GetGeneration() <= e.Before.GetGeneration()) {
			t.Errorf("%s: no prediction of its rollout", e.Ref)
		}
	}
	if v := w.versions(); v["1.30.3"] != gateways+1 {
		t.Errorf("proxies afterwards: %v; want the gateway's and the bare pod's left", v)
	}
	if len(r.Skipped) != 1 || !strings.Contains(r.Skipped[0].Reason, "bare pod") {
		t.Errorf("left alone: %+v", r.Skipped)
	}
	if !slices.ContainsFunc(p.Notes, func(n string) bool { return strings.Contains(n, "debug-1") }) {
		t.Errorf("notes %q do not name the bare pod", p.Notes)
	}
	again, p, err := w.run("outdated", nil)
	if err != nil || len(p.Effects) != 0 || len(again.Restarted) != 0 {
		t.Errorf("again: %v, %d effects", err, len(p.Effects))
	}
	if n := len(w.sim.Requests()) - requests; n > 600 {
		t.Errorf("%d requests for 13 workloads", n)
	}
}

func TestOutdatedNarrowed(t *testing.T) {
	w := newWorld(t, mesh.Spec{Istio: "1.30.3", Workloads: 8, Namespaces: 2, Nodes: 2, Seed: 1})
	r, _, err := w.run("outdated", nil, kw("namespaces", starlark.NewList([]starlark.Value{starlark.String("payments")})))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Restarted) == 0 || slices.ContainsFunc(r.Restarted, func(x Restarted) bool { return x.Namespace != "payments" }) {
		t.Errorf("restarted %+v, want those of payments", r.Restarted)
	}
}

func TestWorkloads(t *testing.T) {
	w := newWorld(t, mesh.Spec{Istio: "1.30.3", Workloads: 6, Namespaces: 1, Nodes: 2, Seed: 1})
	var name string
	for _, wi := range w.stale() {
		if wi.ref.Kind == "Deployment" {
			name = wi.ref.Name
		}
	}
	list := starlark.NewList([]starlark.Value{starlark.String("deploy/" + name)})
	r, _, err := w.run("workloads", starlark.Tuple{list}, kw("namespace", starlark.String("shop")))
	if err != nil || len(r.Restarted) != 1 || r.Restarted[0].Workload != "deployment.apps/"+name {
		t.Errorf("%v, %+v", err, r)
	}
	r, _, err = w.run("workloads", nil, kw("namespace", starlark.String("shop")), kw("selector", starlark.String("app="+name)))
	if err != nil || len(r.Restarted) != 1 {
		t.Errorf("a second restart in the same run: %v, %+v", err, r)
	}
	w.soaks(r, "")
	crash := `{"spec":{"template":{"metadata":{"annotations":{"sim.rutter.dev/crash-loop":"true"}}}}}`
	w.patch("Deployment", "shop", name, crash)
	w.soaks(r, "container")
	w.patch("Deployment", "shop", name, strings.ReplaceAll(crash, `"true"`, "null"))
	w.sim.Advance(time.Minute)
	w.patch("Deployment", "shop", name, `{"spec":{"paused":true}}`)
	r, _, err = w.run("workloads", starlark.Tuple{list}, kw("namespace", starlark.String("shop")))
	if err != nil || len(r.Restarted) != 0 || len(r.Skipped) != 1 || !strings.Contains(r.Skipped[0].Reason, "paused") {
		t.Errorf("paused: %v, %+v", err, r)
	}
	for _, tc := range []struct {
		args   starlark.Tuple
		kwargs []starlark.Tuple
		want   string
	}{
		{starlark.Tuple{list}, nil, "namespace"},
		{nil, nil, "either a list of workloads or a selector"},
		{starlark.Tuple{starlark.NewList([]starlark.Value{starlark.String("web")})}, []starlark.Tuple{kw("namespace", starlark.String("shop"))}, "KIND/NAME"},
		{starlark.Tuple{list}, []starlark.Tuple{kw("limit", starlark.MakeInt(0))}, "limit: got 0"},
	} {
		if _, _, err := w.run("workloads", tc.args, tc.kwargs...); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: error %v, want %q", tc.kwargs, err, tc.want)
		}
	}
}

// soaks watches what was restarted; want is part of the error, "" for none.
func (w *world) soaks(r *Report, want string) {
	w.t.Helper()
	s := spec(w.t, "soak")
	a, err := s.Unpack(starlark.Tuple{r}, []starlark.Tuple{kw("duration", starlark.String("3m"))})
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = s.Do(w.call(), a)
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		w.t.Errorf("soak: error %v, want %q", err, want)
	}
}

func TestControlPlaneRestartsOnlyWhatRunsWithOldConfiguration(t *testing.T) {
	w := newWorld(t, mesh.Spec{Istio: "1.30.3", Workloads: 3, Namespaces: 1, Nodes: 2, Seed: 1})
	noGateways := kw("gateways", starlark.False)
	r, p, err := w.run("control_plane", nil, noGateways)
	if err != nil || len(r.Restarted) != 0 || len(r.Skipped) == 0 || len(p.Notes) != len(r.Skipped) {
		t.Fatalf("nothing changed: %v, %+v", err, r)
	}
	if why := r.Skipped[0].Reason; !strings.Contains(why, "newer than the configuration") {
		t.Errorf("reason %q", why)
	}
	ref := cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: mesh.SystemNamespace, Name: "istio"}
	before, err := w.client.Get(context.Background(), ref)
	if err != nil {
		t.Fatal(err)
	}
	writes := 0
	patch := func(body string) {
		t.Helper()
		writes++
		if _, err := w.client.Patch(context.Background(), ref, types.MergePatchType, []byte(body), cluster.WriteOptions{Manager: fmt.Sprintf("person-%d", writes)}); err != nil {
			t.Fatal(err)
		}
	}
	patch(`{"metadata":{"labels":{"touched":"yes"}}}`)
	if r, _, err = w.run("control_plane", nil, noGateways); err != nil || len(r.Restarted) != 0 {
		t.Errorf("a label changed: %v, %+v", err, r)
	}
	patch(`{"data":{"mesh":"accessLogFile: /dev/stdout\n"}}`)
	r, _, err = w.run("control_plane", nil, noGateways)
	if err != nil || len(r.Restarted) != 1 || r.Restarted[0].Workload != "deployment.apps/istiod" {
		t.Fatalf("its mesh config changed: %v, %+v", err, r)
	}
	if !strings.Contains(r.Restarted[0].Reason, "configmap/istio changed") {
		t.Errorf("reason %q", r.Restarted[0].Reason)
	}
	if r, _, err = w.run("control_plane", nil, noGateways); err != nil || len(r.Restarted) != 0 {
		t.Errorf("after the restart: %v, %+v", err, r)
	}
	// Written again as it was: with the copy from before at hand, no change.
	w.sim.Advance(time.Minute)
	live, err := w.client.Get(context.Background(), ref)
	if err != nil {
		t.Fatal(err)
	}
	patch(`{"data":{"mesh":"other: true\n"}}`)
	patch(fmt.Sprintf(`{"data":{"mesh":%q}}`, nested(live, "data", "mesh")))
	list := starlark.NewList([]starlark.Value{value.FromUnstructured(live)})
	if r, _, err = w.run("control_plane", nil, noGateways, kw("before", list)); err != nil || len(r.Restarted) != 0 {
		t.Errorf("same data as before: %v, %+v", err, r)
	}
	list = starlark.NewList([]starlark.Value{value.FromUnstructured(before)})
	if r, _, err = w.run("control_plane", nil, noGateways, kw("before", list)); err != nil || len(r.Restarted) != 1 {
		t.Errorf("other data than before: %v, %+v", err, r)
	}
}

func TestHandlesSurviveTheJournal(t *testing.T) {
	codec := &value.Codec{Decoders: Decoders()}
	for _, v := range []starlark.Value{
		&Waves{Canary: 2, Then: value.Quantity{N: 10, Percent: true}, Barrier: true},
		&Report{
			Restarted: []Restarted{{Workload: "deployment.apps/web", Namespace: "shop", Name: "web", Kind: "Deployment", Seconds: 7}},
			Skipped:   []Skipped{}, Waves: []Wave{{Name: "canary", Size: 1, Seconds: 7}}, Seconds: 7,
		},
	} {
		raw, err := codec.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		back, err := codec.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range v.(starlark.HasAttrs).AttrNames() {
			was, err := v.(starlark.HasAttrs).Attr(name)
			if err != nil {
				t.Fatal(err)
			}
			is, err := back.(starlark.HasAttrs).Attr(name)
			if err != nil || is.String() != was.String() {
				t.Errorf("%s.%s: %v, %v; was %v", v.Type(), name, is, err, was)
			}
		}
	}
}

func TestWavesRefuseNonsense(t *testing.T) {
	s := spec(t, "waves")
	for _, kwargs := range [][]starlark.Tuple{
		{kw("canary", starlark.MakeInt(-1))}, {kw("then", starlark.String("0%"))}, {kw("then", starlark.MakeInt(0))},
	} {
		a, err := s.Unpack(nil, kwargs)
		if err == nil {
			_, err = s.Do(w0(), a)
		}
		if err == nil {
			t.Errorf("%v: no error", kwargs)
		}
	}
}

func w0() *builtin.Call { return &builtin.Call{Ctx: context.Background()} }

func TestShapes(t *testing.T) {
	for _, tc := range []struct {
		kind, spec, status string
		want               shape
	}{
		{"Deployment", `{"replicas":4,"template":{}}`, `{}`, shape{pods: 4, batch: 2, down: 1, how: howRoll}},
		{"Deployment", `{"replicas":2,"template":{},"strategy":{"type":"Recreate"}}`, `{}`, shape{pods: 2, batch: 2, down: 2, how: howRoll}},
		{"StatefulSet", `{"replicas":3,"template":{},"updateStrategy":{"type":"OnDelete"}}`, `{}`, shape{pods: 3, batch: 1, down: 1, how: howEvict}},
		{"DaemonSet", `{"template":{}}`, `{"desiredNumberScheduled":5}`, shape{pods: 5, batch: 1, down: 1, how: howRoll}},
		{"Rollout", `{"replicas":4,"workloadRef":{}}`, `{}`, shape{pods: 4, batch: 2, down: 1, how: howRoll, no: "its pod template lives in another workload (spec.workloadRef)"}},
		{"StatefulSet", `{"replicas":3,"updateStrategy":{"rollingUpdate":{"partition":2}}}`, `{}`, shape{pods: 3, batch: 1, down: 1, how: howRoll, no: "its rollout stops at partition 2, which holds pods back on purpose"}},
		{"ReplicaSet", `{"replicas":3}`, `{}`, shape{how: howRoll, no: "a ReplicaSet cannot be restarted in place"}},
	} {
		o := &unstructured.Unstructured{}
		raw := fmt.Sprintf(`{"apiVersion":"apps/v1","kind":%q,"metadata":{"name":"x","namespace":"y"},"spec":%s,"status":%s}`, tc.kind, tc.spec, tc.status)
		if err := o.UnmarshalJSON([]byte(raw)); err != nil {
			t.Fatal(err)
		}
		if got, err := shapeOf(o); err != nil || got != tc.want {
			t.Errorf("%s %s: %+v, %v; want %+v", tc.kind, tc.spec, got, err, tc.want)
		}
	}
}
