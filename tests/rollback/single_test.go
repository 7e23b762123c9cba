package rollback

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/tests/workbench"
)

// header declares a runbook with a way to make objects that the gates let pass.
const header = `runbook(name = "test", version = "1.0.0")

def make(name, obj):
    d = step("show " + name, diff.live, obj)
    approve("make " + name, covers = [d])
    step(name, kube.apply, obj)

`

// by runs a runbook of the given body, in def run(p), on a world of its own.
func by(t testing.TB, body string) (*world, error) {
	t.Helper()
	w := laboratory(t).world(t)
	w.source = header + "def run(p):\n    " + strings.ReplaceAll(strings.TrimSpace(body), "\n", "\n    ") + "\n"
	return w, w.run(context.Background())
}

// other changes an object as somebody else does.
func (w *world) other(kind, namespace, name, patch string) {
	w.t.Helper()
	c, err := cluster.New(w.sim.Config(), "sim", w.sim.Clock(), cluster.ClientOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	ref := cluster.Ref{Version: "v1", Kind: kind, Namespace: namespace, Name: name}
	if kind == "Deployment" {
		ref.Group = "apps"
	}
	if patch == "" {
		err = c.Delete(context.Background(), ref, cluster.WriteOptions{})
	} else {
		_, err = c.Patch(context.Background(), ref, types.MergePatchType, []byte(patch), cluster.WriteOptions{Manager: "kubectl-edit"})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

const (
	patchSettings  = `step("patch", kube.patch, "cm/settings", {"data": {"a": "2", "c": "3"}, "metadata": {"labels": {"team": "b"}}}, namespace = "default")`
	deleteSettings = `step("delete", kube.delete, "cm/settings", namespace = "default")`
	deleteService  = `step("delete", kube.delete, "svc/front", namespace = "default")`
	patchSecret    = `step("patch", kube.patch, "secret/token", {"data": {"word": "b3RoZXI="}}, namespace = "default")`
	deleteSecret   = `step("delete", kube.delete, "secret/token", namespace = "default")`
	patchCA        = `step("back up", backup.create, scope = backup.mesh())
step("CA", kube.patch, "secret/cacerts", {"data": {"ca-key.pem": "bmV3"}}, namespace = "istio-system")`
	createOne = `make("create", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new", "namespace": "default"}, "data": {"k": "v"}})`
)

// What the run did to single objects comes back as it was, field owners too.
func TestSingleObjects(t *testing.T) {
	for name, body := range map[string]string{
		"changed":              patchSettings,
		"changed twice":        patchSettings + "\n" + `step("again", kube.patch, "cm/settings", {"data": {"a": "9"}}, namespace = "default")`,
		"deleted":              deleteSettings,
		"changed, deleted":     patchSettings + "\n" + deleteSettings,
		"a Service deleted":    deleteService,
		"a Secret changed":     patchSecret,
		"a Secret deleted":     deleteSecret,
		"made":                 createOne,
		"made, changed":        createOne + "\n" + `step("again", kube.patch, "cm/new", {"data": {"k": "w"}}, namespace = "default")`,
		"made, deleted":        createOne + "\n" + `step("delete", kube.delete, "cm/new", namespace = "default")`,
		"in a step in a step":  `step("outer", lambda: step("inner", kube.patch, "cm/settings", {"data": {"a": "2"}}, namespace = "default"))`,
		"in a step that fails": patchSettings + "\n" + `attempt(step, "fails", fail, "no").ok`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, err := by(t, body)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.rollback(engine.RollbackOptions{}); err != nil {
				t.Fatal(err)
			}
			workbench.Same(t, w.state(), workbench.State(t, w.lab.before))
			if !strings.HasPrefix(w.compared(), "equal to before: ") {
				t.Errorf("it says %q", w.compared())
			}
			for _, e := range w.events {
				if s := fmt.Sprintf("%+v", e.Body); strings.Contains(s, secret) || strings.Contains(s, "secret-word-1234") {
					t.Errorf("an event tells a secret: %.300s", s)
				}
			}
		})
	}
}

// What others changed since stays, unless it is the same field.
func TestChangesOfOthers(t *testing.T) {
	t.Run("another field", func(t *testing.T) {
		t.Parallel()
		w, err := by(t, patchSettings)
		if err != nil {
			t.Fatal(err)
		}
		w.other("ConfigMap", "default", "settings", `{"data":{"b":"foreign"}}`)
		if err := w.rollback(engine.RollbackOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := w.settings(); got != "a=1 b=foreign" {
			t.Errorf("got %s", got)
		}
		if got := w.compared(); !strings.Contains(got, "1 excepted") || !strings.Contains(got, "what the run did not: data.b") {
			t.Errorf("it says %q", got)
		}
	})
	for _, c := range []struct {
		option string
		leave  bool
		want   string
		asked  int
	}{
		{"", true, "a=1 b=1", 1}, {"", false, "a=foreign b=1", 1}, {"keep", true, "a=foreign b=1", 0}, {"overwrite", false, "a=1 b=1", 0},
	} {
		t.Run(fmt.Sprintf("the same field %q %v", c.option, c.leave), func(t *testing.T) {
			t.Parallel()
			w, err := by(t, patchSettings)
			if err != nil {
				t.Fatal(err)
			}
			w.other("ConfigMap", "default", "settings", `{"data":{"a":"foreign"}}`)
			w.leave = c.leave
			if err := w.rollback(engine.RollbackOptions{Foreign: c.option}); err != nil {
				t.Fatal(err)
			}
			if got := w.settings(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if f := w.plan().Foreign; len(f) != 1 || f[0].Field != "data.a" || f[0].Now != "foreign" || f[0].Made != "2" || f[0].Was != "1" {
				t.Errorf("the plan shows %+v", f)
			}
			if len(w.asked) != c.asked {
				t.Errorf("asked %d times, want %d", len(w.asked), c.asked)
			}
		})
	}
	t.Run("gone", func(t *testing.T) {
		t.Parallel()
		w, err := by(t, patchSettings)
		if err != nil {
			t.Fatal(err)
		}
		w.other("ConfigMap", "default", "settings", "")
		if err := w.rollback(engine.RollbackOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := w.compared(); !strings.Contains(got, "somebody else has deleted it since") {
			t.Errorf("it says %q", got)
		}
	})
}

// settings are the data of the ConfigMap of that name.
func (w *world) settings() string {
	w.t.Helper()
	for _, o := range w.sim.Objects() {
		if o.GetKind() == "ConfigMap" && o.GetName() == "settings" {
			var out []string
			data, ok := o.Object["data"].(map[string]any)
			for _, k := range []string{"a", "b", "c"} {
				if v, there := data[k]; ok && there {
					out = append(out, fmt.Sprintf("%s=%v", k, v))
				}
			}
			return strings.Join(out, " ")
		}
	}
	return "absent"
}

// What can't be undone is said before anything is done, and stays.
func TestWhatStays(t *testing.T) {
	w, err := by(t, patchCA+"\n"+patchSettings)
	if err == nil {
		err = w.rollback(engine.RollbackOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	if l := w.plan().Left; len(l) != 1 || !strings.Contains(l[0].Why, "CA is never changed") {
		t.Errorf("left: %+v", l)
	}
	if got := w.compared(); !strings.Contains(got, "1 excepted") {
		t.Errorf("it says %q", got)
	}
	workbench.Same(t, w.state(), workbench.State(t, w.lab.before), "secret/cacerts in istio-system")
}

const crd = `{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "ships.example.io"},
    "spec": {"group": "example.io", "scope": "Namespaced", "names": {"plural": "ships", "singular": "ship", "kind": "Ship", "listKind": "ShipList"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}]}}`

func TestACRDThatTheRunMade(t *testing.T) {
	for name, more := range map[string]string{
		"":                  "",
		"with an object":    "\n" + `make("ship", {"apiVersion": "example.io/v1", "kind": "Ship", "metadata": {"name": "a", "namespace": "default"}})`,
		"in use by another": "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, err := by(t, `make("crd", `+crd+`)`+more)
			if err != nil {
				t.Fatal(err)
			}
			var except []string
			if name == "in use by another" {
				c, err := cluster.New(w.sim.Config(), "sim", w.sim.Clock(), cluster.ClientOptions{})
				if err != nil {
					t.Fatal(err)
				}
				ship := &cluster.Object{Object: map[string]any{"apiVersion": "example.io/v1", "kind": "Ship", "metadata": map[string]any{"name": "b", "namespace": "default"}}}
				if _, err := c.Create(context.Background(), ship, cluster.WriteOptions{}); err != nil {
					t.Fatal(err)
				}
				except = []string{"ships.example.io", "ship.example.io/b in default"}
			}
			if err := w.rollback(engine.RollbackOptions{}); err != nil {
				t.Fatal(err)
			}
			workbench.Same(t, w.state(), workbench.State(t, w.lab.before), except...)
			if len(except) > 0 && !strings.Contains(w.compared(), "1 objects of its kind exist") {
				t.Errorf("it says %q", w.compared())
			}
		})
	}
}

// A rollback that goes only so far, and one that goes on from there.
func TestBackToAStep(t *testing.T) {
	w, err := by(t, patchSettings+"\n"+`step("later", kube.patch, "cm/settings", {"data": {"a": "9"}}, namespace = "default")`+"\n"+createOne)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.rollback(engine.RollbackOptions{Until: "pathc"}); diag.ExitCode(err) != diag.Usage || !strings.Contains(err.Error(), `did you mean "patch"`) {
		t.Errorf("of an unknown step: %v", err)
	}
	if err := w.rollback(engine.RollbackOptions{Until: "patch"}); err != nil {
		t.Fatal(err)
	}
	if got := w.settings(); got != "a=2 b=1 c=3" {
		t.Errorf("after it went back to patch: %s", got)
	}
	if err := w.rollback(engine.RollbackOptions{}); err != nil {
		t.Fatal(err)
	}
	workbench.Same(t, w.state(), workbench.State(t, w.lab.before))
}

// A step's undo takes the place of its before-images, last in, first out, and
// may write only what its step changed.
func TestUndoOfSteps(t *testing.T) {
	w := laboratory(t).world(t)
	w.source = header + `
def first():
    log("undoing first")
    kube.patch("cm/settings", {"data": {"a": "by undo", "c": None}}, namespace = "default")
    kube.patch("svc/front", {"metadata": {"labels": {"by": "undo"}}}, namespace = "default")

def second():
    log("undoing second")

def run(p):
    step("first", kube.patch, "cm/settings", {"data": {"a": "2", "c": "3"}}, namespace = "default", undo = first)
    step("second", kube.patch, "cm/settings", {"data": {"b": "2"}}, namespace = "default", undo = second)
    step("third", kube.patch, "svc/front", {"metadata": {"labels": {"x": "y"}}}, namespace = "default", undo = lambda: log("never"))
`
	if err := w.run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := w.rollback(engine.RollbackOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := w.compared(); !strings.Contains(got, "undo = first of step first left it so") {
		t.Errorf("of an undo that does not bring back what was it says %q", got)
	}
	if got := w.settings(); got != "a=by undo b=2" {
		t.Errorf("got %s", got)
	}
	var said []string
	for _, e := range w.events {
		if b, ok := e.Body.(*event.Log); ok {
			said = append(said, b.Message)
		}
	}
	if got := strings.Join(said, ", "); got != "undoing second, undoing first" {
		t.Errorf("said %q", got)
	}
	for _, o := range w.sim.Objects() {
		if o.GetName() == "front" && o.GetKind() == "Service" && len(o.GetLabels()) > 0 {
			t.Errorf("labels of the Service: %v", o.GetLabels())
		}
	}
	found := false
	for _, p := range w.plan().Parts {
		found = found || strings.Contains(strings.Join(p.Notes, "\n"), `the undo of step "third" can't be called`)
	}
	if !found {
		t.Errorf("the plan does not say that the undo of third can't be called: %+v", w.plan().Parts)
	}
}

// A rollback is the way out: gates of upgrades don't hold it, the policy and
// the API server do.
func TestGatesOfARollback(t *testing.T) {
	w, err := by(t, patchSettings)
	if err != nil {
		t.Fatal(err)
	}
	w.sim.Inject(sim.Fault{Verb: "update", Resource: "configmaps", Kind: sim.FaultDeny, Times: -1})
	before := w.settings()
	if err := w.rollback(engine.RollbackOptions{}); diag.ExitCode(err) != diag.Blocked || !strings.Contains(err.Error(), "RUT006") {
		t.Errorf("got %v", err)
	}
	if w.settings() != before {
		t.Error("something was written")
	}
	w.sim.ClearFaults()
	w.yes = false
	if err := w.rollback(engine.RollbackOptions{}); err != nil {
		t.Errorf("it was approved before, and is asked again: %v", err)
	}
	workbench.Same(t, w.state(), workbench.State(t, w.lab.before))
}

func TestARollbackThatIsNotApproved(t *testing.T) {
	w, err := by(t, patchSettings)
	if err != nil {
		t.Fatal(err)
	}
	w.yes = false
	err = w.rollback(engine.RollbackOptions{})
	if diag.ExitCode(err) != diag.Blocked || !errors.Is(err, engine.ErrNotApproved) {
		t.Errorf("got %v", err)
	}
	if w.settings() != "a=2 b=1 c=3" {
		t.Error("something was written")
	}
}

func TestFailurePolicy(t *testing.T) {
	fails := func(runbook, outer, inner string) string {
		return "runbook(name = \"test\", version = \"1.0.0\"" + runbook + ")\n" + `
def inner():
    kube.patch("cm/settings", {"data": {"a": "2"}}, namespace = "default")
    step("inner", fail, "no"` + inner + `)

def run(p):
    step("outer", inner` + outer + `)
`
	}
	for _, c := range []struct {
		runbook, outer, inner string
		leave, back           bool
	}{
		{"", "", "", true, false},
		{`, on_failure = "rollback"`, "", "", false, true},
		{`, on_failure = "rollback"`, `, on_failure = "stop"`, "", false, false},
		{"", `, on_failure = "rollback"`, "", false, true},
		{"", `, on_failure = "rollback"`, `, on_failure = "stop"`, false, false},
		{`, on_failure = "ask"`, "", "", true, true},
		{`, on_failure = "ask"`, "", "", false, false},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			t.Parallel()
			w := laboratory(t).world(t)
			w.source, w.leave, w.yes = fails(c.runbook, c.outer, c.inner), c.leave, false
			err := w.run(context.Background())
			if diag.ExitCode(err) != diag.Failed {
				t.Errorf("exit %d: %v", diag.ExitCode(err), err)
			}
			want := "a=2 b=1"
			if c.back {
				want = "a=1 b=1"
			}
			if got := w.settings(); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			var d *diag.Error
			if c.back && (!errors.As(err, &d) || !strings.Contains(d.Changed, "was rolled back")) {
				t.Errorf("it does not say that it was rolled back: %+v", d)
			}
		})
	}
}

func TestEvidence(t *testing.T) {
	w := laboratory(t).world(t)
	w.said = "\nconnecting as app with hunter22, token=abcdefgh\n" + strings.Repeat("and so on\n", 10_000) + "cannot connect\n"
	secret := &cluster.Object{Object: map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "database", "namespace": "shop"},
		"data": map[string]any{"password": "aHVudGVyMjI="},
	}}
	virtual := &cluster.Object{Object: map[string]any{
		"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": map[string]any{"name": "astray", "namespace": "shop"},
		"spec": map[string]any{"hosts": []any{"astray"}, "gateways": []any{"nowhere"}, "http": []any{
			map[string]any{"route": []any{map[string]any{"destination": map[string]any{"host": "astray"}}}},
		}},
	}}
	if err := w.sim.Load([]*cluster.Object{secret, virtual}); err != nil {
		t.Fatal(err)
	}
	w.source = header + `
def run(p):
    step("break", broken)

def broken():
    kube.patch("deploy/checkout", {"spec": {"template": {
        "metadata": {"annotations": {"sim.rutter.dev/crash-loop": "true"}},
        "spec": {"volumes": [{"name": "database", "secret": {"secretName": "database"}}]},
    }}}, namespace = "shop", type = "strategic")
    kube.wait("deploy/checkout", namespace = "shop", timeout = "2m")
`
	before := workbench.State(t, w.sim)
	err := w.run(context.Background())
	if diag.ExitCode(err) != diag.Failed {
		t.Fatalf("the run did not fail as meant: %v", err)
	}
	text := w.files["failure-1.txt"]
	for _, told := range []string{"hunter22", "aHVudGVyMjI=", "abcdefgh"} {
		if strings.Contains(text, told) {
			t.Errorf("the evidence tells the secret %s", told)
		}
	}
	if len(text) > 300<<10 {
		t.Errorf("the evidence has %d bytes", len(text))
	}
	for _, want := range []string{"deployment.apps/checkout in shop is not ready: ", "CrashLoopBackOff", "pod/checkout-", "run test, step \"break\"", "cannot connect", "VirtualService shop/astray", "IST0101"} {
		if !strings.Contains(text, want) {
			t.Errorf("the evidence lacks %q; it says:\n%s", want, text)
		}
	}
	var d *diag.Error
	if !errors.As(err, &d) || !strings.Contains(d.Changed, "failure-1.txt") {
		t.Errorf("the failure does not name the evidence: %+v", d)
	}
	if err := w.rollback(engine.RollbackOptions{}); err != nil {
		t.Fatal(err)
	}
	workbench.Same(t, w.state(), before)
}

// What others undid of a run is shown before its resume does anything.
func TestDrift(t *testing.T) {
	w := laboratory(t).world(t)
	w.source, w.yes = header+"def run(p):\n    "+patchSettings+"\n    approve(\"go on\")\n", false
	if err := w.run(context.Background()); diag.ExitCode(err) != diag.Blocked {
		t.Fatal(err)
	}
	w.other("ConfigMap", "default", "settings", `{"data":{"a":"foreign","b":"not the run's"}}`)
	w.yes, w.events = true, nil
	if err := w.resume(); err != nil {
		t.Fatal(err)
	}
	for _, e := range w.events {
		switch b := e.Body.(type) {
		case *event.StepStarted, *event.StepEnded:
			t.Fatal("nothing of the drift before the first step")
		case *event.Drift:
			if len(b.Changed) != 1 || b.Changed[0].Why != "data.a is foreign, this run made it 2" {
				t.Errorf("drift: %+v", b.Changed)
			}
			return
		}
	}
	t.Error("no drift was shown")
}

// Leave that was given to a gate is not asked for again by a resume.
func TestLeaveIsRemembered(t *testing.T) {
	w := laboratory(t).world(t)
	w.source = header + `
def run(p):
    step("back up", backup.create, scope = backup.mesh())
    step("patch", kube.patch, "cm/istio", {"data": {"x": "y"}}, namespace = "istio-system")
`
	asked := 0
	w.on = func(e event.Event) {
		if _, ok := e.Body.(*event.EffectIntent); ok {
			w.disk.Fault(func(int, string) error { return errKilled })
		}
	}
	err := w.run(context.Background())
	asked = len(w.asked)
	if err == nil || asked == 0 {
		t.Fatalf("asked %d times, %v", asked, err)
	}
	w.reborn()
	w.on = nil
	if err := w.resume(); err != nil {
		t.Fatal(err)
	}
	if len(w.asked) != asked {
		t.Errorf("asked again: %+v", w.asked[asked:])
	}
}
