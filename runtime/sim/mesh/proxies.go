package mesh

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// Annotations on a pod by which a test steers how its proxy gets on with its
// istiod.
const (
	// AnnotationSync is what is wrong with the proxy: "stale" (it never
	// acknowledges what it was sent), "not-sent" (it was never sent anything),
	// "error" (it refuses its listeners), or "disconnected".
	AnnotationSync = "sim.rutter.dev/sync"
	// AnnotationSyncAfter is the time from a change of configuration until the
	// proxy has acknowledged it, a Go duration; 1s when absent.
	AnnotationSyncAfter = "sim.rutter.dev/sync-after"
)

const defaultSyncAfter = time.Second

// The types of proxies, as istiod calls them (pilot/pkg/model, NodeType).
const (
	TypeSidecar  = "sidecar"
	TypeRouter   = "router"
	TypeWaypoint = "waypoint"
	TypeZtunnel  = "ztunnel"
)

// SyncState is what istiod believes of one type of resources of one proxy
// (pilot/pkg/xds/statusgen.go, debugSyncStatus).
type SyncState string

// The states.
const (
	Synced  SyncState = "SYNCED"
	Stale   SyncState = "STALE"
	NotSent SyncState = "NOT_SENT"
	Refused SyncState = "ERROR"
)

// Proxy is a proxy as the istiod knows it that it is connected to.
type Proxy struct {
	ID        string // NAME.NAMESPACE of its pod
	Name      string
	Namespace string
	Type      string
	Version   string
	Address   string
	Since     time.Time // of the connection
	Resources []Watched // by type
}

// Watched is one type of resources that a proxy subscribed to.
type Watched struct {
	TypeURL string
	State   SyncState
	Sent    string // nonce of the last push; "" when there was none
	Acked   string // nonce that the proxy acknowledged last
	SentAt  time.Time
	Error   string // with Refused
}

const listenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"

// subscriptions are the types of resources by type of proxy; that of an Envoy
// without one.
func subscriptions(proxyType string) []string {
	if proxyType == TypeZtunnel {
		return []string{"type.googleapis.com/istio.security.Authorization", "type.googleapis.com/istio.workload.Address"}
	}
	return []string{
		"type.googleapis.com/envoy.config.cluster.v3.Cluster",
		"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
		listenerType,
		"type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
	}
}

var grPods = schema.GroupResource{Resource: "pods"}

// Proxies are the proxies that are connected to the istiod in a pod, by ID. A
// proxy is connected when its container runs, to one of the ready istiods of
// its revision. Like the methods of a controller it is called with the cluster
// held still (sim.Cluster.View).
func (m *Istiods) Proxies(v sim.View, istiod *unstructured.Unstructured) []Proxy {
	rev := istiod.GetLabels()["istio.io/rev"]
	replicas := readyIstiods(v, istiod.GetNamespace(), rev)
	if !slices.ContainsFunc(replicas, func(p *unstructured.Unstructured) bool { return p.GetName() == istiod.GetName() }) {
		return nil
	}
	var out []Proxy
	for _, pod := range v.List(grPods, "") {
		p, started, ok := proxyOf(pod)
		if !ok || planeOf(pod) != cmp.Or(rev, "default") || pod.GetAnnotations()[AnnotationSync] == "disconnected" {
			continue
		}
		if replicas[spread(string(pod.GetUID()))%uint32(len(replicas))].GetName() != istiod.GetName() { // #nosec G115 -- a handful
			continue
		}
		p.Since = started
		if r := conditionSince(istiod, "Ready"); r.After(started) {
			p.Since = r
		}
		p.Resources = m.watched(v.Now(), pod, p)
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Proxy) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// readyIstiods are the pods of a revision's control plane, by name.
func readyIstiods(v sim.View, namespace, rev string) []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	for _, p := range v.List(grPods, namespace) {
		if l := p.GetLabels(); l["app"] == "istiod" && l["istio.io/rev"] == rev && podReady(p) {
			out = append(out, p)
		}
	}
	return out
}

// watched is the state of all types of resources of a proxy.
func (m *Istiods) watched(now time.Time, pod *unstructured.Unstructured, p Proxy) []Watched {
	fault := pod.GetAnnotations()[AnnotationSync]
	after := defaultSyncAfter
	if d, err := time.ParseDuration(pod.GetAnnotations()[AnnotationSyncAfter]); err == nil {
		after = d
	}
	changed := m.lastChange(p.Namespace)
	pushed := changed
	if p.Since.After(pushed) {
		pushed = p.Since
	}
	var out []Watched
	for _, url := range subscriptions(p.Type) {
		w := Watched{TypeURL: url, SentAt: pushed, Sent: nonce(p.ID, url, pushed)}
		switch {
		case fault == "not-sent", now.Before(p.Since.Add(after)):
			w.State, w.Sent, w.SentAt = NotSent, "", time.Time{}
		case fault == "error" && url == listenerType:
			w.State, w.Acked = Refused, nonce(p.ID, url, p.Since.Add(-time.Second))
			w.Error = "Internal:Error adding/updating listener(s) virtualInbound: simulated refusal\n"
		case fault == "stale", now.Before(pushed.Add(after)):
			w.State, w.Acked = Stale, nonce(p.ID, url, p.Since.Add(-time.Second))
		default:
			w.State, w.Acked = Synced, w.Sent
		}
		out = append(out, w)
	}
	return out
}

func nonce(id, url string, at time.Time) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s|%s|%d", id, url, at.UnixNano()))
	return base64.StdEncoding.EncodeToString(sum[:12])
}

// proxyOf reads a pod's proxy and when its container started; false when it
// has none, or one that does not run.
func proxyOf(pod *unstructured.Unstructured) (Proxy, time.Time, bool) {
	c := proxyContainer(pod)
	if c == nil || pod.GetDeletionTimestamp() != nil {
		return Proxy{}, time.Time{}, false
	}
	started, ok := containerStart(pod, ProxyContainer)
	if !ok {
		return Proxy{}, time.Time{}, false
	}
	image, _ := c["image"].(string)
	ip, _, _ := unstructured.NestedString(pod.Object, "status", "podIP")
	p := Proxy{
		ID: pod.GetName() + "." + pod.GetNamespace(), Name: pod.GetName(), Namespace: pod.GetNamespace(),
		Type: TypeSidecar, Version: ImageVersion(image), Address: ip,
	}
	if pod.GetLabels()["app"] == "ztunnel" {
		p.Type = TypeZtunnel
		return p, started, true
	}
	args, _ := c["args"].([]any)
	for _, a := range args {
		if a == TypeRouter || a == TypeWaypoint {
			p.Type, _ = a.(string)
			break
		}
	}
	return p, started, true
}

// proxyContainer is the pod's proxy, or nil.
func proxyContainer(pod *unstructured.Unstructured) object {
	spec, _ := pod.Object["spec"].(object)
	for _, field := range []string{"initContainers", "containers"} {
		list, _ := spec[field].([]any)
		if i := slices.IndexFunc(list, named(ProxyContainer)); i >= 0 {
			c, _ := list[i].(object)
			return c
		}
	}
	return nil
}

func containerStart(pod *unstructured.Unstructured, name string) (time.Time, bool) {
	status, _ := pod.Object["status"].(object)
	for _, field := range []string{"initContainerStatuses", "containerStatuses"} {
		list, _ := status[field].([]any)
		if i := slices.IndexFunc(list, named(name)); i >= 0 {
			at, _, _ := unstructured.NestedString(list[i].(object), "state", "running", "startedAt")
			t, err := time.Parse(time.RFC3339, at)
			return t, err == nil
		}
	}
	return time.Time{}, false
}

// planeOf is the revision of the control plane that a pod's proxy connects to:
// that of the Service istiod-REV that the proxy is given as an address, or else
// of the revision that injected it.
func planeOf(pod *unstructured.Unstructured) string {
	env, _ := proxyContainer(pod)["env"].([]any)
	for _, x := range env {
		e, _ := x.(object)
		if n := e["name"]; n != "CA_ADDR" && n != "CA_ADDRESS" && n != "XDS_ADDRESS" {
			continue
		}
		address, _ := e["value"].(string)
		host, _, _ := strings.Cut(strings.TrimPrefix(address, "https://"), ".")
		if host == "istiod" {
			return "default"
		}
		if rev, ok := strings.CutPrefix(host, "istiod-"); ok {
			return rev
		}
	}
	return cmp.Or(pod.GetAnnotations()["istio.io/rev"], pod.GetLabels()["istio.io/rev"], "default")
}

// ImageVersion is the version in an image's tag, without its variant.
func ImageVersion(image string) string {
	_, tag, ok := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	if !ok {
		return "unknown"
	}
	tag, _, _ = strings.Cut(tag, "@")
	for _, variant := range []string{"-distroless", "-debug"} {
		tag = strings.TrimSuffix(tag, variant)
	}
	return tag
}

func podReady(pod *unstructured.Unstructured) bool {
	return pod.GetDeletionTimestamp() == nil && !conditionSince(pod, "Ready").IsZero()
}

// conditionSince is when a condition became True; the zero time when it is not.
func conditionSince(obj *unstructured.Unstructured, kind string) time.Time {
	status, _ := obj.Object["status"].(object)
	list, _ := status["conditions"].([]any)
	for _, x := range list {
		c, _ := x.(object)
		if c["type"] == kind && c["status"] == "True" {
			at, _ := c["lastTransitionTime"].(string)
			t, err := time.Parse(time.RFC3339, at)
			if err != nil {
				return time.Unix(0, 0)
			}
			return t
		}
	}
	return time.Time{}
}

// spread spreads text over integers.
func spread(s string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(s)) // a hash never fails to write
	return h.Sum32()
}
