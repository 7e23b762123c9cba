package gates

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/lock"
	"rutter.dev/rutter/runtime/metrics"
	"rutter.dev/rutter/runtime/plan"
	"rutter.dev/rutter/runtime/policy"
)

// scene is one change, and what in the cluster or in the organization makes a
// gate block it.
type scene struct {
	code     gate.Code
	upgraded bool   // the control plane is at the target's version already
	script   string // the change
	setup    func(w *world)
	wrong    func(w *world) // what the gate blocks for; nil: otherwise is what it does
	wrongly  string         // the script that is blocked, where it is another
}

const (
	restarts = `
def run(p):
    step("data plane", restart.outdated, waves = restart.waves(canary = 1))
`
	aside = `
def run(p):
    step("note", kube.label, "ns/default", set = {"team": "pilots"})
`
	// tuned changes the mesh's configuration as a runbook should.
	tuned = `
MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio-extra", "namespace": "istio-system"}, "data": {"a": "c"}}

def run(p):
    step("back up", backup.create)
    step("precheck", precheck)
    review = step("show", diff.live, MAP, adopt = ["kubectl"])
    approve("go on", covers = [review])
    step("apply", kube.apply, MAP, adopt = ["kubectl"])
`
	extra = `
apiVersion: v1
kind: ConfigMap
metadata: {name: istio-extra, namespace: istio-system}
data: {a: b}
`
	// brought gives istiod the image of the target.
	brought = `
def run(p):
    step("back up", backup.create)
    step("precheck", precheck)
    step("upgrade", kube.patch, "deploy/istiod", {"spec": {"template": {"spec": {"containers": [
        {"name": "discovery", "image": "docker.io/istio/pilot:1.31.0"},
    ]}}}}, type = "strategic", namespace = "istio-system")
`
	// ca makes the Secret of the mesh's CA.
	ca = `
def run(p):
    step("back up", backup.create)
    made = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cacerts", "namespace": "istio-system"}, "data": {"root-cert.pem": "eA=="}}
    review = step("show", diff.live, made)
    approve("go on", covers = [review])
    step("make", kube.apply, made)
`
	widgets = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.shop.istio.io}
spec:
  group: shop.istio.io
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`
	widget = `
apiVersion: shop.istio.io/v1
kind: Widget
metadata: {name: w, namespace: default}
`
	// guard is a webhook of somebody else, and what answers it.
	guard = `
apiVersion: v1
kind: Service
metadata: {name: guard, namespace: default}
spec: {selector: {app: guard}, ports: [{port: 443}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: guard, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {app: guard}}
  template: {metadata: {labels: {app: guard}}, spec: {containers: [{name: c, image: guard}]}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: guard}
webhooks:
- name: guard.example.org
  failurePolicy: %s
  sideEffects: None
  admissionReviewVersions: [v1]
  clientConfig: {service: {name: guard, namespace: default}}
  rules: [{apiGroups: [guard.example.org], apiVersions: ["*"], operations: [CREATE], resources: ["*"]}]
`
	// spare is a revision tag that nobody uses.
	spare = `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: istio-revision-tag-spare, labels: {app: sidecar-injector, istio.io/tag: spare, istio.io/rev: default}}
webhooks:
- name: rev.namespace.sidecar-injector.istio.io
  failurePolicy: Fail
  sideEffects: None
  admissionReviewVersions: [v1]
  clientConfig: {service: {name: istiod, namespace: istio-system, path: /inject}}
  namespaceSelector: {matchLabels: {istio.io/rev: spare}}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
`
)

func scenes() []scene {
	return []scene{
		{code: gate.ClusterPinned, script: aside, wrong: func(w *world) { w.policy.ProtectedContexts = []string{"sim"} }},
		{code: gate.LockHeld, script: aside, setup: func(w *world) { w.locked = true }, wrong: heldByAnother},
		{code: gate.VersionPath, script: brought, setup: func(w *world) { w.leave = true }, wrong: func(w *world) { w.from = "1.28.0" }},
		{code: gate.PrecheckPassed, script: brought, setup: func(w *world) { w.leave = true }, wrongly: strings.Replace(brought, `step("precheck", precheck)`, "pass", 1)},
		{
			code: gate.BackupCovers, script: tuned, setup: func(w *world) { w.apply(extra) },
			wrongly: strings.Replace(tuned, `step("back up", backup.create)`, "pass", 1),
		},
		{
			code: gate.DryRun, script: tuned, setup: func(w *world) { w.apply(extra) },
			wrongly: strings.ReplaceAll(tuned, `, adopt = ["kubectl"]`, ""),
		},
		{
			code: gate.ReviewedDigest, script: tuned, setup: func(w *world) { w.apply(extra) },
			wrongly: strings.Replace(tuned, `step("apply", kube.apply, MAP`, `step("apply", kube.apply, dict(MAP, data = {"a": "d"})`, 1),
		},
		{
			code: gate.CRDSafe, setup: func(w *world) { w.apply(widgets); w.leave = true },
			script: `
def run(p):
    step("back up", backup.create)
    step("precheck", precheck)
    step("delete", kube.delete, "crd/widgets.shop.istio.io")
`,
			wrong: func(w *world) { w.apply(widget) },
		},
		{
			code: gate.WebhookSafe, setup: func(w *world) { w.apply(fmt.Sprintf(guard, "Ignore")) },
			script: `
def run(p):
    step("delete", kube.delete, "deploy/guard", namespace = "default")
`,
			wrong: func(w *world) { w.apply(fmt.Sprintf(guard, "Fail")) },
		},
		{
			code: gate.InUse, setup: func(w *world) { w.apply(spare); w.leave = true }, upgraded: true,
			script: `
def run(p):
    step("back up", backup.create)
    step("precheck", precheck)
    step("delete", kube.delete, "mutatingwebhookconfigurations/istio-revision-tag-spare")
`,
			wrong: func(w *world) {
				w.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: pioneers, labels: {istio.io/rev: spare}}")
			},
		},
		{code: gate.ControlPlaneReady, script: restarts, upgraded: true, wrong: func(w *world) {
			w.every("Deployment", func(ref cluster.Ref) {
				if ref.Name == "istiod" {
					w.patch(ref, `{"metadata": {"annotations": {"x": "y"}}, "spec": {"replicas": 0}}`)
				}
			})
		}},
		{code: gate.Disruption, script: restarts, upgraded: true, wrong: func(w *world) { w.policy.MaxWave = 2 }},
		{code: gate.HealthKept, script: restarts, upgraded: true, setup: func(w *world) { prometheus(w, "0.01") }, wrong: func(w *world) { prometheus(w, "0.5") }},
		{code: gate.Scope, script: aside, wrong: func(w *world) { w.policy.Deny = []gate.Rules{{Kinds: []string{"Namespace"}}} }},
		{code: gate.RootKept, setup: func(w *world) { w.apply(extra) }, script: tuned, wrongly: ca},
		{code: gate.Capacity, script: restarts, upgraded: true, wrong: func(w *world) {
			w.every("Node", func(ref cluster.Ref) { w.patch(ref, `{"spec": {"unschedulable": true}}`) })
		}},
		{
			code: gate.PlanConformance, script: aside, setup: func(w *world) { w.planned(aside) },
			wrongly: strings.Replace(aside, "pilots", "pirates", 1),
		},
		{
			code: gate.ChangeWindow, script: aside, setup: func(w *world) { w.frozen(-48*time.Hour, -24*time.Hour) },
			wrong: func(w *world) { w.frozen(-time.Hour, time.Hour) },
		},
		{
			code: gate.RemovedFields, script: brought, setup: func(w *world) { w.leave = true },
			wrongly: strings.Replace(brought, "docker.io/istio/", "gcr.io/istio-release/", 1),
		},
		{
			code: gate.OrganizationRules, script: aside, setup: func(w *world) { w.ruled("pirates") },
			wrong: func(w *world) { w.ruled("pilots") },
		},
	}
}

// planned puts a plan in force: what a script does on a cluster like this one.
func (w *world) planned(script string) {
	w.t.Helper()
	rehearsed := newWorld(w.t, false)
	if err := rehearsed.run(script); err != nil {
		w.t.Fatal(err)
	}
	effects, err := plan.Made(rehearsed.journal, nil)
	if err != nil || len(effects) == 0 {
		w.t.Fatalf("%d effects are planned: %v", len(effects), err)
	}
	w.plan = plan.NewInForce(&plan.Plan{Effects: effects})
}

// frozen makes the policy freeze all changes between two times, from now.
func (w *world) frozen(from, to time.Duration) {
	now := w.sim.Clock().Now()
	w.policy.Calendar.Freezes = []gate.Freeze{{From: now.Add(from), To: now.Add(to), Reason: "year end"}}
}

// ruled makes the organization's own rule, which lets no namespace have a team.
func (w *world) ruled(team string) {
	w.t.Helper()
	dir := w.t.TempDir()
	for name, text := range map[string]string{
		policy.Name: "rules: [org.star]\n",
		"org.star":  fmt.Sprintf("def deny_team(effect, facts):\n    return \"no %s\" if effect.after.metadata.labels.get(\"team\") == %q else None\n", team, team),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	p, err := policy.Read(w.t.Context(), filepath.Join(dir, policy.Name), policy.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.policy.Organization = p.Organization
}

// heldByAnother takes the mesh's Lease for another run.
func heldByAnother(w *world) {
	l, err := lock.Acquire(context.Background(), lock.Options{
		Cluster: w.client, Clock: w.sim.Clock(), Rand: strings.NewReader(strings.Repeat("other", 100)), Namespace: "istio-system",
		Run: "another", Holder: "somebody", Host: "there",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	_, end := l.Context(ctx)
	w.t.Cleanup(func() { end(); cancel() })
}

// prometheus makes the policy ask a server over HTTP whose only answer is rate.
func prometheus(w *world, rate string) {
	s := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) {
		_, err := io.WriteString(out, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[0,"`+rate+`"]}]}}`)
		if err != nil {
			w.t.Error(err)
		}
	}))
	w.t.Cleanup(s.Close)
	c, err := metrics.New(metrics.Options{URL: s.URL, Clock: w.sim.Clock()})
	if err != nil {
		w.t.Fatal(err)
	}
	most := 0.05
	w.metrics = c
	w.policy.Prometheus = &gate.Prometheus{URL: s.URL, Queries: []gate.HealthQuery{{Name: "errors", Query: "rate(errors[1m])", Max: &most}}}
}

func TestEveryGateHasAScene(t *testing.T) {
	for _, g := range gate.All() {
		if !slices.ContainsFunc(scenes(), func(s scene) bool { return s.code == g.Code }) {
			t.Errorf("%s %s has no scene", g.Code, g.Name)
		}
	}
}

// A gate that has nothing to say says nothing, and the change is made.
func TestSilent(t *testing.T) {
	for _, s := range scenes() {
		t.Run(string(s.code), func(t *testing.T) {
			w := newWorld(t, s.upgraded)
			if s.setup != nil {
				s.setup(w)
			}
			if err := w.run(s.script); err != nil {
				t.Fatal(err)
			}
			if fs := w.found(s.code); len(fs) > 0 {
				t.Errorf("it found %+v", fs)
			}
			if len(w.writes) == 0 {
				t.Error("nothing was changed")
			}
		})
	}
}

// What a gate blocks is blocked before anything is sent.
func TestBlocksBeforeTheFirstWrite(t *testing.T) {
	for _, s := range scenes() {
		t.Run(string(s.code), func(t *testing.T) {
			w := newWorld(t, s.upgraded)
			if s.setup != nil {
				s.setup(w)
			}
			script := s.script
			if s.wrongly != "" {
				script = s.wrongly
			}
			if s.wrong != nil {
				s.wrong(w)
			}
			err := w.run(script)
			var refused *gate.Refusal
			if !errors.As(err, &refused) {
				t.Fatalf("got %v, want a refusal", err)
			}
			if !refused.Forecast || !slices.ContainsFunc(refused.Findings, func(f gate.Finding) bool { return f.Code == s.code && f.Verdict == gate.Block }) {
				t.Errorf("forecast %v; want a block by %s before the first write: %v", refused.Forecast, s.code, err)
			}
			// What the run does to its own Lease is no change of the mesh.
			writes := slices.DeleteFunc(w.writes, func(s string) bool { return strings.Contains(s, "/leases/") || strings.HasSuffix(s, "/leases") })
			if len(writes) > 0 {
				t.Errorf("sent all the same: %v", writes)
			}
		})
	}
}
