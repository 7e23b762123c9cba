package access

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"

	"rutter.dev/rutter/runtime/cluster"
)

// line is a permission as the tests write it: "get apps/deployments shop/web",
// with "*" for any namespace or name of those that can have one.
func (p Permission) line() string {
	if p.URL != "" {
		return p.Verb + " " + p.URL
	}
	any := func(s string) string {
		if s == "" {
			return "*"
		}
		return s
	}
	return fmt.Sprintf("%s %s/%s %s/%s", p.Verb, p.Group, p.Resource, any(p.Namespace), any(p.Name))
}

// made are requests, one a line: METHOD PATH [apply|create].
func made(t *testing.T, lines string) []Request {
	t.Helper()
	var out []Request
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		a := asked(t, f[0], f[1])
		if len(f) > 2 {
			a.Request.Header.Set("Content-Type", applyType)
			if f[2] == "create" {
				a.Status = 201
			}
		}
		r, err := Read(a)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func TestDerive(t *testing.T) {
	const home = "PATCH /apis/apps/v1/namespaces/istio-system/deployments/istiod apply\n"
	for _, tc := range []struct {
		name, requests string
		o              Options
		want           []string
		everybody      []string
	}{
		{
			name: "what the runbook applies is named, workloads are not",
			requests: home + `
				PATCH /apis/apps/v1/namespaces/shop/statefulsets/db
				POST  /api/v1/namespaces/shop/pods/db-0/eviction`,
			want: []string{"create /pods/eviction */*", "patch apps/statefulsets */*", "patch apps/deployments istio-system/istiod"},
		},
		{
			name: "all of a kind includes one in a namespace",
			requests: home + `
				PATCH /apis/apps/v1/namespaces/shop/deployments/web
				GET   /apis/apps/v1/namespaces/istio-system/deployments/istiod`,
			want: []string{"patch apps/deployments */*", "get apps/deployments istio-system/istiod"},
		},
		{
			name: "in some namespaces alone", o: Options{Namespaces: []string{"shop", "web"}},
			requests: home + `
				PATCH /apis/apps/v1/namespaces/team-1/deployments/a
				GET   /apis/apps/v1/deployments`,
			want: []string{"list apps/deployments */*", "patch apps/deployments istio-system/istiod", "patch apps/deployments shop/*", "patch apps/deployments web/*"},
		},
		{
			name: "names protect nothing where all may be listed",
			requests: home + `
				GET /apis/apps/v1/namespaces/istio-system/deployments/istiod
				GET /apis/apps/v1/namespaces/istio-system/deployments?watch=true&fieldSelector=metadata.name%3Distiod
				GET /apis/apps/v1/deployments`,
			want: []string{"get apps/deployments */*", "list apps/deployments */*", "watch apps/deployments */*", "patch apps/deployments istio-system/istiod"},
		},
		{
			name: "a watch of one object is named",
			requests: home + `
				GET /apis/apps/v1/namespaces/istio-system/deployments?watch=true&fieldSelector=metadata.name%3Distiod`,
			want: []string{"list apps/deployments istio-system/istiod", "watch apps/deployments istio-system/istiod", "patch apps/deployments istio-system/istiod"},
		},
		{
			name: "controllers name these",
			requests: home + `
				GET  /api/v1/namespaces/istio-system/pods/istiod-7c9-x
				GET  /api/v1/namespaces/istio-system/pods/istiod-7c9-x/log
				POST /api/v1/namespaces/istio-system/pods/istiod-7c9-x/eviction
				GET  /api/v1/nodes/n1`,
			want: []string{
				"get /nodes */*", "get /pods istio-system/*", "create /pods/eviction istio-system/*", "get /pods/log istio-system/*",
				"patch apps/deployments istio-system/istiod",
			},
		},
		{
			name: "namespaces that the runbook or Kubernetes names, and others",
			requests: home + `
				GET /api/v1/namespaces/kube-system
				GET /api/v1/namespaces/istio-system`,
			want: []string{"get /namespaces */istio-system", "get /namespaces */kube-system", "patch apps/deployments istio-system/istiod"},
		},
		{
			name: "a namespace of the mesh",
			requests: `
				GET /api/v1/namespaces/kube-system
				GET /api/v1/namespaces/shop
				GET /api/v1/namespaces/kube-system/configmaps/c`,
			want: []string{"get /namespaces */*", "get /configmaps kube-system/c"},
		},
		{
			name: "created by an apply is named, by a POST is not",
			requests: `
				PATCH /api/v1/namespaces/istio-system/configmaps/a create
				POST  /api/v1/namespaces/istio-system/secrets`,
			want: []string{"create /configmaps istio-system/a", "patch /configmaps istio-system/a", "create /secrets istio-system/*"},
		},
		{
			name: "what everybody may do is left out",
			requests: `
				GET  /version
				GET  /apis
				GET  /apis/apps/v1
				GET  /openapi/v3/apis/apps/v1
				GET  /readyz
				GET  /readyz/etcd
				GET  /metrics
				POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews
				POST /apis/authorization.k8s.io/v1/subjectaccessreviews`,
			want: []string{"create authorization.k8s.io/subjectaccessreviews */*", "get /metrics", "get /readyz/etcd"},
			everybody: []string{
				"create authorization.k8s.io/selfsubjectaccessreviews */*", "get /apis", "get /apis/apps/v1", "get /openapi/v3/apis/apps/v1",
				"get /readyz", "get /version",
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Derive(made(t, tc.requests), tc.o)
			var lines, everybody []string
			for _, n := range got.Needs {
				lines = append(lines, n.line())
			}
			for _, p := range got.Everybody {
				everybody = append(everybody, p.line())
			}
			if diff := cmp.Diff(tc.want, lines); diff != "" {
				t.Errorf("needs (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.everybody, everybody); diff != "" {
				t.Errorf("everybody (-want +got):\n%s", diff)
			}
		})
	}
}

// The Lease is renewed where it is taken, not where it is only looked for, and
// not one that a runbook reads.
func TestTheLockIsRenewed(t *testing.T) {
	requests := made(t, `
		GET  /apis/coordination.k8s.io/v1/namespaces/kube-system/leases/rutter
		GET  /apis/coordination.k8s.io/v1/namespaces/kube-system/leases/other
		GET  /apis/coordination.k8s.io/v1/namespaces/kube-public/leases/rutter
		POST /apis/coordination.k8s.io/v1/namespaces/kube-system/leases`)
	requests[1].By = cluster.Asker{Step: "look", By: "kube.get"}
	var lines []string
	for _, n := range Derive(requests, Options{}).Needs {
		lines = append(lines, n.line())
	}
	want := []string{
		"get coordination.k8s.io/leases kube-public/rutter", "get coordination.k8s.io/leases kube-system/other",
		"get coordination.k8s.io/leases kube-system/rutter", "create coordination.k8s.io/leases kube-system/*",
		"update coordination.k8s.io/leases kube-system/rutter",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDeriveImpersonation(t *testing.T) {
	as := func(user, groups string) Request {
		return Request{Needs: []Permission{{Verb: "list", Resource: "pods"}}, As: Identity{User: user, Groups: groups}}
	}
	got := Derive([]Request{as("ada", "dev,ops"), as("ada", "dev,ops"), as("system:serviceaccount:ops:rutter", "")}, Options{})
	var lines []string
	for _, n := range got.Impersonates {
		lines = append(lines, n.line())
	}
	want := []string{"impersonate /groups */dev", "impersonate /groups */ops", "impersonate /users */ada", "impersonate /serviceaccounts ops/rutter"}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(got.Needs) != 1 {
		t.Errorf("the needs of who is impersonated: %v", got.Needs)
	}
}

// document is roles with most that can be in them.
func document(t *testing.T) *Document {
	t.Helper()
	requests := made(t, `
		PATCH /apis/apps/v1/namespaces/istio-system/deployments/istiod apply
		PATCH /api/v1/namespaces/istio-system/configmaps/b apply
		PATCH /api/v1/namespaces/istio-system/configmaps/a create
		PATCH /apis/rbac.authorization.k8s.io/v1/clusterroles/istiod apply
		PATCH /apis/apps/v1/namespaces/shop/daemonsets/d
		GET   /api/v1/pods
		GET   /api/v1/services
		GET   /metrics
		GET   /metrics/slis
		GET   /api/v1/namespaces/kube-system`)
	for i := range requests[:5] {
		requests[i].By = cluster.Asker{Step: "control plane", By: "kube.apply"}
	}
	requests[4].By = cluster.Asker{Step: "data plane", By: "restart.outdated"}
	requests[5].By = cluster.Asker{Step: "back up", By: "backup.create"}
	requests[6].By = cluster.Asker{Step: "back up again", By: "backup.create"}
	got := Derive(requests, Options{})
	return &Document{
		Header: []string{"A header.", "", "More of it."},
		Roles:  Roles("up", got.Needs, []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "ops", Name: "rutter"}}),
	}
}

func TestYAML(t *testing.T) {
	var b strings.Builder
	if err := document(t).YAML(&b); err != nil {
		t.Fatal(err)
	}
	const want = `# A header.
#
# More of it.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: up
rules:
# rutter itself
- apiGroups: [""]
  resources: ["namespaces"]
  resourceNames: ["kube-system"]
  verbs: ["get"]
# backup.create (back up, back up again)
- apiGroups: [""]
  resources: ["pods", "services"]
  verbs: ["list"]
# rutter itself
- nonResourceURLs: ["/metrics", "/metrics/slis"]
  verbs: ["get"]
# restart.outdated (data plane)
- apiGroups: ["apps"]
  resources: ["daemonsets"]
  verbs: ["patch"]
# kube.apply (control plane)
- apiGroups: ["rbac.authorization.k8s.io"]
  resources: ["clusterroles"]
  resourceNames: ["istiod"]
  verbs: ["patch", "escalate"]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: up
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: up
subjects:
- kind: ServiceAccount
  name: rutter
  namespace: ops
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: up
  namespace: istio-system
rules:
# kube.apply (control plane)
- apiGroups: [""]
  resources: ["configmaps"]
  resourceNames: ["a"]
  verbs: ["create"]
# kube.apply (control plane)
- apiGroups: [""]
  resources: ["configmaps"]
  resourceNames: ["a", "b"]
  verbs: ["patch"]
# kube.apply (control plane)
- apiGroups: ["apps"]
  resources: ["deployments"]
  resourceNames: ["istiod"]
  verbs: ["patch"]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: up
  namespace: istio-system
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: up
subjects:
- kind: ServiceAccount
  name: rutter
  namespace: ops
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestJSONHoldsTheSameObjects(t *testing.T) {
	d := document(t)
	var b strings.Builder
	if err := d.JSON(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"kind": "List"`, `"kind": "ClusterRole"`, `"kind": "RoleBinding"`, `"escalate"`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
	if len(d.Objects()) != 4 {
		t.Errorf("%d objects, want 2 roles with their bindings", len(d.Objects()))
	}
}

func TestCommentsWrap(t *testing.T) {
	parts := slices.Repeat([]string{"kube.apply (control plane)"}, 7)
	for _, line := range wrapped(parts) {
		if len(line) > lineWidth {
			t.Errorf("%d wide: %s", len(line), line)
		}
	}
	if got := strings.Join(wrapped(parts), " "); got != strings.Join(parts, ", ") {
		t.Errorf("got %q", got)
	}
}
