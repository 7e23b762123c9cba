package mesh

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/sim"
)

// AnnotationAnswers is how a pod answers probes, whatever it would say by
// itself: an HTTP status for what a gateway serves, or "refused" where nothing
// listens in it any more though it counts as ready.
const AnnotationAnswers = "sim.rutter.dev/answers"

// The ports of a proxy and of an istiod that are asked over HTTP.
const (
	portStatus     = 15021
	portStats      = 15020
	portEnvoyStats = 15090
	portMonitoring = 15014
)

// Answers is what a GET through the API server's proxy gets from the proxies,
// gateways and istiods of a simulated mesh: readiness, statistics, and what a
// gateway's routes lead to. Everything that it says follows from the objects
// of the cluster and the annotations by which a test steers them. It does not
// know authorization policies, matches on paths or headers, nor TLS. Safe for
// concurrent use.
type Answers struct {
	istiods *Istiods
	next    sim.Connector
	assume  bool // see Assuming
}

// NewAnswers makes the answers of the meshes that the istiods serve. What is
// not such a GET goes to next; nil refuses it.
func NewAnswers(istiods *Istiods, next sim.Connector) *Answers {
	return &Answers{istiods: istiods, next: next}
}

// Assuming makes them the answers in a twin: those for hosts of gateways are
// marked as assumed (cluster.HeaderAssumed), since the twin knows neither all
// that routes can say nor what the applications behind them do.
func (a *Answers) Assuming() *Answers {
	return &Answers{istiods: a.istiods, next: a.next, assume: true}
}

// answer is what a port gave; refusal is why there is nothing.
type answer struct {
	status  int
	body    string
	refusal string
	routed  bool // it came from a gateway's routes
}

// refused is what a port gives on which nothing listens.
var refused = answer{refusal: "connection refused"}

// Connect implements sim.Connector.
func (a *Answers) Connect(w http.ResponseWriter, r *http.Request, to sim.Connection) {
	out, known := refused, false
	if to.Subresource == "proxy" && r.Method == http.MethodGet && to.Scheme != "https" {
		to.View(func(v sim.View) { out, known = a.ask(v, to, hostOf(r)) })
	}
	switch {
	case !known && a.next != nil:
		a.next.Connect(w, r, to)
	case out.refusal != "":
		ip, _, _ := unstructured.NestedString(to.Pod.Object, "status", "podIP")
		// k8s.io/apimachinery pkg/util/proxy, Transport.RoundTrip
		st := apierrors.NewServiceUnavailable(fmt.Sprintf("error trying to reach service: dial tcp %s:%d: connect: %s", ip, to.Port, out.refusal)).Status()
		st.Kind, st.APIVersion = "Status", "v1"
		b, err := json.Marshal(st)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		send(w, "application/json", http.StatusServiceUnavailable, b)
	default:
		if out.routed && a.assume {
			w.Header().Set(cluster.HeaderAssumed, "true")
		}
		send(w, "text/plain; charset=utf-8", out.status, []byte(out.body))
	}
}

func send(w http.ResponseWriter, contentType string, status int, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, err := w.Write(body)
	_ = err // the client is gone: there is nobody left to tell
}

// hostOf is the host that is asked for, without a port.
func hostOf(r *http.Request) string {
	host, _, _ := strings.Cut(r.Host, ":")
	return strings.ToLower(host)
}

// ask is what the pod's port answers; false for what no part of a mesh listens
// on.
func (a *Answers) ask(v sim.View, to sim.Connection, host string) (answer, bool) {
	pod := to.Pod
	steered := pod.GetAnnotations()[AnnotationAnswers]
	proxy, _, proxied := proxyOf(pod)
	istiod := pod.GetLabels()["app"] == "istiod" && to.Port == portMonitoring && strings.Trim(to.Path, "/") == "metrics"
	switch {
	case !istiod && !proxied:
		return refused, false
	case steered == "refused":
		return refused, true
	case istiod:
		return a.istiodMetrics(v, pod), true
	case to.Port == portStatus:
		if strings.Trim(to.Path, "/") != "healthz/ready" {
			return answer{status: http.StatusNotFound}, true
		}
		return readiness(pod), true
	case to.Port == portStats, to.Port == portEnvoyStats:
		return a.stats(v, pod, proxy), true
	case proxy.Type != TypeRouter:
		return refused, false
	}
	out := gatewayAnswer(v, pod, to.Port, host)
	if status, err := strconv.Atoi(steered); err == nil && out.refusal == "" {
		out = answer{status: status, body: "simulated\n"}
	}
	out.routed = true
	return out, true
}

func readiness(pod *unstructured.Unstructured) answer {
	if podReady(pod) {
		return answer{status: http.StatusOK}
	}
	return answer{status: http.StatusServiceUnavailable}
}

// gatewayAnswer is what a gateway's proxy answers on a port for a host.
func gatewayAnswer(v sim.View, pod *unstructured.Unstructured, port int, host string) answer {
	ports := servicePorts(v, pod, port)
	if gw := pod.GetLabels()[labelGatewayName]; gw != "" {
		return listenerAnswer(v, v.Get(grGateways, pod.GetNamespace(), gw), ports, host)
	}
	out := refused
	for _, gw := range v.List(grIstioGateways, "") {
		selector, _, _ := unstructured.NestedStringMap(gw.Object, "spec", "selector")
		if !selects(selector, pod) {
			continue
		}
		servers, _, _ := unstructured.NestedSlice(gw.Object, "spec", "servers")
		for _, x := range servers {
			s, _ := x.(object)
			p, _ := s["port"].(object)
			if number, _ := p["number"].(int64); !slices.Contains(ports, int(number)) {
				continue
			}
			if tls := p["protocol"] == "HTTPS" || p["protocol"] == "TLS"; tls {
				out = answer{refusal: "connection reset by peer"}
				continue
			}
			if out.status == 0 {
				out = answer{status: http.StatusNotFound}
			}
			if !slices.ContainsFunc(texts(s["hosts"]), func(h string) bool { return covers(h[strings.Index(h, "/")+1:], host) }) {
				continue
			}
			if redirect, _, _ := unstructured.NestedBool(s, "tls", "httpsRedirect"); redirect {
				return answer{status: http.StatusMovedPermanently}
			}
			if to := routed(v, gw, host); to != nil {
				return backendAnswer(v, to.GetNamespace(), destination(to))
			}
		}
	}
	return out
}

// servicePorts are a pod's port and the ports of the Services that lead to it.
func servicePorts(v sim.View, pod *unstructured.Unstructured, port int) []int {
	out := []int{port}
	for _, svc := range v.List(grServices, pod.GetNamespace()) {
		selector, _, _ := unstructured.NestedStringMap(svc.Object, "spec", "selector")
		if len(selector) == 0 || !selects(selector, pod) {
			continue
		}
		list, _, _ := unstructured.NestedSlice(svc.Object, "spec", "ports")
		for _, x := range list {
			p, _ := x.(object)
			number, _ := p["port"].(int64)
			target, given := p["targetPort"].(int64) // gateways have numbers, no names
			if !given {
				target = number
			}
			if int(target) == port {
				out = append(out, int(number))
			}
		}
	}
	return out
}

func selects(selector map[string]string, pod *unstructured.Unstructured) bool {
	return labels.SelectorFromSet(selector).Matches(labels.Set(pod.GetLabels()))
}

func texts(x any) (out []string) {
	list, _ := x.([]any)
	for _, e := range list {
		if s, ok := e.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// covers reports whether a host of a gateway or route, which may begin with a
// star, is that of the request.
func covers(pattern, host string) bool {
	if rest, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(host, rest)
	}
	return pattern == host
}

// routed is the VirtualService that a gateway's requests for the host follow.
func routed(v sim.View, gw *unstructured.Unstructured, host string) *unstructured.Unstructured {
	for _, vs := range v.List(grVirtualServices, "") {
		spec, _ := vs.Object["spec"].(object)
		bound := slices.ContainsFunc(texts(spec["gateways"]), func(g string) bool {
			ns, name, full := strings.Cut(g, "/")
			if !full {
				ns, name = vs.GetNamespace(), g
			}
			return ns == gw.GetNamespace() && name == gw.GetName()
		})
		if bound && slices.ContainsFunc(texts(spec["hosts"]), func(h string) bool { return covers(h, host) }) {
			return vs
		}
	}
	return nil
}

// destination is the host of a VirtualService's first route.
func destination(vs *unstructured.Unstructured) string {
	routes, _, _ := unstructured.NestedSlice(vs.Object, "spec", "http")
	for _, x := range routes {
		r, _ := x.(object)
		to, _ := r["route"].([]any)
		for _, y := range to {
			d, _ := y.(object)
			host, _, _ := unstructured.NestedString(d, "destination", "host")
			return host
		}
	}
	return ""
}

// listenerAnswer is that of a Gateway of the Gateway API.
func listenerAnswer(v sim.View, gw *unstructured.Unstructured, ports []int, host string) answer {
	if gw == nil {
		return refused
	}
	listeners, _, _ := unstructured.NestedSlice(gw.Object, "spec", "listeners")
	out := refused
	for _, x := range listeners {
		l, _ := x.(object)
		if number, _ := l["port"].(int64); !slices.Contains(ports, int(number)) {
			continue
		}
		if l["protocol"] != "HTTP" {
			return answer{refusal: "connection reset by peer"}
		}
		out = answer{status: http.StatusNotFound}
		name, _ := l["hostname"].(string)
		if name != "" && !covers(name, host) {
			continue
		}
		for _, r := range v.List(grRoutes, "") {
			hosts, _, _ := unstructured.NestedStringSlice(r.Object, "spec", "hostnames")
			if !parented(r, gw, l) || len(hosts) > 0 && !slices.ContainsFunc(hosts, func(h string) bool { return covers(h, host) }) {
				continue
			}
			ns, to := backendOf(r)
			return backendAnswer(v, ns, to)
		}
	}
	return out
}

// parented reports whether an HTTPRoute names the Gateway, and this listener or
// none, as its parent.
func parented(route, gw *unstructured.Unstructured, listener object) bool {
	parents, _, _ := unstructured.NestedSlice(route.Object, "spec", "parentRefs")
	return slices.ContainsFunc(parents, func(x any) bool {
		p, _ := x.(object)
		ns, _ := p["namespace"].(string)
		return first(ns, route.GetNamespace()) == gw.GetNamespace() && p["name"] == gw.GetName() && (p["sectionName"] == nil || p["sectionName"] == listener["name"])
	})
}

// backendOf is the Service of an HTTPRoute's first rule.
func backendOf(route *unstructured.Unstructured) (namespace, name string) {
	rules, _, _ := unstructured.NestedSlice(route.Object, "spec", "rules")
	for _, x := range rules {
		r, _ := x.(object)
		refs, _ := r["backendRefs"].([]any)
		for _, y := range refs {
			b, _ := y.(object)
			ns, _ := b["namespace"].(string)
			name, _ = b["name"].(string)
			return first(ns, route.GetNamespace()), name
		}
	}
	return route.GetNamespace(), ""
}

// backendAnswer is what comes back from a Service, named short or in full.
func backendAnswer(v sim.View, namespace, host string) answer {
	parts := strings.Split(host, ".")
	if len(parts) > 1 {
		namespace = parts[1]
	}
	svc := v.Get(grServices, namespace, parts[0])
	switch {
	case svc == nil:
		return answer{status: http.StatusServiceUnavailable}
	case !hasEndpoints(v, svc):
		return answer{status: http.StatusServiceUnavailable, body: "no healthy upstream"}
	}
	return answer{status: http.StatusOK, body: "simulated\n"}
}
