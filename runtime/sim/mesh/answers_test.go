package mesh_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// ask sends a GET through the API server's proxy.
func ask(t *testing.T, c *sim.Cluster, what, host string) (status int, body string, header http.Header) {
	t.Helper()
	path, query, _ := strings.Cut(what, " ")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://sim.invalid/api/v1/namespaces/"+path+"/proxy"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := c.Config().Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if cerr := resp.Body.Close(); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	return resp.StatusCode, string(b), resp.Header
}

const routes = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gateways.networking.istio.io}
spec:
  group: networking.istio.io
  scope: Namespaced
  names: {kind: Gateway, listKind: GatewayList, plural: gateways, singular: gateway}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
---
apiVersion: v1
kind: Namespace
metadata: {name: bank}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: more, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {hosts: [to.example.com], port: {name: http-to, number: 80, protocol: HTTP}, tls: {httpsRedirect: true}}
  - {hosts: ["*/bare.example.com", gone.example.com, idle.example.com], port: {name: http-more, number: 80, protocol: HTTP}}
  - {hosts: [safe.example.com], port: {name: https, number: 443, protocol: HTTPS}, tls: {mode: SIMPLE}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: gone, namespace: shop}
spec: {hosts: [gone.example.com], gateways: [more], http: [{route: [{destination: {host: nowhere.shop.svc.cluster.local}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: idle, namespace: bank}
spec: {hosts: [idle.example.com], gateways: [shop/more], http: [{route: [{destination: {host: idle.shop.svc.cluster.local}}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: idle, namespace: shop}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: shop}
spec: {hosts: ["*.example.com"], gateways: [public], http: [{route: [{destination: {host: istiod.istio-system.svc.cluster.local}}]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers: [{hosts: [shop.example.com], port: {name: http, number: 80, protocol: HTTP}}]
`

func TestAnswersOfGateways(t *testing.T) {
	objs, err := sim.ReadObjects(strings.NewReader(routes), "routes")
	if err != nil {
		t.Fatal(err)
	}
	c, istiods, _ := alive(t, objs...)
	c.OnConnect(mesh.NewAnswers(istiods, nil))
	route(t, c)
	const gw = "istio-system/services/istio-ingressgateway"
	for host, want := range map[string]int{
		"shop.example.com": 200, "SHOP.example.com:8080": 200, "other.example.com": 404, "to.example.com": 301, "bare.example.com": 404,
		"gone.example.com": 503, "idle.example.com": 503,
	} {
		if got, body, header := ask(t, c, gw+":80 /", host); got != want || header.Get("Rutter-Assumed") != "" {
			t.Errorf("%s: got %d %s, want %d", host, got, body, want)
		}
	}
	for what, want := range map[string]string{
		pod(t, c, "istio", "ingressgateway") + ":443 /": "connection reset by peer",
		pod(t, c, "app", "istiod") + ":15012 /":         "connection refused",
		pod(t, c, "app", "istiod") + ":15014 /debug":    "connection refused",
		gw + ":9999 /": "no service port",
		"istio-system/services/https:istio-ingressgateway:80 /": "connection refused",
	} {
		if got, body, _ := ask(t, c, what, ""); got != 503 || !strings.Contains(body, want) || !strings.Contains(body, `"kind":"Status"`) {
			t.Errorf("%s: got %d %s", what, got, body)
		}
	}
	c.OnConnect(mesh.NewAnswers(istiods, nil).Assuming())
	if got, _, header := ask(t, c, gw+":80 /", "other.example.com"); got != 404 || header.Get("Rutter-Assumed") == "" {
		t.Errorf("assuming: got %d, %v", got, header)
	}
	if got, _, header := ask(t, c, pod(t, c, "istio", "ingressgateway")+":15021 /healthz/ready", ""); got != 200 || header.Get("Rutter-Assumed") != "" {
		t.Errorf("readiness: got %d, %v", got, header)
	}
}

func TestStatistics(t *testing.T) {
	c, istiods, _ := alive(t)
	c.OnConnect(mesh.NewAnswers(istiods, nil))
	istiod := pod(t, c, "app", "istiod") + ":15014 /metrics"
	_, text, _ := ask(t, c, istiod, "")
	for _, want := range []string{`istio_build{component="pilot",tag="1.30.3"} 1`, `pilot_xds{version="1.30.3"}`, `pilot_xds_pushes{type="lds"}`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, "rejects") || strings.Contains(text, "senderr") {
		t.Errorf("a mesh without faults has errors:\n%s", text)
	}
	for _, o := range c.Objects() {
		if o.GetKind() == "Pod" && o.GetLabels()["istio"] == "ingressgateway" {
			annotate(t, c, o, mesh.AnnotationSync, "error")
		}
		if o.GetKind() == "Pod" && o.GetLabels()["app"] == "istiod" {
			annotate(t, c, o, mesh.AnnotationPushErrors, "2")
		}
	}
	_, before, _ := ask(t, c, istiod, "")
	c.Advance(time.Minute)
	_, after, _ := ask(t, c, istiod, "")
	for _, want := range []string{`pilot_total_xds_rejects{type="lds"}`, `pilot_xds_pushes{type="lds_senderr"}`} {
		if !strings.Contains(after, want) || line(before, want) == line(after, want) {
			t.Errorf("%s: before %q, after %q", want, line(before, want), line(after, want))
		}
	}
	_, stats, _ := ask(t, c, pod(t, c, "istio", "ingressgateway")+":15020 /stats/prometheus", "")
	for _, want := range []string{"envoy_server_state{} 0", `istio_build{component="proxy",tag="1.30.3"} 1`, "envoy_listener_manager_lds_update_rejected{} "} {
		if !strings.Contains(stats, want) || strings.Contains(stats, "lds_update_rejected{} 0") {
			t.Errorf("no %s, or nothing refused, in\n%s", want, stats)
		}
	}
}

// route makes the ingress gateway's proxy a router, which the small manifest
// leaves out.
func route(t *testing.T, c *sim.Cluster) {
	t.Helper()
	d := find(t, c, "Deployment", mesh.SystemNamespace, "istio-ingressgateway").DeepCopy()
	containers, _, _ := unstructured.NestedSlice(d.Object, "spec", "template", "spec", "containers")
	containers[0].(map[string]any)["args"] = []any{"proxy", "router"}
	if err := unstructured.SetNestedSlice(d.Object, containers, "spec", "template", "spec", "containers"); err != nil {
		t.Fatal(err)
	}
	if err := c.Load([]*unstructured.Unstructured{d}); err != nil {
		t.Fatal(err)
	}
	c.Advance(3 * time.Minute)
}

// pod is the path of the first pod with a label in istio-system.
func pod(t *testing.T, c *sim.Cluster, label, value string) string {
	t.Helper()
	for _, o := range c.Objects() {
		if o.GetKind() == "Pod" && o.GetNamespace() == mesh.SystemNamespace && o.GetLabels()[label] == value {
			return "istio-system/pods/" + o.GetName()
		}
	}
	t.Fatalf("no pod %s=%s", label, value)
	return ""
}

func line(text, begin string) string {
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, begin) {
			return l
		}
	}
	return ""
}

// annotate sets an annotation on a stored object.
func annotate(t *testing.T, c *sim.Cluster, o *unstructured.Unstructured, key, value string) {
	t.Helper()
	o = o.DeepCopy()
	a := o.GetAnnotations()
	if a == nil {
		a = map[string]string{}
	}
	a[key] = value
	o.SetAnnotations(a)
	if err := c.Load([]*unstructured.Unstructured{o}); err != nil {
		t.Fatal(err)
	}
}
