package sweep

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
)

// An object that is as it should be, but somebody else's, is found.
func TestFieldOwnersAreCompared(t *testing.T) {
	applied := func(manager string) *world {
		w := emptyWorld(t)
		o := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a", "namespace": "default"}, "data": map[string]any{"k": "v"},
		}}
		c, err := cluster.New(w.sim.Config(), contextName, w.sim.Clock(), cluster.ClientOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Apply(context.Background(), o, cluster.ApplyOptions{Manager: manager}); err != nil {
			t.Fatal(err)
		}
		return w
	}
	first := applied("kubectl")
	want := first.state()
	same, other := applied("kubectl"), applied("rutter")
	same.settledAs(want, "before")
	other.settledAs(want, "before")
	if len(same.broken) > 0 {
		t.Errorf("the same owner: %v", same.broken)
	}
	if got := strings.Join(other.broken, "\n"); !strings.Contains(got, "field owners of configmap/a in default differs") {
		t.Errorf("another owner: %q", got)
	}
}

// The address of a Service that the run made is the server's to choose, that of
// one that was there before is not.
func TestAddressesOfNewServices(t *testing.T) {
	c := emptyWorld(t).sim
	svc := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": "a", "namespace": "default"},
		"spec": map[string]any{"type": "NodePort", "ports": []any{map[string]any{"port": int64(80)}}},
	}}
	if err := c.Load([]*unstructured.Unstructured{svc}); err != nil {
		t.Fatal(err)
	}
	const name = "service/a in default"
	if got := stateOf(c, nil, nil)[name]; got == "" || strings.Contains(got, "clusterIP\"") || strings.Contains(got, "nodePort") {
		t.Errorf("made by the run: %s", got)
	}
	if got := stateOf(c, services(c), nil)[name]; !strings.Contains(got, "clusterIP\"") || !strings.Contains(got, "nodePort") {
		t.Errorf("there before: %s", got)
	}
}

func deployment(name string) *unstructured.Unstructured {
	labels := map[string]any{"app": name}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": name, "namespace": "default"},
		"spec": map[string]any{"selector": map[string]any{"matchLabels": labels}, "template": map[string]any{
			"metadata": map[string]any{"labels": labels}, "spec": map[string]any{"containers": []any{map[string]any{"name": "app", "image": "app"}}},
		}},
	}}
}

// More workloads that roll at once than in the undisturbed run are found, in a
// namespace and in all.
func TestTooManyAtOnce(t *testing.T) {
	w := emptyWorld(t)
	for _, name := range []string{"a", "b"} { // nothing makes them ready here
		if err := w.sim.Load([]*unstructured.Unstructured{deployment(name)}); err != nil {
			t.Fatal(err)
		}
		w.limits.sent(w, sent{method: "PATCH", path: "/apis/apps/v1/namespaces/default/deployments/" + name, code: 200}, nil)
	}
	ref := &reference{rolled: map[string]rolling{"": {n: 2}, "default": {n: 2}}}
	if ref.limited(w); len(w.broken) > 0 {
		t.Errorf("as many as in the undisturbed run: %v", w.broken)
	}
	ref.rolled[""] = rolling{n: 1}
	if ref.limited(w); len(w.broken) != 1 || !strings.Contains(w.broken[0], "2 workloads were rolling at once") {
		t.Errorf("broken: %v", w.broken)
	}
	f := w.fork()
	ref.rolled = map[string]rolling{"": {n: 2}, "default": {n: 1}}
	if ref.limited(f); !strings.Contains(f.broken[len(f.broken)-1], "in namespace default") {
		t.Errorf("broken: %v", f.broken)
	}
}

// A rollback may find what the run left rolling, and no more than that.
func TestTooManyAtOnceInARollback(t *testing.T) {
	w := emptyWorld(t)
	w.limits.undoing = true
	for _, name := range []string{"a", "b", "c"} {
		if err := w.sim.Load([]*unstructured.Unstructured{deployment(name)}); err != nil {
			t.Fatal(err)
		}
		w.limits.sent(w, sent{method: "PUT", path: "/apis/apps/v1/namespaces/default/deployments/" + name, code: 200}, nil)
	}
	one, two := map[string]rolling{"": {n: 1}, "default": {n: 1}}, map[string]rolling{"": {n: 2}, "default": {n: 2}}
	if (&reference{rolled: one, undone: two}).limited(w); len(w.broken) > 0 {
		t.Errorf("what both had: %v", w.broken)
	}
	if (&reference{rolled: one, undone: one}).limited(w); len(w.broken) != 2 || !strings.Contains(w.broken[0], "its rollback") {
		t.Errorf("broken: %v", w.broken)
	}
}

// A restart of a workload that is not in the wave under way is found.
func TestRestartsOutsideOfTheWave(t *testing.T) {
	w := emptyWorld(t)
	a := cluster.Ref{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "default", Name: "a"}
	w.intents["k"] = &effect.Effect{Ref: a}
	restart := sent{method: "PATCH", path: "/apis/apps/v1/namespaces/default/deployments/a", key: "k", code: 200}
	body := []byte(`{"spec":{"template":{"metadata":{"annotations":{"` + effect.AnnotationRestart + `":"1"}}}}}`)
	for _, c := range []struct {
		name  string
		wave  *event.WaveStarted
		body  []byte
		finds bool
	}{
		{"no wave: a rollback", nil, body, false},
		{"its wave", &event.WaveStarted{Name: "canary", Workloads: []string{a.String()}}, body, false},
		{"another's wave", &event.WaveStarted{Name: "canary", Workloads: []string{"deployment.apps/b in default"}}, body, true},
		{"not a restart", &event.WaveStarted{Name: "canary"}, []byte("{}"), false},
	} {
		w.broken, w.limits.wave = nil, c.wave
		w.limits.sent(w, restart, c.body)
		if (len(w.broken) > 0) != c.finds {
			t.Errorf("%s: %v", c.name, w.broken)
		}
	}
}

// A sweep plants a secret, and looks for it as it is and as it is written down.
func TestPlantedSecret(t *testing.T) {
	c, err := planted(emptyWorld(t).s.Before)
	if err != nil {
		t.Fatal(err)
	}
	ref := &reference{needle: secrets(c)}
	for _, told := range []string{plantedWord, "bm9ib2R5LW1heS1yZWFkLXdoYXQtYS1zd2VlcC1wbGFudGVk"} {
		w := newWorld(&Subject{Before: c})
		if ref.secrets(w); len(w.broken) > 0 {
			t.Fatalf("nothing was told: %v", w.broken)
		}
		w.output.WriteString("…" + told + "…")
		if ref.secrets(w); len(w.broken) != 1 {
			t.Errorf("%s: %v", told, w.broken)
		}
		d := newWorld(&Subject{Before: c})
		f, err := d.disk.Create("/a")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bytes.NewReader([]byte(told)).WriteTo(f); err != nil {
			t.Fatal(err)
		}
		if ref.secrets(d); len(d.broken) != 1 {
			t.Errorf("%s on the disk: %v", told, d.broken)
		}
	}
}
