// Package sweep sweeps small runbooks whole: one that is sound, and ones in
// which a sweep has to find what is wrong.
package sweep

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/builtins/core"
	"rutter.dev/rutter/builtins/core/lang"
	"rutter.dev/rutter/builtins/diff"
	"rutter.dev/rutter/builtins/kube"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/seal"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/tool/sweep"
	"rutter.dev/rutter/runtime/value"
	"rutter.dev/rutter/stdlib"
)

// word is the value of the Secret that a sweep plants.
const word = "nobody-may-read-what-a-sweep-planted"

// yes answers everything with yes.
type yes struct{}

func (yes) Approve(context.Context, string, string, []string) (string, bool, error) {
	return "tester", true, nil
}

func (yes) Leave(context.Context, []gate.Finding) (string, bool, error) { return "tester", true, nil }

type noArgs struct{}

// tell is a builtin that gives a secret away.
var tell = builtin.NewRead(builtin.ReadDef[noArgs]{
	Name: "tell", Doc: "Tells a secret.", Example: "tell()", Returns: "string",
	Do: func(*builtin.Call, *noArgs) (any, error) { return word, nil },
})

// subject is a runbook of the given body on a cluster with a few objects.
func subject(t *testing.T, body string) *sweep.Subject {
	t.Helper()
	set, err := builtin.NewSet(slices.Concat(interp.Builtins(), lang.Builtins(), core.Specs(), kube.Specs(), diff.Specs(), []*builtin.Spec{tell})...)
	if err != nil {
		t.Fatal(err)
	}
	if set, err = lang.AddTo(set); err != nil {
		t.Fatal(err)
	}
	decoders := map[string]value.Decoder{manifest.Kind: manifest.Decode}
	maps.Copy(decoders, kube.Decoders())
	maps.Copy(decoders, diff.Decoders())
	h := &host.Host{Builtins: set, Decoders: decoders, Stdlib: stdlib.FS, Version: "test"}
	c, err := sim.New(sim.Options{Seed: 1, Controllers: append(controllers.All(), sweep.Auditor())})
	if err != nil {
		t.Fatal(err)
	}
	objects, err := sim.ReadObjects(strings.NewReader(`
{apiVersion: v1, kind: Namespace, metadata: {name: istio-system}}
---
{apiVersion: v1, kind: Node, metadata: {name: node-1}, status: {allocatable: {cpu: "8", memory: 16Gi, pods: "100"}}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: default}, data: {a: "1"}}
---
{apiVersion: v1, kind: Secret, metadata: {name: token, namespace: default}, data: {word: bm9ib2R5IG1heSByZWFkIHRoaXM=}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, namespace: default}, spec: {selector: {matchLabels: {app: a}},
  template: {metadata: {labels: {app: a}}, spec: {containers: [{name: app, image: app}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: b, namespace: default}, spec: {selector: {matchLabels: {app: b}},
  template: {metadata: {labels: {app: b}}, spec: {containers: [{name: app, image: app}]}}}}
`), "objects")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Load(objects[:2]); err != nil {
		t.Fatal(err)
	}
	client, err := cluster.New(c.Config(), "sim", c.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects[2:] { // by somebody, so that their fields have an owner
		if _, err := client.Apply(context.Background(), o, cluster.ApplyOptions{Manager: "kubectl"}); err != nil {
			t.Fatal(err)
		}
	}
	c.Advance(time.Minute)
	body = strings.ReplaceAll(body, "ROLL", `{"spec": {"replicas": 2}}`)
	source := "runbook(name = \"test\", version = \"1.0.0\")\n\ndef run(p):\n    " + strings.ReplaceAll(strings.TrimSpace(body), "\n", "\n    ") + "\n"
	sealer, err := seal.Ephemeral()
	if err != nil {
		t.Fatal(err)
	}
	return &sweep.Subject{
		Name: t.Name(), Before: c, Host: h, Sealer: sealer, Approver: yes{},
		Load: func(ctx context.Context) (*host.Runbook, error) {
			return h.Load(ctx, loader.FromBundle(&loader.Bundle{Entry: "//t.star", Files: map[string]string{"//t.star": source}}, nil))
		},
	}
}

const sound = `step("patch", kube.patch, "cm/settings", {"data": {"a": "2"}}, namespace = "default")
step("word", kube.patch, "secret/token", {"data": {"word": "b3RoZXI="}}, namespace = "default")
step("roll", kube.patch, "deploy/a", ROLL, namespace = "default")
step("rolled", kube.wait, "deploy/a", namespace = "default", timeout = "10m")
step("delete", kube.delete, "cm/settings", namespace = "default")`

// A run that asks what to do when it fails stays as it is: its case says whether it
// is resumed or rolled back.
func TestARunbookThatAsksWhenItFails(t *testing.T) {
	body := strings.ReplaceAll(sound, `namespace = "default"`, `namespace = "default", on_failure = "ask"`)
	rep, err := sweep.Run(context.Background(), subject(t, body), sweep.Options{Seed: 1, Cases: 60}, func(sweep.Result) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rep.Failed {
		t.Errorf("%s (%s): %s", r.Case, r.What, strings.Join(r.Broken, "; "))
	}
	if rep.Stopped == 0 {
		t.Errorf("%+v", rep)
	}
}

// An even sample of the cases of a sound runbook holds, and each kind of case is
// tried.
func TestASoundRunbook(t *testing.T) {
	cases := 500
	if testing.Short() {
		cases = 200
	}
	tried := map[string]int{}
	rep, err := sweep.Run(context.Background(), subject(t, sound), sweep.Options{Seed: 1, Cases: cases}, func(r sweep.Result) {
		tried[r.Case.Fault]++
		if strings.HasSuffix(r.Case.Fault, "-after") {
			tried["after"]++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rep.Failed {
		t.Errorf("%s (%s): %s", r.Case, r.What, strings.Join(r.Broken, "; "))
	}
	if rep.Stopped == 0 || rep.Mutations < 3 {
		t.Errorf("%+v", rep)
	}
	watches, err := sweep.Run(context.Background(), subject(t, sound), sweep.Options{Seed: 1, Only: []string{"w1.cut.resume", "w1.expired.resume", "w1.stall.resume"}}, func(r sweep.Result) {
		tried[r.Case.Fault]++
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range watches.Failed {
		t.Errorf("%s (%s): %s", r.Case, r.What, strings.Join(r.Broken, "; "))
	}
	for _, k := range []string{"kill", "power1", "power3", "after", "stall", "reset", "truncated", "deny", "cut", "expired"} {
		if tried[k] == 0 && !testing.Short() {
			t.Errorf("no case %s", k)
		}
	}
	t.Logf("%d cases, %d stopped, %s", rep.Tried, rep.Stopped, rep.Took.Round(time.Millisecond))
}

// What is wrong with a runbook or a builtin is found.
func TestWhatASweepFinds(t *testing.T) {
	for name, c := range map[string]struct{ body, want string }{
		"a secret that is told": {`step("tell", tell)` + "\n" + sound, "secret"},
		"a failure that changes the way": {
			`first = attempt(step, "first", kube.patch, "cm/settings", {"data": {"a": "2"}}, namespace = "default")` + "\n" +
				`if not first.ok:` + "\n" + `    step("second", kube.patch, "cm/settings", {"data": {"b": "3"}}, namespace = "default")`,
			"should not be there|differs|too often",
		},
		"a failure after which two are rolled at once": {
			`first = attempt(step, "first", kube.patch, "deploy/a", ROLL, namespace = "default")` + "\n" +
				`if not first.ok:` + "\n" + `    step("once more", kube.patch, "deploy/a", ROLL, namespace = "default")` + "\n" +
				`else:` + "\n" + `    step("wait", kube.wait, "deploy/a", namespace = "default", timeout = "10m")` + "\n" +
				`step("second", kube.patch, "deploy/b", ROLL, namespace = "default")`, "rolling at once",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rep, err := sweep.Run(context.Background(), subject(t, c.body), sweep.Options{Seed: 1, Cases: 120}, func(sweep.Result) {})
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, r := range rep.Failed {
				for _, w := range strings.Split(c.want, "|") {
					found = found || strings.Contains(strings.Join(r.Broken, "\n"), w)
				}
			}
			if !found {
				t.Errorf("%d cases, %d failed, none says %q", rep.Tried, len(rep.Failed), c.want)
			}
		})
	}
}

// A sample that finds a failure tells the first point at which that one comes.
func TestTheFirstPointThatFails(t *testing.T) {
	body := `first = attempt(step, "first", kube.patch, "cm/settings", {"data": {"a": "2"}}, namespace = "default")` + "\n" +
		`if not first.ok:` + "\n" + `    step("second", kube.patch, "cm/settings", {"data": {"b": "3"}}, namespace = "default")`
	s := subject(t, body)
	failed := func(o sweep.Options) []sweep.Result {
		rep, err := sweep.Run(context.Background(), s, o, func(sweep.Result) {})
		if err != nil {
			t.Fatal(err)
		}
		return rep.Failed
	}
	all := failed(sweep.Options{Seed: 1})
	sampled := 0
	for seed := uint64(1); sampled < 3 && seed < 20; seed++ {
		got := failed(sweep.Options{Seed: seed, Cases: 60})
		if len(got) == 0 {
			continue
		}
		sampled++
		first := slices.IndexFunc(all, func(r sweep.Result) bool { return r.Case.Fault == got[0].Case.Fault && r.Case.Then == got[0].Case.Then })
		if all[first].Case != got[0].Case {
			t.Errorf("seed %d: the first is said to be %s, and is %s", seed, got[0].Case, all[first].Case)
		}
	}
	if sampled == 0 {
		t.Error("no sample finds the failure")
	}
}

// A run that changes nothing has nothing to sweep; one that fails can't be.
func TestNothingToSweep(t *testing.T) {
	for body, want := range map[string]string{`log("hello")`: "nothing to sweep", `fail("no")`: "undisturbed run"} {
		_, err := sweep.Run(context.Background(), subject(t, body), sweep.Options{}, func(sweep.Result) {})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
}
