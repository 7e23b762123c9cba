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

const word = "nobody may read this"

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
{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: default}, data: {a: "1"}}
---
{apiVersion: v1, kind: Secret, metadata: {name: token, namespace: default}, data: {word: bm9ib2R5IG1heSByZWFkIHRoaXM=}}
`), "objects")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Load(objects); err != nil {
		t.Fatal(err)
	}
	c.Advance(time.Minute)
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
step("delete", kube.delete, "cm/settings", namespace = "default")`

// Every case of a sound runbook holds, and each kind of case is tried.
func TestASoundRunbook(t *testing.T) {
	cases := 0
	if testing.Short() {
		cases = 200
	}
	tried := map[string]int{}
	rep, err := sweep.Run(context.Background(), subject(t, sound), sweep.Options{Seed: 1, Cases: cases}, func(r sweep.Result) {
		tried[r.Case.Fault+"."+r.Case.Then]++
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
	for _, k := range []string{"kill.resume", "power1.rollback", "power3.again", "timeout-after.resume", "reset.rollback", "truncated.resume", "deny.resume"} {
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
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rep, err := sweep.Run(context.Background(), subject(t, c.body), sweep.Options{Seed: 1, Cases: 300}, func(sweep.Result) {})
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

// A run that changes nothing has nothing to sweep; one that fails can't be.
func TestNothingToSweep(t *testing.T) {
	for body, want := range map[string]string{`log("hello")`: "nothing to sweep", `fail("no")`: "undisturbed run"} {
		_, err := sweep.Run(context.Background(), subject(t, body), sweep.Options{}, func(sweep.Result) {})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
}
