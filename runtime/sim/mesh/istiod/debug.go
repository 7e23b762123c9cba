package istiod

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/mesh"
)

var grPods = schema.GroupResource{Resource: "pods"}

// clusterID is how istiod calls the cluster that it is in unless it is told
// another name.
const clusterID = "Kubernetes"

// handler answers what istiod's monitoring and HTTP ports have in common; the
// real one has /ready on 8080 only and /metrics and /version on 15014 only,
// which nobody depends on.
func (p *Pods) handler() http.Handler {
	mux := http.NewServeMux()
	on := func(path string, local bool, f func(w http.ResponseWriter, r *http.Request, pod *unstructured.Unstructured, proxies []mesh.Proxy)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			to, _ := r.Context().Value(origin{}).(address)
			if local && to.outside && r.Header.Get("Authorization") == "" {
				// pilot/pkg/xds/debug.go, allowAuthenticatedOrLocalhost
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			pod, proxies, _ := p.self(to)
			if pod == nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			f(w, r, pod, proxies)
		})
	}
	on("/version", false, func(w http.ResponseWriter, _ *http.Request, pod *unstructured.Unstructured, _ []mesh.Proxy) {
		write(w, []byte(version(pod).String()))
	})
	on("/ready", false, ready)
	on("/metrics", false, p.metrics)
	on("/debug/syncz", true, syncz)
	on("/debug/connections", true, connections)
	return mux
}

func write(w http.ResponseWriter, b []byte) {
	_, err := w.Write(b)
	_ = err // the client is gone: there is nobody left to tell
}

func writeJSON(w http.ResponseWriter, r *http.Request, v any) {
	b, err := json.Marshal(v)
	if r.URL.Query().Has("pretty") {
		b, err = json.MarshalIndent(v, "", "  ")
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	write(w, b)
}

// ready answers 200 as soon as the pod is ready.
func ready(w http.ResponseWriter, _ *http.Request, pod *unstructured.Unstructured, _ []mesh.Proxy) {
	conditions, _, _ := unstructured.NestedSlice(pod.Object, "status", "conditions")
	for _, x := range conditions {
		if c, _ := x.(map[string]any); c["type"] == "Ready" && c["status"] == "True" {
			w.WriteHeader(http.StatusOK)
			return
		}
	}
	w.WriteHeader(http.StatusServiceUnavailable)
}

// metrics are what the monitoring port says of the istiod.
func (p *Pods) metrics(w http.ResponseWriter, _ *http.Request, pod *unstructured.Unstructured, _ []mesh.Proxy) {
	text := ""
	p.view(func(v sim.View) { text = p.istiods.Metrics(v, pod) })
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	write(w, []byte(text))
}

// syncStatus is one entry of /debug/syncz (pilot/pkg/xds/debug.go, SyncStatus).
type syncStatus struct {
	ClusterID     string                    `json:"cluster_id,omitempty"`
	ProxyID       string                    `json:"proxy,omitempty"`
	ProxyType     string                    `json:"proxy_type,omitempty"`
	IstioVersion  string                    `json:"istio_version,omitempty"`
	ClusterSent   string                    `json:"cluster_sent,omitempty"`
	ClusterAcked  string                    `json:"cluster_acked,omitempty"`
	ListenerSent  string                    `json:"listener_sent,omitempty"`
	ListenerAcked string                    `json:"listener_acked,omitempty"`
	RouteSent     string                    `json:"route_sent,omitempty"`
	RouteAcked    string                    `json:"route_acked,omitempty"`
	EndpointSent  string                    `json:"endpoint_sent,omitempty"`
	EndpointAcked string                    `json:"endpoint_acked,omitempty"`
	Resources     map[string]resourceStatus `json:"resources,omitempty"`
}

type resourceStatus struct {
	Sent      string    `json:"sent,omitempty"`
	Acked     string    `json:"acked,omitempty"`
	SentTime  time.Time `json:"sentTime"`
	LastError string    `json:"lastError,omitempty"`
}

func syncz(w http.ResponseWriter, r *http.Request, _ *unstructured.Unstructured, proxies []mesh.Proxy) {
	namespace := r.URL.Query().Get("namespace")
	out := []syncStatus{}
	for _, p := range proxies {
		if namespace != "" && p.Namespace != namespace {
			continue
		}
		s := syncStatus{ClusterID: clusterID, ProxyID: p.ID, ProxyType: p.Type, IstioVersion: p.Version, Resources: map[string]resourceStatus{}}
		for _, res := range p.Resources {
			s.Resources[res.TypeURL] = resourceStatus{Sent: res.Sent, Acked: res.Acked, SentTime: res.SentAt, LastError: res.Error}
			switch res.TypeURL {
			case "type.googleapis.com/envoy.config.cluster.v3.Cluster":
				s.ClusterSent, s.ClusterAcked = res.Sent, res.Acked
			case "type.googleapis.com/envoy.config.listener.v3.Listener":
				s.ListenerSent, s.ListenerAcked = res.Sent, res.Acked
			case "type.googleapis.com/envoy.config.route.v3.RouteConfiguration":
				s.RouteSent, s.RouteAcked = res.Sent, res.Acked
			case "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment":
				s.EndpointSent, s.EndpointAcked = res.Sent, res.Acked
			}
		}
		out = append(out, s)
	}
	writeJSON(w, r, out)
}

// adsClients is the answer of /debug/connections.
type adsClients struct {
	Total     int         `json:"totalClients"`
	Connected []adsClient `json:"clients,omitempty"`
}

type adsClient struct {
	ConnectionID string    `json:"connectionId"`
	ConnectedAt  time.Time `json:"connectedAt"`
	PeerAddress  string    `json:"address"`
}

func connections(w http.ResponseWriter, r *http.Request, _ *unstructured.Unstructured, proxies []mesh.Proxy) {
	out := adsClients{Total: len(proxies)}
	for i, p := range proxies {
		out.Connected = append(out.Connected, adsClient{fmt.Sprintf("%s-%d", p.ID, i+1), p.Since, p.Address + ":40000"})
	}
	writeJSON(w, r, out)
}
