package mesh

import (
	"cmp"
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/kinds"
)

// Istiods are the istiods of one simulated cluster: what they write into it by
// themselves, and what they remember of its configuration. They remember only
// what the real ones have in memory, so that a cluster reloaded from disk is
// one whose istiods were started again.
//
// It is called by the cluster's controllers and by functions that are given to
// sim.Cluster.View. Clones of the cluster have the same controllers, and so the
// same istiods: safe for concurrent use, but what these know of configuration is
// then what any of the clusters last had.
type Istiods struct {
	mu      sync.Mutex
	seen    map[configKey]*unstructured.Unstructured
	changed map[string]time.Time // last change by the namespace that it matters to; "" is all
}

type configKey struct {
	gr              schema.GroupResource
	namespace, name string
}

// NewIstiods makes the istiods of one cluster.
func NewIstiods() *Istiods {
	return &Istiods{seen: map[configKey]*unstructured.Unstructured{}, changed: map[string]time.Time{}}
}

// Controllers are what the istiods do in the cluster, to be added to the
// controllers of Kubernetes.
func (m *Istiods) Controllers() []sim.Controller {
	return []sim.Controller{istiodWebhooks{}, istiodRoots{}, istiodConfig{m}, istiodClasses{}, istiodGateways{}, ambientCNI{}}
}

// Manager is istiod's field manager: the name of its binary, which client-go
// makes one of.
const Manager = "pilot-discovery"

var (
	grNamespaces = schema.GroupResource{Resource: "namespaces"}
	grServices   = schema.GroupResource{Resource: "services"}
	grConfigMaps = schema.GroupResource{Resource: "configmaps"}
	grSecrets    = schema.GroupResource{Resource: "secrets"}
	grMutating   = schema.GroupResource{Group: "admissionregistration.k8s.io", Resource: "mutatingwebhookconfigurations"}
	grValidating = schema.GroupResource{Group: "admissionregistration.k8s.io", Resource: "validatingwebhookconfigurations"}
)

// retryDelay is how long istiod waits after a refused write.
const retryDelay = time.Second

// istiodWebhooks writes into the webhook configurations of a revision what its
// istiod writes: its CA bundle, and, once its endpoint is ready to reject,
// failurePolicy Fail for validation (pkg/webhooks/webhookpatch.go and
// pkg/webhooks/validation/controller of istio.io/istio).
type istiodWebhooks struct{}

// Name implements sim.Controller.
func (istiodWebhooks) Name() string { return "istiod-webhooks" }

// Manager names the field manager of its writes.
func (istiodWebhooks) Manager() string { return Manager }

// Watches implements sim.Controller.
func (istiodWebhooks) Watches() []schema.GroupResource {
	return []schema.GroupResource{grMutating, grValidating, grPods}
}

// Sync implements sim.Controller.
func (c istiodWebhooks) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	if gr != grPods {
		return c.patch(w, gr, w.Get(gr, "", name))
	}
	pod := w.Get(gr, namespace, name)
	if pod == nil || pod.GetLabels()["app"] != "istiod" || !podReady(pod) {
		return 0
	}
	again := time.Duration(0)
	for _, gr := range []schema.GroupResource{grMutating, grValidating} {
		for _, cfg := range w.List(gr, "") {
			again = max(again, c.patch(w, gr, cfg))
		}
	}
	return again
}

func (istiodWebhooks) patch(w sim.World, gr schema.GroupResource, cfg *unstructured.Unstructured) time.Duration {
	if cfg == nil || cfg.GetLabels()["istio.io/rev"] == "" || cfg.GetDeletionTimestamp() != nil {
		return 0
	}
	namespace := webhookNamespace(cfg)
	if len(readyIstiods(w, namespace, cfg.GetLabels()["istio.io/rev"])) == 0 {
		return 0
	}
	ca := caBundle(w, namespace)
	next := cfg.DeepCopy()
	hooks, _ := next.Object["webhooks"].([]any)
	for _, x := range hooks {
		h, _ := x.(object)
		name, _ := h["name"].(string)
		if gr == grMutating && !strings.HasSuffix(name, "sidecar-injector.istio.io") {
			continue
		}
		client, _ := h["clientConfig"].(object)
		if client == nil {
			continue
		}
		client["caBundle"] = ca
		if gr == grValidating {
			h["failurePolicy"] = "Fail"
		}
	}
	if kinds.Equal(next.Object, cfg.Object) {
		return 0
	}
	if err := w.Update(next); err != nil {
		return retryDelay
	}
	return 0
}

// webhookNamespace is the namespace of the istiod behind a configuration.
func webhookNamespace(cfg *unstructured.Unstructured) string {
	hooks, _ := cfg.Object["webhooks"].([]any)
	for _, x := range hooks {
		if ns, _, _ := unstructured.NestedString(x.(object), "clientConfig", "service", "namespace"); ns != "" {
			return ns
		}
	}
	return SystemNamespace
}

// rootCertificate is the mesh's root certificate in PEM, as far as the
// simulated cluster has one: that of the Secret of the self-signed CA.
func rootCertificate(v sim.View, namespace string) string {
	if s := v.Get(grSecrets, namespace, "istio-ca-secret"); s != nil {
		encoded, _, _ := unstructured.NestedString(s.Object, "data", "ca-cert.pem")
		if text, err := base64.StdEncoding.DecodeString(encoded); err == nil {
			return string(text)
		}
	}
	return "simulated root certificate of the mesh\n"
}

func caBundle(v sim.View, namespace string) string {
	return base64.StdEncoding.EncodeToString([]byte(rootCertificate(v, namespace)))
}

// istiodRoots keeps the ConfigMap with the mesh's root certificate in every
// namespace (pilot/pkg/serviceregistry/kube/controller, namespace controller).
type istiodRoots struct{}

const rootConfigMap = "istio-ca-root-cert"

// Name implements sim.Controller.
func (istiodRoots) Name() string { return "istiod-roots" }

// Manager names the field manager of its writes.
func (istiodRoots) Manager() string { return Manager }

// Watches implements sim.Controller.
func (istiodRoots) Watches() []schema.GroupResource {
	return []schema.GroupResource{grNamespaces, grConfigMaps, grPods}
}

// Sync implements sim.Controller.
func (c istiodRoots) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	switch gr {
	case grNamespaces:
		return c.sync(w, name)
	case grConfigMaps:
		if name == rootConfigMap {
			return c.sync(w, namespace)
		}
	case grPods:
		pod := w.Get(gr, namespace, name)
		if pod == nil || pod.GetLabels()["app"] != "istiod" || !podReady(pod) {
			return 0
		}
		again := time.Duration(0)
		for _, ns := range w.List(grNamespaces, "") {
			again = max(again, c.sync(w, ns.GetName()))
		}
		return again
	}
	return 0
}

// withoutRoot are the namespaces that istiod leaves alone
// (pkg/util/inject, IgnoredNamespaces).
var withoutRoot = []string{"kube-system", "kube-public", "kube-node-lease", "local-path-storage"}

func (istiodRoots) sync(w sim.World, namespace string) time.Duration {
	ns := w.Get(grNamespaces, "", namespace)
	if ns == nil || ns.GetDeletionTimestamp() != nil || slices.Contains(withoutRoot, namespace) || !anyIstiod(w) {
		return 0
	}
	want := object{"root-cert.pem": rootCertificate(w, SystemNamespace)}
	old := w.Get(grConfigMaps, namespace, rootConfigMap)
	if old == nil {
		_, err := w.Create(&unstructured.Unstructured{Object: object{
			"apiVersion": "v1", "kind": "ConfigMap", "data": want,
			"metadata": object{"name": rootConfigMap, "namespace": namespace, "labels": object{"istio.io/config": "true"}},
		}})
		if err != nil {
			return retryDelay
		}
		return 0
	}
	if kinds.Equal(old.Object["data"], want) {
		return 0
	}
	next := old.DeepCopy()
	next.Object["data"] = want
	if err := w.Update(next); err != nil {
		return retryDelay
	}
	return 0
}

// anyIstiod reports whether a control plane is ready.
func anyIstiod(v sim.View) bool {
	return slices.ContainsFunc(v.List(grPods, SystemNamespace), func(p *unstructured.Unstructured) bool {
		return p.GetLabels()["app"] == "istiod" && podReady(p)
	})
}

// istiodConfig notices changes of configuration, which istiod pushes to the
// proxies that they matter to.
type istiodConfig struct{ m *Istiods }

// Name implements sim.Controller.
func (istiodConfig) Name() string { return "istiod-config" }

// configKinds are the resources that istiod computes proxies' configuration
// from; the value says whether one matters to the proxies of its own namespace
// only (those that select workloads), unless it is in the root namespace.
func configKinds() map[schema.GroupResource]bool {
	out := map[schema.GroupResource]bool{grServices: false}
	add := func(group string, local bool, resources ...string) {
		for _, r := range resources {
			out[schema.GroupResource{Group: group, Resource: r}] = local
		}
	}
	add("networking.istio.io", false, "destinationrules", "envoyfilters", "gateways", "serviceentries", "virtualservices", "workloadentries")
	add("networking.istio.io", true, "sidecars", "proxyconfigs")
	add("security.istio.io", true, "authorizationpolicies", "peerauthentications", "requestauthentications")
	add("telemetry.istio.io", true, "telemetries")
	add("extensions.istio.io", true, "wasmplugins")
	add("gateway.networking.k8s.io", false, "gateways", "httproutes", "grpcroutes", "tlsroutes", "tcproutes")
	return out
}

// Watches implements sim.Controller.
func (istiodConfig) Watches() []schema.GroupResource {
	out := []schema.GroupResource{grConfigMaps}
	for gr := range configKinds() {
		out = append(out, gr)
	}
	slices.SortFunc(out, func(a, b schema.GroupResource) int { return cmp.Compare(a.String(), b.String()) })
	return out
}

// Sync implements sim.Controller.
func (c istiodConfig) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	local, known := configKinds()[gr]
	if gr == grConfigMaps && (name == "istio" || strings.HasPrefix(name, "istio-")) && namespace == SystemNamespace && name != rootConfigMap {
		known = true // the mesh's own configuration
	}
	if !known {
		return 0
	}
	k, now := configKey{gr, namespace, name}, w.Get(gr, namespace, name)
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	before, old := c.m.seen[k]
	if now == nil {
		delete(c.m.seen, k)
	} else {
		c.m.seen[k] = now
	}
	if old != (now != nil) || (old && meaning(before, now)) {
		scope := ""
		if local && namespace != SystemNamespace {
			scope = namespace
		}
		c.m.changed[scope] = w.Now()
	}
	return 0
}

// meaning reports whether two states of an object differ in what istiod reads.
func meaning(a, b *unstructured.Unstructured) bool {
	for _, field := range []string{"spec", "data"} {
		if !kinds.Equal(a.Object[field], b.Object[field]) {
			return true
		}
	}
	return !maps.Equal(a.GetLabels(), b.GetLabels())
}

// lastChange is when configuration changed last that matters to the proxies of
// a namespace; the zero time when it has not since istiod started.
func (m *Istiods) lastChange(namespace string) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.changed[namespace]; t.After(m.changed[""]) {
		return t
	}
	return m.changed[""]
}
