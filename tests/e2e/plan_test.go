//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/plan"
	"rutter.dev/rutter/runtime/seal"
	"rutter.dev/rutter/runtime/twin"
	"rutter.dev/rutter/tests/e2e/plane"
)

// planWithout plans as users who may not do all that a plan asks for: it lets out
// nothing that could change the mesh, and says what it could not know.
func planWithout(t *testing.T, p *plane.Plane) {
	t.Run("plan read only", func(t *testing.T) { planReadOnly(t, p) })
	t.Run("plan unread", func(t *testing.T) { planUnread(t, p) })
}

// saved is a plan that was saved, and what a cluster was when it was made.
type saved struct {
	file, end string
	before    []*unstructured.Unstructured
}

// planUpgrade saves a plan of the in-place upgrade, which lets out nothing that
// could change the mesh.
func planUpgrade(t *testing.T, p *plane.Plane) saved {
	t.Helper()
	dir := t.TempDir()
	s := saved{file: filepath.Join(dir, "upgrade.plan"), end: filepath.Join(dir, "end.json")}
	mark := auditMark(t, p)
	rutter(t, t.TempDir(), p.Kubeconfig(), "plan", "runbooks/istio/in-place.star", "--set", "to=1.31.0", "--set", "soak=1s",
		"--save", s.file, "--end-state", s.end).want(t, 0)
	if n := onlyHarmless(t, p, mark, plane.Operator); n["dry-runs"] == 0 {
		t.Errorf("no dry-run was asked for: %v", n)
	}
	s.before = everything(t, p)
	return s
}

// onlyHarmless: all that a user asked for since a mark was a read, a dry-run of a
// change, or a question about rights. It returns how many of each there were.
func onlyHarmless(t *testing.T, p *plane.Plane, mark int64, user string) map[string]int {
	t.Helper()
	settleAudit(t, p, mark)
	events, err := p.AuditSince(mark, plane.By(user))
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for i := range events {
		e := &events[i]
		u, err := url.Parse(e.RequestURI)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case slices.Contains([]string{"get", "list", "watch"}, e.Verb):
			count["reads"]++
			if e.ObjectRef != nil && e.ObjectRef.Subresource != "" && !slices.Contains([]string{"status", "scale", "log"}, e.ObjectRef.Subresource) {
				t.Errorf("%s %s may be a connection", e.Verb, e.RequestURI)
			}
		case e.ObjectRef != nil && strings.HasPrefix(e.ObjectRef.Resource, "selfsubject"):
			count["questions"]++
		case e.Verb == "delete" && slices.Equal(u.Query()["dryRun"], []string{"All"}) && dryRunInBody(e):
			count["dry-runs"]++
		case e.Verb != "delete" && slices.Equal(u.Query()["dryRun"], []string{"All"}):
			count["dry-runs"]++
		default:
			t.Errorf("%s %s was let out", e.Verb, e.RequestURI)
		}
	}
	if count["reads"] == 0 {
		t.Errorf("the record of the API server has %v", count)
	}
	t.Logf("the API server was sent %v", count)
	return count
}

// dryRunInBody: of a deletion with a body the server reads that.
func dryRunInBody(e *auditv1.Event) bool {
	return e.RequestObject != nil && strings.Contains(string(e.RequestObject.Raw), `"dryRun":["All"]`)
}

// planReadOnly plans as a user who may read but change nothing: that no dry-run
// could be asked is named.
func planReadOnly(t *testing.T, p *plane.Plane) {
	r, planned := planAs(t, p, "reader", strings.ReplaceAll(readerRole, "NOT", ", envoyfilters"))
	if !assumed(planned, twin.DryRunLeftOut, "") {
		t.Errorf("that the server was not asked is not among the assumptions %v\n%s", planned.Assumptions, r.errOut)
	}
	if len(planned.Effects) == 0 {
		t.Errorf("ended as %s (%s) without any effect", planned.Status, planned.Error)
	}
}

// planUnread plans as a user who may not read a kind that the runbook asks about:
// the plan says so, twice, rather than take it that there are none.
func planUnread(t *testing.T, p *plane.Plane) {
	r, planned := planAs(t, p, "blind", strings.ReplaceAll(readerRole, "NOT", ""))
	if !assumed(planned, twin.Unreadable, "envoyfilters.networking.istio.io") {
		t.Errorf("that EnvoyFilters may not be read is not among the assumptions %v\n%s", planned.Assumptions, r.errOut)
	}
	if r.code == 0 || !strings.Contains(planned.Error, "the right to list envoyfilters.networking.istio.io") {
		t.Errorf("exit code %d: %s", r.code, planned.Error)
	}
}

func assumed(p *plan.Plan, code twin.Code, about string) bool {
	return slices.ContainsFunc(p.Assumptions, func(a twin.Assumption) bool { return a.Code == code && strings.Contains(a.Subject, about) })
}

// planAs plans as a ServiceAccount with a role, and looks at what it was let out.
func planAs(t *testing.T, p *plane.Plane, name, role string) (result, *plan.Plan) {
	t.Helper()
	kubeconfig := accountWith(t, p, "default", name, strings.ReplaceAll(role, "READER", name))
	mark := auditMark(t, p)
	r := rutter(t, t.TempDir(), kubeconfig, "plan", "runbooks/istio/in-place.star", "--set", "to=1.31.0", "--set", "soak=1s", "-o", "json")
	planned := &plan.Plan{}
	if err := json.Unmarshal([]byte(r.out), planned); err != nil {
		t.Fatalf("exit code %d: %v\n%s%s", r.code, err, r.out, r.errOut)
	}
	onlyHarmless(t, p, mark, "system:serviceaccount:default:"+name)
	return r, planned
}

const readerRole = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: READER}
rules:
- {apiGroups: ["", apps, batch, autoscaling, policy, admissionregistration.k8s.io, apiextensions.k8s.io, rbac.authorization.k8s.io, networking.k8s.io, discovery.k8s.io, coordination.k8s.io, gateway.networking.k8s.io, security.istio.io, telemetry.istio.io, extensions.istio.io], resources: ["*"], verbs: [get, list, watch]}
- {apiGroups: [networking.istio.io], resources: [destinationrules, gateways, proxyconfigs, serviceentries, sidecars, virtualservices, workloadentries, workloadgroupsNOT], verbs: [get, list, watch]}
- {nonResourceURLs: ["*"], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: READER}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: READER}
subjects:
- {kind: ServiceAccount, name: READER, namespace: default}
`

// cameTrue compares what a saved plan said with what came of its run, whose state
// folder is given.
func cameTrue(t *testing.T, p *plane.Plane, s saved, state string) {
	t.Helper()
	raw, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	planned, err := plan.Read(s.file, raw)
	if err != nil {
		t.Fatal(err)
	}
	var predicted twin.EndState
	if raw, err = os.ReadFile(s.end); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &predicted); err != nil {
		t.Fatal(err)
	}
	if err := p.AwaitRollouts(t.Context(), "", time.Minute); err != nil {
		t.Fatal(err)
	}
	f := planned.Measure(madeIn(t, state), s.before, overlaid(s.before, &predicted), everything(t, p))
	var said strings.Builder
	if err := f.Write(&said); err != nil {
		t.Fatal(err)
	}
	t.Logf("fidelity against the real control plane: %s", said.String())
	if f.Effects == 0 || f.Same != f.Effects {
		t.Errorf("%d of %d effects are as planned", f.Same, f.Effects)
	}
	if f.Objects == 0 || 100*f.EqualFields < 99*f.Fields {
		t.Errorf("%d of %d fields of %d objects are as planned", f.EqualFields, f.Fields, f.Objects)
	}
}

// everything is all objects of a cluster but those that come and go by
// themselves, without the values of Secrets.
func everything(t *testing.T, p *plane.Plane) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	eachObject(t, p, func(o *plane.Object) {
		if strings.HasSuffix(o.GroupVersionKind().Group, ".x-k8s.io") {
			return // what the plane has for itself
		}
		if o.GetKind() == "Secret" {
			delete(o.Object, "data")
		}
		out = append(out, o)
	})
	return out
}

// overlaid is what a cluster would be with what a plan predicts of it.
func overlaid(before []*unstructured.Unstructured, end *twin.EndState) []*unstructured.Unstructured {
	now := map[string]*unstructured.Unstructured{}
	for _, o := range before {
		now[cluster.RefOf(o).ID()] = o
	}
	for _, o := range end.Gone {
		delete(now, cluster.RefOf(o).ID())
	}
	for _, o := range end.Changed {
		if o.GetKind() == "Secret" {
			delete(o.Object, "data")
		}
		now[cluster.RefOf(o).ID()] = o
	}
	return slices.Collect(maps.Values(now))
}

// madeIn are the effects of the only run of a state folder.
func madeIn(t *testing.T, state string) []plan.Effect {
	t.Helper()
	runs, err := os.ReadDir(state)
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.Open(filepath.Dir(state))
	if err != nil {
		t.Fatal(err)
	}
	var made []plan.Effect
	for _, r := range runs {
		j, err := journal.Open(journal.OS{}, state, r.Name(), env.SystemClock{})
		if errors.Is(err, journal.ErrNoRun) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if made, err = plan.Made(j, sealer); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return made
}
