package access

import (
	"errors"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"rutter.dev/rutter/runtime/cluster"
)

// asked is a request as the door records it.
func asked(t *testing.T, method, target string) cluster.Asked {
	t.Helper()
	req, err := http.NewRequest(method, "http://sim.invalid"+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	return cluster.Asked{Request: req, Status: http.StatusOK}
}

const applyType = "application/apply-patch+yaml"

func TestRead(t *testing.T) {
	deploy := func(verb, ns, name string) Permission {
		return Permission{Verb: verb, Group: "apps", Resource: "deployments", Namespace: ns, Name: name}
	}
	role := func(verb, resource, ns, name string) Permission {
		return Permission{Verb: verb, Group: "rbac.authorization.k8s.io", Resource: resource, Namespace: ns, Name: name}
	}
	const rbac = "/apis/rbac.authorization.k8s.io/v1"
	for _, tc := range []struct {
		name, method, target string
		contentType, body    string
		status               int
		want                 []Permission
	}{
		{name: "get", method: "GET", target: "/apis/apps/v1/namespaces/shop/deployments/web", want: []Permission{deploy("get", "shop", "web")}},
		{name: "head is get", method: "HEAD", target: "/apis/apps/v1/namespaces/shop/deployments/web", want: []Permission{deploy("get", "shop", "web")}},
		{
			name: "a probe", method: "GET", target: "/api/v1/namespaces/istio-system/services/gw:80/proxy/healthz?deep=1",
			want: []Permission{{Verb: "get", Resource: "services/proxy", Namespace: "istio-system", Name: "gw:80"}},
		},
		{name: "list in a namespace", method: "GET", target: "/apis/apps/v1/namespaces/shop/deployments?limit=500", want: []Permission{deploy("list", "shop", "")}},
		{name: "list everywhere", method: "GET", target: "/apis/apps/v1/deployments", want: []Permission{deploy("list", "", "")}},
		{name: "list of one", method: "GET", target: "/apis/apps/v1/namespaces/shop/deployments?fieldSelector=metadata.name%3Dweb", want: []Permission{deploy("list", "shop", "web")}},
		{
			name: "watch needs list", method: "GET", target: "/apis/apps/v1/namespaces/shop/deployments?watch=true&resourceVersion=7",
			want: []Permission{deploy("watch", "shop", ""), deploy("list", "shop", "")},
		},
		{
			name: "watch=1 of one", method: "GET", target: "/apis/apps/v1/namespaces/shop/deployments?watch=1&fieldSelector=metadata.name%3Dweb",
			want: []Permission{deploy("watch", "shop", "web"), deploy("list", "shop", "web")},
		},
		{
			name: "a copy's list needs watch", method: "GET", target: "/apis/apps/v1/deployments?limit=500&resourceVersion=0",
			want: []Permission{deploy("list", "", ""), deploy("watch", "", "")},
		},
		{name: "a later page is a list", method: "GET", target: "/apis/apps/v1/deployments?limit=500&continue=x&resourceVersion=0", want: []Permission{deploy("list", "", "")}},
		{name: "create", method: "POST", target: "/apis/apps/v1/namespaces/shop/deployments", body: `{"metadata":{"name":"web"}}`, status: 201, want: []Permission{deploy("create", "shop", "")}},
		{name: "update", method: "PUT", target: "/apis/apps/v1/namespaces/shop/deployments/web", want: []Permission{deploy("update", "shop", "web")}},
		{name: "patch", method: "PATCH", target: "/apis/apps/v1/namespaces/shop/deployments/web", contentType: "application/merge-patch+json", want: []Permission{deploy("patch", "shop", "web")}},
		{name: "a dry-run patch is a patch", method: "PATCH", target: "/apis/apps/v1/namespaces/shop/deployments/web?dryRun=All", want: []Permission{deploy("patch", "shop", "web")}},
		{name: "apply to what is there", method: "PATCH", target: "/apis/apps/v1/namespaces/shop/deployments/web?fieldManager=rutter", contentType: applyType, want: []Permission{deploy("patch", "shop", "web")}},
		{
			name: "apply that creates", method: "PATCH", target: "/apis/apps/v1/namespaces/shop/deployments/web?fieldManager=rutter", contentType: applyType, status: 201,
			want: []Permission{deploy("patch", "shop", "web"), deploy("create", "shop", "web")},
		},
		{name: "delete", method: "DELETE", target: "/apis/apps/v1/namespaces/shop/deployments/web", want: []Permission{deploy("delete", "shop", "web")}},
		{name: "delete of many", method: "DELETE", target: "/apis/apps/v1/namespaces/shop/deployments", want: []Permission{deploy("deletecollection", "shop", "")}},
		{name: "scale", method: "PATCH", target: "/apis/apps/v1/namespaces/shop/deployments/web/scale", want: []Permission{{Verb: "patch", Group: "apps", Resource: "deployments/scale", Namespace: "shop", Name: "web"}}},
		{name: "eviction", method: "POST", target: "/api/v1/namespaces/shop/pods/web-1/eviction", body: `{}`, status: 201, want: []Permission{{Verb: "create", Resource: "pods/eviction", Namespace: "shop", Name: "web-1"}}},
		{name: "logs", method: "GET", target: "/api/v1/namespaces/shop/pods/web-1/log?tailLines=5", want: []Permission{{Verb: "get", Resource: "pods/log", Namespace: "shop", Name: "web-1"}}},
		{name: "a namespace itself", method: "GET", target: "/api/v1/namespaces/kube-system", want: []Permission{{Verb: "get", Resource: "namespaces", Name: "kube-system"}}},
		{name: "a namespace's subresource", method: "PUT", target: "/api/v1/namespaces/shop/finalize", want: []Permission{{Verb: "update", Resource: "namespaces/finalize", Name: "shop"}}},
		{name: "a CRD's group", method: "GET", target: "/apis/networking.istio.io/v1/virtualservices", want: []Permission{{Verb: "list", Group: "networking.istio.io", Resource: "virtualservices"}}},
		{name: "a custom resource's status", method: "PATCH", target: "/apis/networking.istio.io/v1/namespaces/shop/virtualservices/web/status", want: []Permission{{Verb: "patch", Group: "networking.istio.io", Resource: "virtualservices/status", Namespace: "shop", Name: "web"}}},
		{name: "no resource", method: "GET", target: "/metrics", want: []Permission{{Verb: "get", URL: "/metrics"}}},
		{name: "discovery", method: "GET", target: "/apis/apps/v1", want: []Permission{{Verb: "get", URL: "/apis/apps/v1"}}},
		{
			name: "roles hand out permissions", method: "PATCH", target: rbac + "/clusterroles/istiod", contentType: applyType, body: `{}`,
			want: []Permission{role("patch", "clusterroles", "", "istiod"), role("escalate", "clusterroles", "", "istiod")},
		},
		{
			name: "a role that is created has no name yet", method: "POST", target: rbac + "/namespaces/shop/roles", body: `{}`, status: 201,
			want: []Permission{role("create", "roles", "shop", ""), role("escalate", "roles", "shop", "")},
		},
		{name: "a role that is deleted hands out nothing", method: "DELETE", target: rbac + "/clusterroles/istiod", body: `{}`, want: []Permission{role("delete", "clusterroles", "", "istiod")}},
		{
			name: "bindings hand out a role", method: "PATCH", target: rbac + "/clusterrolebindings/istiod-b", contentType: applyType, body: `{"roleRef":{"kind":"ClusterRole","name":"istiod"}}`,
			want: []Permission{role("patch", "clusterrolebindings", "", "istiod-b"), role("bind", "clusterroles", "", "istiod")},
		},
		{
			name: "a binding of a ClusterRole in a namespace", method: "PUT", target: rbac + "/namespaces/shop/rolebindings/b", body: `{"roleRef":{"kind":"ClusterRole","name":"view"}}`,
			want: []Permission{role("update", "rolebindings", "shop", "b"), role("bind", "clusterroles", "shop", "view")},
		},
		{
			name: "a binding of a Role", method: "PUT", target: rbac + "/namespaces/shop/rolebindings/b", body: `{"roleRef":{"kind":"Role","name":"r"}}`,
			want: []Permission{role("update", "rolebindings", "shop", "b"), role("bind", "roles", "shop", "r")},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := asked(t, tc.method, tc.target)
			a.Body = []byte(tc.body)
			if tc.contentType != "" {
				a.Request.Header.Set("Content-Type", tc.contentType)
			}
			if tc.status != 0 {
				a.Status = tc.status
			}
			got, err := Read(a)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got.Needs); diff != "" {
				t.Errorf("needs (-want +got):\n%s", diff)
			}
			if got.Applied != (tc.contentType == applyType) {
				t.Errorf("Applied = %v", got.Applied)
			}
		})
	}
}

func TestReadRefusesABindingThatDoesNotSayOfWhat(t *testing.T) {
	a := asked(t, "PATCH", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/b")
	a.Body = []byte(`{"subjects":[]}`)
	if _, err := Read(a); !errors.Is(err, ErrUnread) {
		t.Errorf("got %v, want ErrUnread", err)
	}
	l := &Log{}
	l.Record(a)
	l.Record(asked(t, "GET", "/api/v1/pods"))
	got, err := l.Requests()
	if !errors.Is(err, ErrUnread) || len(got) != 1 {
		t.Errorf("the log has %d requests and the error %v, want 1 and ErrUnread", len(got), err)
	}
}

func TestReadImpersonation(t *testing.T) {
	a := asked(t, "GET", "/api/v1/pods")
	a.Request.Header.Set("Impersonate-User", "ada")
	a.Request.Header.Add("Impersonate-Group", "ops")
	a.Request.Header.Add("Impersonate-Group", "dev")
	a.By = cluster.Asker{Step: "look", By: "kube.list"}
	got, err := Read(a)
	if err != nil {
		t.Fatal(err)
	}
	want := Request{Needs: []Permission{{Verb: "list", Resource: "pods"}}, As: Identity{User: "ada", Groups: "dev,ops"}, By: a.By}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
