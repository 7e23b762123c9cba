//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/component-helpers/auth/rbac/validation"

	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/tests/e2e/plane"
)

// A run as a ServiceAccount that has exactly the roles of rutter rbac finishes,
// and the API server's own record says that it asked for nothing else, was
// refused nothing, and that each permission was of use. The second keeps its
// journal in the cluster.
func rolesSuffice(t *testing.T, p *plane.Plane) {
	old, err := p.IstioManifest(t.Context(), "1.30.3", plane.DefaultProfile)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.InstallIstio(t.Context(), "1.30.3", old); err != nil {
		t.Fatal(err)
	}
	spec := mesh.Spec{Istio: "1.30.3", Workloads: 12, Namespaces: 3, Seed: 1, NoSidecar: 1, OnDelete: 1}
	if err := p.Populate(t.Context(), spec, old); err != nil {
		t.Fatal(err)
	}
	kubectl(t, p, "create", "namespace", "ops").want(t, 0)
	kubectl(t, p, "-n", "default", "create", "configmap", "kept-go").want(t, 0)

	inPlace := []string{"runbooks/istio/in-place.star", "--set", "to=1.31.0"}
	asExactly(t, p, "upgrader", inPlace, nil, append([]string{"run", "--set", "soak=1s", "--yes"}, inPlace...))

	steady := []string{"tests/e2e/testdata/steady.star", "--set", "prefix=kept", "--set", "before=2", "--set", "after=1", "--state", "cluster"}
	like := filepath.Join(t.TempDir(), "like.yaml") // what of this cluster matters to the runbook
	if err := os.WriteFile(like, []byte(`
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kept-go, namespace: default}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	runs := asExactly(t, p, "keeper", steady, []string{"--sim", like}, append([]string{"run", "--yes"}, steady...), []string{"runs", "--state", "cluster"})
	if !strings.Contains(runs.out, "steady") {
		t.Errorf("the run that is kept in the cluster is not among\n%s", runs.out)
	}
}

// accountWith makes a ServiceAccount with roles, which are YAML, and gives a
// kubeconfig by which to be it.
func accountWith(t *testing.T, p *plane.Plane, namespace, account, roles string) (kubeconfig string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "roles.yaml")
	if err := os.WriteFile(file, []byte(roles), 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl(t, p, "create", "serviceaccount", account, "-n", namespace).want(t, 0)
	kubectl(t, p, "apply", "-f", file).want(t, 0)
	token, err := p.Token(t.Context(), namespace, account, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if kubeconfig, err = p.KubeconfigFor(account, token); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

// asExactly gives a new ServiceAccount the roles of rutter rbac for a runbook,
// gives rutter the command lines in its name, and holds the API server's record
// against the roles. It returns how the last one ended.
func asExactly(t *testing.T, p *plane.Plane, account string, runbook, more []string, commands ...[]string) (last result) {
	t.Helper()
	state := t.TempDir()
	printed := rutter(t, state, p.Kubeconfig(), slices.Concat([]string{"rbac", "--serviceaccount", "ops:" + account, "--name", account}, runbook, more)...).want(t, 0).out
	kubeconfig := accountWith(t, p, "ops", account, printed)
	mark := auditMark(t, p)
	for _, line := range commands {
		if last = rutter(t, state, kubeconfig, line...); last.code != 0 {
			t.Errorf("exit code %d\n%s", last.code, last.errOut)
		}
	}
	events, err := p.AuditSince(mark, plane.By("system:serviceaccount:ops:"+account))
	if err != nil {
		t.Fatal(err)
	}
	objects, err := plane.Parse([]byte(printed))
	if err != nil {
		t.Fatal(err)
	}
	nothingElse(t, account, events, rulesOf(t, objects))
	return last
}

// nothingElse: what was asked was allowed, by the role of that name alone, and
// every rule of it was of use.
func nothingElse(t *testing.T, role string, events []auditv1.Event, held scoped) {
	t.Helper()
	used := map[string]bool{}
	asked := 0
	for i := range events {
		e := &events[i]
		if decision := e.Annotations["authorization.k8s.io/decision"]; decision != "allow" || e.ResponseStatus != nil && (e.ResponseStatus.Code == 403 || e.ResponseStatus.Code == 401) {
			t.Errorf("%s %s: %s, %v", e.Verb, e.RequestURI, decision, e.ResponseStatus)
		}
		if e.ObjectRef == nil || strings.HasPrefix(e.ObjectRef.Resource, "selfsubject") {
			continue // what every authenticated user may ask
		}
		asked++
		if !strings.Contains(e.Annotations["authorization.k8s.io/reason"], `"`+role) {
			t.Errorf("%s %s was allowed by others: %s", e.Verb, e.RequestURI, e.Annotations["authorization.k8s.io/reason"])
		}
		for _, r := range wanted(e) {
			if !held.cover(e.ObjectRef.Namespace, r, used) {
				t.Errorf("%s %s: no rule covers %v", e.Verb, e.RequestURI, r)
			}
		}
	}
	if asked == 0 {
		t.Fatal("the audit log knows of no request")
	}
	t.Logf("%s: %d requests to resources, %d permissions", role, asked, len(held.atoms()))
	for _, a := range held.atoms() {
		// The lock is renewed only by runs that last longer than this one. That a
		// web socket to a pod needs create as well as get is no event of the log
		// (feature AuthorizePodWebsocketUpgradeCreatePermission of Kubernetes 1.35).
		if !used[a] && !strings.HasSuffix(a, ": update leases") && !strings.HasSuffix(a, ": create pods/portforward") {
			t.Errorf("%s: nothing asked for: %s", role, a)
		}
	}
}

// wanted is what the authorizer was asked for an event, as rules.
func wanted(e *auditv1.Event) []rbacv1.PolicyRule {
	ref := e.ObjectRef
	resource := ref.Resource
	if ref.Subresource != "" {
		resource += "/" + ref.Subresource
	}
	r := rbacv1.PolicyRule{APIGroups: []string{ref.APIGroup}, Resources: []string{resource}, Verbs: []string{e.Verb}}
	if ref.Name != "" && e.Verb != "create" || ref.Subresource != "" {
		r.ResourceNames = []string{ref.Name}
	}
	out := []rbacv1.PolicyRule{r}
	if e.Verb == "patch" && e.ResponseStatus != nil && e.ResponseStatus.Code == 201 {
		created := *r.DeepCopy()
		created.Verbs = []string{"create"}
		out = append(out, created)
	}
	return out
}

// scoped are rules by namespace, "" for everywhere.
type scoped map[string][]rbacv1.PolicyRule

func rulesOf(t *testing.T, objects []*plane.Object) scoped {
	t.Helper()
	out := scoped{}
	for _, o := range objects {
		var role rbacv1.Role // a ClusterRole has these fields, too
		if strings.HasSuffix(o.GetKind(), "Binding") {
			continue
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &role); err != nil {
			t.Fatal(err)
		}
		out[role.Namespace] = append(out[role.Namespace], role.Rules...)
	}
	return out
}

// cover reports whether some rule covers the one that is wanted in a namespace,
// and notes which permissions of it were of use.
func (s scoped) cover(namespace string, want rbacv1.PolicyRule, used map[string]bool) bool {
	covered := false
	for _, ns := range slices.Compact([]string{"", namespace}) {
		for i, r := range s[ns] {
			if ok, _ := validation.Covers([]rbacv1.PolicyRule{r}, []rbacv1.PolicyRule{want}); ok {
				covered = true
				used[atom(ns, i, want.Resources[0], want.Verbs[0])] = true
			}
		}
	}
	return covered
}

// atoms are the single permissions of the rules: a verb on a resource. A client
// that follows a kind lists and watches, and with which of the two it begins is
// the server's choice: the two count as one. That roles and bindings may be
// applied without holding what they give shows in no request.
func (s scoped) atoms() []string {
	var out []string
	for ns, rules := range s {
		for i, r := range rules {
			for _, resource := range r.Resources {
				for _, verb := range r.Verbs {
					if verb != "escalate" && verb != "bind" {
						out = append(out, atom(ns, i, resource, verb))
					}
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func atom(namespace string, rule int, resource, verb string) string {
	if verb == "watch" {
		verb = "list"
	}
	return fmt.Sprintf("%s rule %d: %s %s", namespace, rule+1, verb, resource)
}
