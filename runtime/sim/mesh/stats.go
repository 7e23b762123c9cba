package mesh

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// AnnotationPushErrors on an istiod pod is how many of its pushes fail each
// minute: a whole number.
const AnnotationPushErrors = "sim.rutter.dev/push-errors"

var (
	grIstioGateways   = schema.GroupResource{Group: "networking.istio.io", Resource: "gateways"}
	grVirtualServices = schema.GroupResource{Group: "networking.istio.io", Resource: "virtualservices"}
)

// istiodMetrics is the /metrics of the istiod in a pod.
func (a *Answers) istiodMetrics(v sim.View, pod *unstructured.Unstructured) answer {
	if !podReady(pod) {
		return refused
	}
	return answer{status: http.StatusOK, body: a.istiods.Metrics(v, pod)}
}

// Metrics are the few of an istiod's in Prometheus' text format that say what it
// is, who is connected and whether its pushes arrive (istio.io/istio
// pilot/pkg/xds/monitoring.go, pkg/xds/monitoring.go, pkg/version/stats.go).
// Counters that were never counted up are not there, as with the real one. A
// proxy that refuses its configuration does so once a minute. The cluster is
// held still (sim.Cluster.View).
func (m *Istiods) Metrics(v sim.View, pod *unstructured.Unstructured) string {
	proxies, count, refused := m.Proxies(v, pod), map[string]int{}, 0
	for _, p := range proxies {
		count[p.Version]++
		if slices.ContainsFunc(p.Resources, func(w Watched) bool { return w.State == Refused }) {
			refused++
		}
	}
	var b strings.Builder
	version := planeVersion(pod)
	fmt.Fprintf(&b, "# TYPE istio_build gauge\nistio_build{component=\"pilot\",tag=%q} 1\n", version)
	fmt.Fprintf(&b, "# TYPE pilot_info gauge\npilot_info{version=\"%s-%s-Simulated\"} 1\n", version, strings.Repeat("0", 40))
	fmt.Fprintln(&b, "# TYPE pilot_xds gauge")
	for _, version := range slices.Sorted(maps.Keys(count)) {
		fmt.Fprintf(&b, "pilot_xds{version=%q} %d\n", version, count[version])
	}
	minutes := minutesSince(v.Now(), conditionSince(pod, "Ready"))
	if n := refused * minutes; n > 0 {
		fmt.Fprintf(&b, "# TYPE pilot_total_xds_rejects counter\npilot_total_xds_rejects{type=\"lds\"} %d\n", n)
	}
	fmt.Fprintln(&b, "# TYPE pilot_xds_pushes counter")
	for _, kind := range []string{"cds", "eds", "lds", "rds"} {
		fmt.Fprintf(&b, "pilot_xds_pushes{type=%q} %d\n", kind, len(proxies))
	}
	if rate, err := strconv.Atoi(pod.GetAnnotations()[AnnotationPushErrors]); err == nil && rate*minutes > 0 {
		fmt.Fprintf(&b, "pilot_xds_pushes{type=\"lds_senderr\"} %d\n", rate*minutes)
	}
	return b.String()
}

// minutesSince counts begun minutes.
func minutesSince(now, then time.Time) int {
	if then.IsZero() || now.Before(then) {
		return 0
	}
	return 1 + int(now.Sub(then)/time.Minute)
}

// planeVersion is that of the image of an istiod.
func planeVersion(pod *unstructured.Unstructured) string {
	list, _, _ := unstructured.NestedSlice(pod.Object, "spec", "containers")
	if i := slices.IndexFunc(list, named("discovery")); i >= 0 {
		image, _, _ := unstructured.NestedString(list[i].(object), "image")
		return ImageVersion(image)
	}
	return "unknown"
}

// stats are the few of a proxy's statistics by which one judges it: Envoy's
// server state and refused updates, and Istio's build.
func (a *Answers) stats(v sim.View, pod *unstructured.Unstructured, p Proxy) answer {
	state, rejected := 0, 0
	if !podReady(pod) {
		state = 2 // PRE_INITIALIZING (envoy.admin.v3.ServerInfo.State)
	}
	for _, w := range a.istiods.watched(v.Now(), pod, p) {
		if w.State == Refused {
			rejected = minutesSince(v.Now(), conditionSince(pod, "Ready"))
		}
	}
	return answer{status: http.StatusOK, body: fmt.Sprintf(`# TYPE envoy_server_state gauge
envoy_server_state{} %d
# TYPE envoy_cluster_manager_cds_update_rejected counter
envoy_cluster_manager_cds_update_rejected{} 0
# TYPE envoy_listener_manager_lds_update_rejected counter
envoy_listener_manager_lds_update_rejected{} %d
# TYPE istio_build gauge
istio_build{component="proxy",tag=%q} 1
`, state, rejected, p.Version)}
}
