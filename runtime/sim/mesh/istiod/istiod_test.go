package istiod_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	status "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/runtime/sim/mesh/istiod"
	"rutter.dev/rutter/runtime/sim/streams"
)

const objects = `
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {conditions: [{type: Ready, status: "True"}], allocatable: {cpu: "8", memory: 8Gi, pods: "99"}}
---
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: istiod-1, namespace: istio-system, labels: {app: istiod, istio.io/rev: default}}
spec: {containers: [{name: discovery, image: "docker.io/istio/pilot:1.30.3-distroless"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, annotations: {istio.io/rev: default, sim.rutter.dev/sync: error}}
spec: {containers: [{name: app, image: "web:1"}, {name: istio-proxy, image: "docker.io/istio/proxyv2:1.29.0", args: [proxy, sidecar]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: edge-1, namespace: shop, annotations: {istio.io/rev: default}}
spec: {containers: [{name: istio-proxy, image: "docker.io/istio/proxyv2:1.30.3", args: [proxy, router]}]}
`

// start makes a cluster with an istiod and returns what connects to the ports
// of that one's pod.
func start(t *testing.T) func(ctx context.Context, port int) (net.Conn, error) {
	t.Helper()
	istiods := mesh.NewIstiods()
	c, err := sim.New(sim.Options{Controllers: append(controllers.All(), istiods.Controllers()...)})
	if err != nil {
		t.Fatal(err)
	}
	objs, err := sim.ReadObjects(strings.NewReader(objects), "objects")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Load(objs); err != nil {
		t.Fatal(err)
	}
	c.Advance(time.Minute)
	pods, err := istiod.New(c, istiods)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pods.Close(); err != nil {
			t.Error(err)
		}
	})
	var pod *unstructured.Unstructured
	for _, o := range c.Objects() {
		if o.GetName() == "istiod-1" {
			pod = o
		}
	}
	return func(ctx context.Context, port int) (net.Conn, error) { return pods.Dial(ctx, pod, port) }
}

func get(t *testing.T, dial func(context.Context, int) (net.Conn, error), port int, path string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, port) },
	}}
	res, err := client.Get("http://istiod" + path)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestMonitoringPort(t *testing.T) {
	dial := start(t)
	if code, body := get(t, dial, 15014, "/version"); code != 200 || !strings.HasPrefix(body, "1.30.3-") {
		t.Errorf("/version: %d %s", code, body)
	}
	if code, _ := get(t, dial, 8080, "/ready"); code != 200 {
		t.Errorf("/ready: %d", code)
	}
	if code, body := get(t, dial, 15014, "/metrics"); code != 200 || !strings.Contains(body, `pilot_xds{version="1.29.0"} 1`) {
		t.Errorf("/metrics: %d %s", code, body)
	}
	if code, _ := get(t, dial, 15014, "/none"); code != 404 {
		t.Errorf("/none: %d", code)
	}
	if code, body := get(t, dial, 15014, "/debug/connections"); code != 200 || !strings.Contains(body, `"totalClients":2`) {
		t.Errorf("/debug/connections: %d %s", code, body)
	}
	if _, err := dial(t.Context(), 9999); err == nil {
		t.Error("something listens on port 9999")
	}
	type entry struct {
		Proxy     string `json:"proxy"`
		Type      string `json:"proxy_type"`
		Version   string `json:"istio_version"`
		Sent      string `json:"listener_sent"`
		Acked     string `json:"listener_acked"`
		Resources map[string]struct{ LastError string }
	}
	_, body := get(t, dial, 15014, "/debug/syncz?namespace=shop")
	var all []entry
	if err := json.Unmarshal([]byte(body), &all); err != nil || len(all) != 2 {
		t.Fatalf("/debug/syncz: %v: %s", err, body)
	}
	edge, web := all[0], all[1]
	if edge.Proxy != "edge-1.shop" || edge.Type != "router" || edge.Version != "1.30.3" || edge.Sent == "" || edge.Sent != edge.Acked {
		t.Errorf("a synchronized gateway: %+v", edge)
	}
	if web.Type != "sidecar" || web.Sent == web.Acked || web.Resources["type.googleapis.com/envoy.config.listener.v3.Listener"].LastError == "" {
		t.Errorf("a sidecar that refuses its listeners: %+v", web)
	}
	if _, body := get(t, dial, 15014, "/debug/syncz?namespace=other"); body != "[]" {
		t.Errorf("of a namespace without proxies: %s", body)
	}
}

func ask(t *testing.T, dial func(context.Context, int) (net.Conn, error), port int, creds credentials.TransportCredentials, token string) (*discovery.DiscoveryResponse, error) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:istiod", grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, port) }))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx := t.Context()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// istioctl's first request has a nonce, although there was no answer.
	err = stream.Send(&discovery.DiscoveryRequest{TypeUrl: "istio.io/debug/syncz", Node: &core.Node{Id: "x"}, ResponseNonce: "now"})
	if err != nil {
		t.Fatal(err)
	}
	return stream.Recv()
}

func TestXDSPort(t *testing.T) {
	dial := start(t)
	secure := credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}) //nolint:gosec // as istioctl does
	if _, err := ask(t, dial, 15012, secure, ""); grpcstatus.Code(err) != codes.Unauthenticated {
		t.Errorf("without a token: %v", err)
	}
	if _, err := ask(t, dial, 15010, insecure.NewCredentials(), "token"); grpcstatus.Code(err) != codes.Unauthenticated {
		t.Errorf("without TLS: %v", err)
	}
	res, err := ask(t, dial, 15012, secure, "token")
	if err != nil {
		t.Fatal(err)
	}
	if id := res.GetControlPlane().GetIdentifier(); !strings.Contains(id, `"Component":"istiod","ID":"istiod-1"`) || !strings.Contains(id, `"version":"1.30.3"`) {
		t.Errorf("control plane %s", id)
	}
	var got []string
	for _, any := range res.Resources {
		cc := &status.ClientConfig{}
		if err := any.UnmarshalTo(cc); err != nil {
			t.Fatal(err)
		}
		for _, g := range cc.GenericXdsConfigs {
			got = append(got, fmt.Sprint(cc.Node.Id, " ", cc.Node.Metadata.Fields["ISTIO_VERSION"].GetStringValue(), " ", g.TypeUrl[strings.LastIndex(g.TypeUrl, ".")+1:], " ", g.ConfigStatus))
		}
	}
	want := []string{
		"edge-1.shop 1.30.3 Cluster SYNCED", "edge-1.shop 1.30.3 ClusterLoadAssignment SYNCED", "edge-1.shop 1.30.3 Listener SYNCED", "edge-1.shop 1.30.3 RouteConfiguration SYNCED",
		"web-1.shop 1.29.0 Cluster SYNCED", "web-1.shop 1.29.0 ClusterLoadAssignment SYNCED", "web-1.shop 1.29.0 Listener ERROR", "web-1.shop 1.29.0 RouteConfiguration SYNCED",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestDebugIsForTheLocalhost(t *testing.T) {
	istiods := mesh.NewIstiods()
	c, err := sim.New(sim.Options{Controllers: append(controllers.All(), istiods.Controllers()...)})
	if err != nil {
		t.Fatal(err)
	}
	objs, err := sim.ReadObjects(strings.NewReader(objects), "objects")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Load(objs); err != nil {
		t.Fatal(err)
	}
	c.Advance(time.Minute)
	pods, err := istiod.New(c, istiods)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pods.Close() }()
	c.OnConnect(streams.New(pods))
	client := &http.Client{Transport: c.Config().Transport}
	for path, want := range map[string]int{"version": 200, "debug/syncz": 401} {
		res, err := client.Get("http://sim.invalid/api/v1/namespaces/istio-system/pods/istiod-1:15014/proxy/" + path)
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != want {
			t.Errorf("%s through the API server: %d, want %d", path, res.StatusCode, want)
		}
	}
}
