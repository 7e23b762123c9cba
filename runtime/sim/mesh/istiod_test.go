package mesh_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// alive is a small mesh whose istiods do what real ones do.
func alive(t *testing.T, more ...*unstructured.Unstructured) (*sim.Cluster, *mesh.Istiods, client) {
	t.Helper()
	spec := mesh.Default()
	spec.Workloads, spec.Namespaces, spec.NoSidecar = 4, 2, 0
	istiods := mesh.NewIstiods()
	c, err := sim.New(sim.Options{
		Seed: spec.Seed, Injector: mesh.StubInjector{}, InjectOnLoad: true,
		Controllers: append(controllers.All(), istiods.Controllers()...),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := mesh.Populate(c, append(mesh.Build(spec, small(t)), more...)); err != nil {
		t.Fatal(err)
	}
	c.Advance(time.Minute)
	return c, istiods, newClient(t, c)
}

func find(t *testing.T, c *sim.Cluster, kind, namespace, name string) *unstructured.Unstructured {
	t.Helper()
	for _, o := range c.Objects() {
		if o.GetKind() == kind && o.GetNamespace() == namespace && o.GetName() == name {
			return o
		}
	}
	return nil
}

// managersOf lists the field managers of an object with what they did.
func managersOf(o *unstructured.Unstructured) []string {
	var out []string
	for _, m := range o.GetManagedFields() {
		out = append(out, strings.TrimSuffix(m.Manager+" "+string(m.Operation)+" "+m.Subresource, " "))
	}
	return out
}

func TestIstiodMakesItsWebhooksWork(t *testing.T) {
	hook := decode(t, strings.ReplaceAll(validator, "failurePolicy: Fail", "failurePolicy: Ignore"))
	hook.SetLabels(map[string]string{"istio.io/rev": "default"})
	foreign := hook.DeepCopy()
	foreign.SetName("foreign")
	foreign.SetLabels(map[string]string{"istio.io/rev": "other"})
	c, _, cl := alive(t, hook, foreign)
	read := func(name string) (policy, ca string) {
		o := find(t, c, "ValidatingWebhookConfiguration", "", name)
		hooks, _, _ := unstructured.NestedSlice(o.Object, "webhooks")
		h := hooks[0].(map[string]any)
		ca, _, _ = unstructured.NestedString(h, "clientConfig", "caBundle")
		policy, _ = h["failurePolicy"].(string)
		return policy, ca
	}
	if policy, ca := read(hook.GetName()); policy != "Fail" || ca == "" {
		t.Errorf("the webhook of a ready istiod: failurePolicy %s, CA bundle %q", policy, ca)
	}
	if policy, ca := read("foreign"); policy != "Ignore" || ca != "" {
		t.Errorf("the webhook of another revision: failurePolicy %s, CA bundle %q", policy, ca)
	}
	injector := find(t, c, "MutatingWebhookConfiguration", "", "istio-sidecar-injector")
	if got := managersOf(injector); !slices.Contains(got, mesh.Manager+" Update") || !slices.Contains(got, mesh.InstallManager+" Apply") {
		t.Errorf("the injector's configuration is managed by %v", got)
	}
	// Whoever takes the bundle away gets it back.
	put(t, c, func() *unstructured.Unstructured {
		o := find(t, c, "ValidatingWebhookConfiguration", "", hook.GetName())
		o.Object["webhooks"].([]any)[0].(map[string]any)["failurePolicy"] = "Ignore"
		return o
	}())
	c.Advance(time.Second)
	if policy, _ := read(hook.GetName()); policy != "Fail" {
		t.Errorf("istiod left failurePolicy %s", policy)
	}
	// Its root certificate comes to every new namespace.
	ns := decode(t, "{apiVersion: v1, kind: Namespace, metadata: {name: late}}")
	if _, err := cl.resource(ns).Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.Advance(time.Second)
	root := find(t, c, "ConfigMap", "late", "istio-ca-root-cert")
	if root == nil {
		t.Fatal("the new namespace has no root certificate")
	}
	if a, b := root.Object["data"], find(t, c, "ConfigMap", mesh.SystemNamespace, "istio-ca-root-cert").Object["data"]; fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("root certificates %v and %v", a, b)
	}
}

// states are the proxies of all istiods and the states of their resources.
func states(t *testing.T, c *sim.Cluster, istiods *mesh.Istiods) map[string]string {
	t.Helper()
	out := map[string]string{}
	c.View(func(v sim.View) {
		for _, pod := range v.List(schema.GroupResource{Resource: "pods"}, mesh.SystemNamespace) {
			if pod.GetLabels()["app"] != "istiod" {
				continue
			}
			for _, p := range istiods.Proxies(v, pod) {
				var all []string
				for _, r := range p.Resources {
					all = append(all, string(r.State))
				}
				if _, twice := out[p.ID]; twice {
					t.Errorf("%s is connected twice", p.ID)
				}
				out[p.ID] = strings.Join(slices.Compact(all), " ")
			}
		}
	})
	return out
}

// annotated sets an annotation on a pod.
func annotated(t *testing.T, c *sim.Cluster, o *unstructured.Unstructured, key, value string) {
	t.Helper()
	notes := o.GetAnnotations()
	notes[key] = value
	o.SetAnnotations(notes)
	o.SetResourceVersion("")
	put(t, c, o)
}

func TestProxiesFollowConfiguration(t *testing.T) {
	c, istiods, cl := alive(t)
	all := states(t, c, istiods)
	if len(all) < 5 {
		t.Fatalf("connected: %v", all)
	}
	for id, state := range all {
		if state != "SYNCED" {
			t.Errorf("%s is %s", id, state)
		}
	}
	var pods []*unstructured.Unstructured
	for _, o := range c.Objects() {
		if _, ok := all[o.GetName()+"."+o.GetNamespace()]; ok && o.GetKind() == "Pod" && o.GetNamespace() == "shop" {
			pods = append(pods, o)
		}
	}
	id := func(i int) string { return pods[i].GetName() + ".shop" }
	annotated(t, c, pods[0], mesh.AnnotationSyncAfter, "30s")
	dr := decode(t, strings.ReplaceAll(rule, "cold", "shop"))
	if _, err := cl.resource(dr).Create(t.Context(), dr, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := states(t, c, istiods); got[id(0)] != "STALE" || got[id(1)] != "STALE" {
		t.Errorf("just after a change: %v", got)
	}
	c.Advance(2 * time.Second)
	if got := states(t, c, istiods); got[id(0)] != "STALE" || got[id(1)] != "SYNCED" {
		t.Errorf("2 s after a change: %v", got)
	}
	c.Advance(30 * time.Second)
	if got := states(t, c, istiods); got[id(0)] != "SYNCED" {
		t.Errorf("32 s after a change: %v", got)
	}
	for value, want := range map[string]string{
		"stale": "STALE", "not-sent": "NOT_SENT", "error": "SYNCED ERROR SYNCED", "disconnected": "",
	} {
		annotated(t, c, find(t, c, "Pod", "shop", pods[1].GetName()), mesh.AnnotationSync, value)
		if got := states(t, c, istiods)[id(1)]; got != want {
			t.Errorf("%s: %s, want %s", value, got, want)
		}
	}
	// Without a control plane nobody is connected.
	for _, o := range c.Objects() {
		if o.GetKind() == "Deployment" && o.GetName() == "istiod" {
			o.Object["spec"].(map[string]any)["replicas"] = int64(0)
			put(t, c, o)
		}
	}
	c.Advance(time.Minute)
	if got := states(t, c, istiods); len(got) != 0 {
		t.Errorf("connected to nobody: %v", got)
	}
}

const publicGateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: NAME, namespace: shop, labels: {team: web}}
spec:
  gatewayClassName: CLASS
  listeners: [{name: one, port: 80, protocol: HTTP}]
`

func TestGatewaysRun(t *testing.T) {
	c, istiods, cl := alive(t, manifest(t, filepath.Join("testdata", "gateway-api.yaml"))...)
	// An istiod that serves ambient has a class for waypoints too.
	if find(t, c, "GatewayClass", "", "istio") == nil || find(t, c, "GatewayClass", "", "istio-waypoint") != nil {
		t.Fatal("without ambient istiod makes the class istio alone")
	}
	d := find(t, c, "Deployment", mesh.SystemNamespace, "istiod")
	list, _, _ := unstructured.NestedSlice(d.Object, "spec", "template", "spec", "containers")
	list[0].(map[string]any)["env"] = []any{map[string]any{"name": "PILOT_ENABLE_AMBIENT", "value": "true"}}
	if err := unstructured.SetNestedSlice(d.Object, list, "spec", "template", "spec", "containers"); err != nil {
		t.Fatal(err)
	}
	put(t, c, d)
	c.Advance(time.Minute)
	if o := find(t, c, "GatewayClass", "", "istio-waypoint"); o == nil || conditionStatus(o, "Accepted") != "True" {
		t.Fatalf("the class of waypoints: %v", o)
	}
	for _, g := range []struct{ name, class, made, service, role string }{
		{"public", "istio", "public-istio", "LoadBalancer", mesh.TypeRouter},
		{"waypoint", "istio-waypoint", "waypoint", "ClusterIP", mesh.TypeWaypoint},
	} {
		gw := decode(t, strings.NewReplacer("NAME", g.name, "CLASS", g.class).Replace(publicGateway))
		if _, err := cl.resource(gw).Create(t.Context(), gw, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if o := find(t, c, "Gateway", "shop", g.name); conditionStatus(o, "Accepted") != "True" || conditionStatus(o, "Programmed") != "False" {
			t.Errorf("%s before its pod is ready: %v", g.name, o.Object["status"])
		}
		c.Advance(time.Minute)
		if o := find(t, c, "Gateway", "shop", g.name); conditionStatus(o, "Programmed") != "True" || o.Object["status"].(map[string]any)["addresses"] == nil {
			t.Errorf("%s: %v", g.name, o.Object["status"])
		}
		made := find(t, c, "Deployment", "shop", g.made)
		if made == nil || find(t, c, "ServiceAccount", "shop", g.made) == nil {
			t.Fatalf("%s: no Deployment and ServiceAccount %s", g.name, g.made)
		}
		if got := managersOf(made); !slices.Contains(got, "istio.io/gateway-controller Apply") {
			t.Errorf("%s is managed by %v", g.made, got)
		}
		svc := find(t, c, "Service", "shop", g.made)
		if kind, _, _ := unstructured.NestedString(svc.Object, "spec", "type"); kind != g.service {
			t.Errorf("%s: a Service of type %s", g.name, kind)
		}
		var proxies []mesh.Proxy
		c.View(func(v sim.View) {
			for _, pod := range v.List(schema.GroupResource{Resource: "pods"}, mesh.SystemNamespace) {
				proxies = append(proxies, istiods.Proxies(v, pod)...)
			}
		})
		i := slices.IndexFunc(proxies, func(p mesh.Proxy) bool { return strings.HasPrefix(p.Name, g.made+"-") })
		if i < 0 || proxies[i].Type != g.role || proxies[i].Version != "1.30.3" {
			t.Errorf("%s is not connected as a %s of the control plane's version: %+v", g.name, g.role, proxies)
		}
	}
	// What was made follows the control plane's configuration.
	cm := find(t, c, "ConfigMap", mesh.SystemNamespace, "istio-sidecar-injector")
	data := cm.Object["data"].(map[string]any)
	data["values"] = strings.ReplaceAll(data["values"].(string), "1.30.3", "1.31.0")
	put(t, c, cm)
	c.Advance(time.Minute)
	list, _, _ = unstructured.NestedSlice(find(t, c, "Deployment", "shop", "waypoint").Object, "spec", "template", "spec", "containers")
	if image := list[0].(map[string]any)["image"]; image != "docker.io/istio/proxyv2:1.31.0" {
		t.Errorf("the waypoint's image is %v", image)
	}
	// It has its Gateway's labels while that has them, and keeps what others give it.
	for _, o := range []*unstructured.Unstructured{find(t, c, "Service", "shop", "waypoint"), find(t, c, "Gateway", "shop", "waypoint")} {
		labels := o.GetLabels()
		labels["of-"+strings.ToLower(o.GetKind())] = "yes"
		o.SetLabels(labels)
		put(t, c, o)
	}
	c.Advance(time.Minute)
	if got := find(t, c, "Service", "shop", "waypoint").GetLabels(); got["of-gateway"] != "yes" || got["of-service"] != "yes" {
		t.Errorf("the Service of a labelled Gateway has the labels %v", got)
	}
	waypoint := find(t, c, "Gateway", "shop", "waypoint")
	unlabelled := waypoint.GetLabels()
	delete(unlabelled, "of-gateway")
	waypoint.SetLabels(unlabelled)
	put(t, c, waypoint)
	c.Advance(time.Minute)
	if got := find(t, c, "Service", "shop", "waypoint").GetLabels(); got["of-gateway"] != "" || got["of-service"] != "yes" {
		t.Errorf("once the Gateway lost its label its Service has %v", got)
	}
	// And goes with its Gateway.
	gw := decode(t, strings.NewReplacer("NAME", "public", "CLASS", "istio").Replace(publicGateway))
	if err := cl.resource(gw).Delete(t.Context(), "public", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.Advance(time.Minute)
	if find(t, c, "Deployment", "shop", "public-istio") != nil || find(t, c, "Service", "shop", "public-istio") != nil {
		t.Error("what the Gateway owned is still there")
	}
}

const agents = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: NAME, namespace: istio-system}
spec:
  selector: {matchLabels: {KEY: NAME}}
  template:
    metadata: {labels: {KEY: NAME}}
    spec: {hostNetwork: true, containers: [{name: istio-proxy, image: "docker.io/istio/NAME:1.30.3"}]}
`

func TestAmbientTakesPodsIn(t *testing.T) {
	zt := decode(t, strings.NewReplacer("NAME", "ztunnel", "KEY", "app").Replace(agents))
	cni := decode(t, strings.NewReplacer("NAME", "istio-cni-node", "KEY", "k8s-app").Replace(agents))
	cni.Object["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)["containers"] = []any{map[string]any{"name": "install-cni", "image": "docker.io/istio/install-cni:1.30.3"}}
	ns := decode(t, "{apiVersion: v1, kind: Namespace, metadata: {name: flow, labels: {istio.io/dataplane-mode: ambient}}}")
	pod := func(name, labels string) *unstructured.Unstructured {
		return decode(t, fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: flow, labels: {%s}}, spec: {containers: [{name: app, image: 'web:1'}]}}", name, labels))
	}
	c, istiods, cl := alive(t, zt, ns, pod("in", "app: web"), pod("out", "istio.io/dataplane-mode: none"))
	redirected := func(name string) string {
		return find(t, c, "Pod", "flow", name).GetAnnotations()["ambient.istio.io/redirection"]
	}
	if got := redirected("in"); got != "" {
		t.Errorf("without istio-cni the pod is %q", got)
	}
	if _, err := cl.resource(cni).Create(t.Context(), cni, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.Advance(time.Minute)
	if redirected("in") != "enabled" || redirected("out") != "" {
		t.Errorf("redirection: in %q, out %q", redirected("in"), redirected("out"))
	}
	n := 0
	for id, state := range states(t, c, istiods) {
		if strings.HasPrefix(id, "ztunnel-") && state == "SYNCED" {
			n++
		}
	}
	if n != 3 {
		t.Errorf("%d ztunnels of 3 nodes are connected", n)
	}
	stored := find(t, c, "Namespace", "", "flow")
	stored.SetLabels(map[string]string{"kubernetes.io/metadata.name": "flow"})
	put(t, c, stored)
	c.Advance(time.Second)
	if got := redirected("in"); got != "" {
		t.Errorf("after the namespace left: %q", got)
	}
}
