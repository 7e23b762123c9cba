package sim_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"rutter.dev/rutter/runtime/sim"
)

var (
	roles        = schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"}
	bindings     = schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"}
	clusterRoles = schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}
	secrets      = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
)

// ask sends one request and returns its status code and decoded answer.
func ask(t *testing.T, cfg *rest.Config, method, path string, body any) (int, object) {
	t.Helper()
	rt, err := rest.TransportFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, cfg.Host+path, strings.NewReader(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := rt.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var out object
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return res.StatusCode, out
}

func clientFor(t *testing.T, cfg *rest.Config) dynamic.Interface {
	t.Helper()
	d, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func role(name string, rules ...any) *unstructured.Unstructured {
	return obj("rbac.authorization.k8s.io/v1", "Role", "shop", name, object{"rules": rules})
}

func bind(name, kind, role string, subject object) *unstructured.Unstructured {
	return obj("rbac.authorization.k8s.io/v1", "RoleBinding", "shop", name, object{
		"roleRef": object{"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}, "subjects": []any{subject},
	})
}

// TestForbidden holds the words in which a real server refuses a user that no
// role allows anything.
func TestForbidden(t *testing.T) {
	c, _ := newCluster(t, sim.Options{})
	dev := c.ConfigFor(sim.User{Name: "dev", Groups: []string{"developers"}})
	for _, x := range []struct{ method, path, want string }{
		{"GET", "/api/v1/namespaces/shop/pods", `pods is forbidden: User "dev" cannot list resource "pods" in API group "" in the namespace "shop"`},
		{"GET", "/api/v1/namespaces/shop", `namespaces "shop" is forbidden: User "dev" cannot get resource "namespaces" in API group "" in the namespace "shop"`},
		{"GET", "/api/v1/nosuch", `nosuch is forbidden: User "dev" cannot list resource "nosuch" in API group "" at the cluster scope`},
		{"GET", "/apis/x/v1/namespaces/shop/foos/a/b", `foos.x "a" is forbidden: User "dev" cannot get resource "foos/b" in API group "x" in the namespace "shop"`},
		{"GET", "/metrics", `forbidden: User "dev" cannot get path "/metrics"`},
		{"DELETE", "/api/v1/namespaces/shop/pods", `pods is forbidden: User "dev" cannot deletecollection resource "pods" in API group "" in the namespace "shop"`},
		{"GET", "/api/v1/namespaces/shop/pods?fieldSelector=metadata.name=x&watch=1", `pods "x" is forbidden: User "dev" cannot watch resource "pods" in API group "" in the namespace "shop"`},
		{"POST", "/api/v1/namespaces/shop/pods/x/eviction", `pods "x" is forbidden: User "dev" cannot create resource "pods/eviction" in API group "" in the namespace "shop"`},
	} {
		code, got := ask(t, dev, x.method, x.path, object{})
		if code != 403 || got["message"] != x.want || got["reason"] != "Forbidden" {
			t.Errorf("%s %s: %d %v", x.method, x.path, code, got["message"])
		}
	}
	if code, _ := ask(t, dev, "GET", "/apis", nil); code != 200 {
		t.Errorf("discovery, which every user has: %d", code)
	}
	last := c.Requests()[len(c.Requests())-1]
	if last.User != "dev" || last.Code != 403 || last.Resource != "pods/eviction" {
		t.Errorf("the refused request is logged as %+v", last)
	}
}

func TestRolesAllow(t *testing.T) {
	ctx := t.Context()
	c, d := newCluster(t, sim.Options{})
	dev := clientFor(t, c.ConfigFor(sim.User{Name: "dev"}))
	must(t)(d.Resource(roles).Namespace("shop").Create(ctx, role("one", object{"apiGroups": []any{""}, "resources": []any{"configmaps"}, "resourceNames": []any{"a"}, "verbs": []any{"get"}}), metav1.CreateOptions{}))
	must(t)(d.Resource(configMaps).Namespace("shop").Create(ctx, configMap("a", nil), metav1.CreateOptions{}))
	must(t)(d.Resource(bindings).Namespace("shop").Create(ctx, bind("one", "Role", "one", object{"kind": "User", "name": "dev"}), metav1.CreateOptions{}))
	must(t)(d.Resource(bindings).Namespace("shop").Create(ctx, bind("none", "Role", "none", object{"kind": "User", "name": "dev"}), metav1.CreateOptions{}))
	cm := dev.Resource(configMaps).Namespace("shop")
	must(t)(cm.Get(ctx, "a", metav1.GetOptions{}))
	_, err := cm.Get(ctx, "b", metav1.GetOptions{})
	const want = `configmaps "b" is forbidden: User "dev" cannot get resource "configmaps" in API group "" in the namespace "shop": RBAC: role.rbac.authorization.k8s.io "none" not found`
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	if err := d.Resource(bindings).Namespace("shop").Delete(ctx, "one", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := cm.Get(ctx, "a", metav1.GetOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("after the binding went: %v", err)
	}
	must(t)(d.Resource(bindings).Namespace("shop").Create(ctx, bind("view", "ClusterRole", "view", object{"kind": "Group", "name": "system:authenticated"}), metav1.CreateOptions{}))
	must(t)(cm.Get(ctx, "a", metav1.GetOptions{}))
	if _, err := dev.Resource(secrets).Namespace("shop").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("view shows secrets: %v", err)
	}
}

func TestClusterRolesAggregate(t *testing.T) {
	ctx := t.Context()
	c, d := newCluster(t, sim.Options{})
	extra := obj("rbac.authorization.k8s.io/v1", "ClusterRole", "", "mesh-view", object{"rules": []any{object{"apiGroups": []any{"networking.istio.io"}, "resources": []any{"virtualservices"}, "verbs": []any{"get"}}}})
	extra.SetLabels(map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"})
	must(t)(d.Resource(clusterRoles).Create(ctx, extra, metav1.CreateOptions{}))
	for _, name := range []string{"view", "edit", "admin"} {
		u := must(t)(d.Resource(clusterRoles).Get(ctx, name, metav1.GetOptions{}))
		if !strings.Contains(string(must1(json.Marshal(u.Object["rules"]))), "virtualservices") {
			t.Errorf("%s did not take in the new role", name)
		}
	}
	if err := d.Resource(clusterRoles).Delete(ctx, "mesh-view", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	u := must(t)(d.Resource(clusterRoles).Get(ctx, "admin", metav1.GetOptions{}))
	if strings.Contains(string(must1(json.Marshal(u.Object["rules"]))), "virtualservices") {
		t.Error("admin kept the rules of a role that went")
	}
	if n := len(c.Clone().Objects()); n != len(c.Objects()) {
		t.Errorf("a clone has %d objects, expected %d", n, len(c.Objects()))
	}
}

func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestNobodyGrantsWhatTheyDoNotHold(t *testing.T) {
	ctx := t.Context()
	c, d := newCluster(t, sim.Options{})
	all := []any{"create", "get", "update", "patch"}
	must(t)(d.Resource(roles).Namespace("shop").Create(ctx, role("r",
		object{"apiGroups": []any{"rbac.authorization.k8s.io"}, "resources": []any{"roles", "rolebindings"}, "verbs": all},
		object{"apiGroups": []any{""}, "resources": []any{"pods"}, "verbs": []any{"get"}, "resourceNames": []any{"a"}},
	), metav1.CreateOptions{}))
	must(t)(d.Resource(bindings).Namespace("shop").Create(ctx, bind("r", "Role", "r", object{"kind": "User", "name": "dev"}), metav1.CreateOptions{}))
	must(t)(d.Resource(bindings).Namespace("shop").Create(ctx, bind("r2", "Role", "none", object{"kind": "User", "name": "dev"}), metav1.CreateOptions{}))
	dev := clientFor(t, c.ConfigFor(sim.User{Name: "dev", Groups: []string{"developers"}}))
	create := dev.Resource(roles).Namespace("shop").Create
	_, err := create(ctx, role("r3",
		object{"apiGroups": []any{""}, "resources": []any{"pods", "secrets"}, "verbs": []any{"get", "list"}},
		object{"apiGroups": []any{"apps"}, "resources": []any{"deployments"}, "verbs": []any{"*"}},
	), metav1.CreateOptions{})
	const want = `roles.rbac.authorization.k8s.io "r3" is forbidden: user "dev" (groups=["developers" "system:authenticated"]) is attempting to grant RBAC permissions not currently held:
{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}
{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]}
{APIGroups:["apps"], Resources:["deployments"], Verbs:["*"]}; resolution errors: [roles.rbac.authorization.k8s.io "none" not found]`
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	must(t)(create(ctx, role("r4", object{"apiGroups": []any{""}, "resources": []any{"pods"}, "verbs": []any{"get"}, "resourceNames": []any{"a"}}), metav1.CreateOptions{}))
	_, err = dev.Resource(bindings).Namespace("shop").Create(ctx, bind("r5", "ClusterRole", "nope", object{"kind": "User", "name": "dev"}), metav1.CreateOptions{})
	if err == nil || err.Error() != `rolebindings.rbac.authorization.k8s.io "nope" not found` {
		t.Errorf("%v", err)
	}
}

func TestAnApplyThatCreatesIsAuthorizedTwice(t *testing.T) {
	ctx := t.Context()
	c, d := newCluster(t, sim.Options{})
	group := func(name, resource string, verbs ...any) object {
		return object{"apiGroups": []any{name}, "resources": []any{resource}, "resourceNames": []any{"a"}, "verbs": verbs}
	}
	must(t)(d.Resource(roles).Namespace("shop").Create(ctx, role("r",
		group("", "secrets", "patch"), group("", "configmaps", "patch", "create"), group("rbac.authorization.k8s.io", "roles", "patch", "create", "escalate"),
	), metav1.CreateOptions{}))
	must(t)(d.Resource(bindings).Namespace("shop").Create(ctx, bind("r", "Role", "r", object{"kind": "User", "name": "dev"}), metav1.CreateOptions{}))
	dev := clientFor(t, c.ConfigFor(sim.User{Name: "dev"}))
	apply := func(group, resource string, o *unstructured.Unstructured) error {
		gvr := schema.GroupVersionResource{Group: group, Version: "v1", Resource: resource}
		_, err := dev.Resource(gvr).Namespace("shop").Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: "t"})
		return err
	}
	const want = `secrets "a" is forbidden: User "dev" cannot create resource "secrets" in API group "" in the namespace "shop"`
	if err := apply("", "secrets", obj("v1", "Secret", "shop", "a", nil)); err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	if err := apply("", "configmaps", obj("v1", "ConfigMap", "shop", "a", nil)); err != nil {
		t.Error(err)
	}
	more := role("a", object{"apiGroups": []any{"apps"}, "resources": []any{"deployments"}, "verbs": []any{"*"}})
	if err := apply("rbac.authorization.k8s.io", "roles", more); err != nil {
		t.Errorf("escalate on the named role: %v", err)
	}
}

func TestImpersonation(t *testing.T) {
	c, _ := newCluster(t, sim.Options{})
	as := func(cfg *rest.Config, who rest.ImpersonationConfig) *rest.Config {
		out := rest.CopyConfig(cfg)
		out.Impersonate = who
		return out
	}
	self := func(cfg *rest.Config) object {
		code, got := ask(t, cfg, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", object{})
		if code != 201 {
			t.Fatalf("%d %v", code, got)
		}
		return got["status"].(object)["userInfo"].(object)
	}
	got := self(as(c.Config(), rest.ImpersonationConfig{UserName: "system:serviceaccount:shop:default"}))
	groups := []any{"system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"}
	if got["username"] != "system:serviceaccount:shop:default" || !sameJSON(got["groups"], groups) {
		t.Errorf("%v", got)
	}
	dev := c.ConfigFor(sim.User{Name: "dev"})
	code, answer := ask(t, as(dev, rest.ImpersonationConfig{UserName: "bob"}), "GET", "/api/v1/secrets", nil)
	if code != 403 || answer["message"] != `secrets is forbidden: User "dev" cannot impersonate-on:user-info:list resource "secrets" in API group "" at the cluster scope` {
		t.Errorf("%d %v", code, answer["message"])
	}
	code, answer = ask(t, as(c.Config(), rest.ImpersonationConfig{UserName: "bob"}), "GET", "/api/v1/secrets", nil)
	if code != 403 || answer["message"] != `secrets is forbidden: User "bob" cannot list resource "secrets" in API group "" at the cluster scope` {
		t.Errorf("%d %v", code, answer["message"])
	}
}

func sameJSON(a, b any) bool { return string(must1(json.Marshal(a))) == string(must1(json.Marshal(b))) }

func TestTokens(t *testing.T) {
	c, err := sim.New(sim.Options{Anonymous: true})
	if err != nil {
		t.Fatal(err)
	}
	admin := c.ConfigFor(sim.User{Name: "root", Groups: []string{"system:masters"}})
	if code, _ := ask(t, admin, "POST", "/api/v1/namespaces/default/serviceaccounts", object{"metadata": object{"name": "ci"}}); code != 201 {
		t.Fatal(code)
	}
	code, got := ask(t, admin, "POST", "/api/v1/namespaces/default/serviceaccounts/ci/token", object{"spec": object{"expirationSeconds": 10}})
	if code != 422 || got["message"] != `TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 10: may not specify a duration less than 10 minutes` {
		t.Errorf("%d %v", code, got["message"])
	}
	_, got = ask(t, admin, "POST", "/api/v1/namespaces/default/serviceaccounts/ci/token", object{"spec": object{"expirationSeconds": 600}})
	token, _ := got["status"].(object)["token"].(string)
	with := func(token string) *rest.Config {
		cfg := c.Config()
		cfg.BearerToken = token
		return cfg
	}
	review := func(token string, audiences ...any) object {
		code, got := ask(t, admin, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", object{"spec": object{"token": token, "audiences": audiences}})
		if code != 201 {
			t.Fatalf("%d %v", code, got)
		}
		return got["status"].(object)
	}
	if code, got := ask(t, with(token), "GET", "/api/v1/namespaces/default/pods", nil); code != 403 || !strings.Contains(got["message"].(string), "system:serviceaccount:default:ci") {
		t.Errorf("%d %v", code, got["message"])
	}
	if s := review(token); s["authenticated"] != true || s["user"].(object)["username"] != "system:serviceaccount:default:ci" {
		t.Errorf("%v", s)
	}
	if s := review(token, "other"); s["authenticated"] == true || !strings.Contains(s["error"].(string), `is invalid for the target audiences ["other"]`) {
		t.Errorf("%v", s)
	}
	c.Advance(10*time.Minute + 2*time.Minute)
	if code, got := ask(t, with(token), "GET", "/version", nil); code != 401 || got["message"] != "Unauthorized" {
		t.Errorf("an expired token: %d %v", code, got)
	}
	if s := review(token); s["authenticated"] == true || s["error"] != "[invalid bearer token, service account token has expired]" {
		t.Errorf("%v", s)
	}
	if s := review("nobody's"); s["error"] != "invalid bearer token" {
		t.Errorf("%v", s)
	}
	if code, got := ask(t, c.Config(), "GET", "/api", nil); code != 403 || got["message"] != `forbidden: User "system:anonymous" cannot get path "/api"` {
		t.Errorf("without a token: %d %v", code, got["message"])
	}
	c.AddToken("static", sim.User{Name: "dev"})
	if code, _ := ask(t, with("static"), "GET", "/api", nil); code != 200 {
		t.Errorf("a static token: %d", code)
	}
	c.RevokeToken("static")
	if code, _ := ask(t, with("static"), "GET", "/api", nil); code != 401 {
		t.Errorf("a revoked token: %d", code)
	}
}
