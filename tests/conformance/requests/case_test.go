// Package requests holds the simulated cluster against a real API server,
// request by request. The cases are tables of requests; each answer is
// normalized (uids, times, resourceVersions, generated names) and written as
// one line a field. The answers of the real server are in testdata/, one file
// a dimension, with the server's version. Decisions of injection are a table of
// their own beside this one, in tests/conformance/injection, because they need
// Istio's code.
//
// An ordinary run sends the cases to the simulated cluster and compares with
// those files. Under the build tag e2e they go to a real server as well, which
// must answer what the files say; with -record it writes them.
//
// Where the two differ for a reason, differences.yaml says so; an entry that
// describes no difference any more fails the run.
package requests

import (
	"slices"
	"strings"
)

// scenario is a case: requests in a namespace of its own.
type scenario struct {
	name  string // dimension/what
	steps []step
	// alone keeps the case from running beside others: it does something to
	// the whole cluster.
	alone bool
}

func (s scenario) dimension() string { return strings.SplitN(s.name, "/", 2)[0] }

// namespace is where the case's objects are. Objects without a namespace
// carry it in their names.
func (s scenario) namespace() string {
	var b strings.Builder
	for _, c := range strings.ToLower(s.name) {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			b.WriteRune(c)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	n := b.String()
	return strings.Trim(n[:min(len(n), 50)], "-")
}

// step is one thing that a case does.
type step interface{ do(r *runner) }

// request is a step that sends one request and records the answer.
type request struct {
	method string
	path   string // PLURAL[/NAME[/SUBRESOURCE]][?QUERY], or literal from the root
	body   string // YAML; $uid(…), $rv(…), $ns and kept values are filled in
	header map[string]string
	raw    bool     // the body goes out as it is
	only   []string // what of the answer is compared; all when empty
	keep   string   // name under which the answer's uid, rv and continue are kept
	poll   []string // conditions to wait for; only the last answer is recorded
	gone   bool     // wait for 404
}

func verb(method, path, body string, header map[string]string) *request {
	return &request{method: method, path: path, body: body, header: header}
}

func get(path string) *request           { return verb("GET", path, "", nil) }
func create(path, body string) *request  { return verb("POST", path, body, nil) }
func update(path, body string) *request  { return verb("PUT", path, body, nil) }
func del(path string) *request           { return verb("DELETE", path, "", nil) }
func delWith(path, body string) *request { return verb("DELETE", path, body, nil) }
func patchAs(t, path, b string) *request {
	return verb("PATCH", path, b, map[string]string{"Content-Type": t})
}

func merge(path, body string) *request  { return patchAs("application/merge-patch+json", path, body) }
func jsonPatch(path, b string) *request { return patchAs("application/json-patch+json", path, b) }
func strategic(path, b string) *request {
	return patchAs("application/strategic-merge-patch+json", path, b)
}
func until(path string, c ...string) *request { return get(path).until(c...) }

// apply is server-side apply as manager; the path may carry force=true.
func apply(manager, path, body string) *request {
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	return patchAs("application/apply-patch+yaml", path+sep+"fieldManager="+manager, body)
}

// with names what of the answer is compared, as paths.
func (q *request) with(paths ...string) *request { q.only = paths; return q }

// as keeps the answer's uid, resourceVersion and continue token under a name.
func (q *request) as(name string) *request { q.keep = name; return q }

// until repeats the request until the answer meets the conditions
// (PATH=VALUE, PATH!=VALUE, PATH=.PATH; an empty VALUE means absent).
func (q *request) until(conds ...string) *request { q.poll = conds; return q }

// untilGone repeats the request until there is no such object.
func (q *request) untilGone() *request { q.gone = true; return q }

// accepting sets the Accept header.
func (q *request) accepting(t string) *request { return q.heading("Accept", t) }

// verbatim sends the body as it is, in the given content type.
func (q *request) verbatim(contentType string) *request {
	q.raw = true
	return q.heading("Content-Type", contentType)
}

func (q *request) heading(k, v string) *request {
	h := map[string]string{k: v}
	for k, v := range q.header {
		if h[k] == "" {
			h[k] = v
		}
	}
	q.header = h
	return q
}

// kind is what the paths of a resource are made of.
type kind struct {
	plural, apiVersion, kind string
	namespaced               bool
}

func (k kind) root() string {
	base := "/apis/" + k.apiVersion
	if !strings.Contains(k.apiVersion, "/") {
		base = "/api/" + k.apiVersion
	}
	if k.namespaced {
		base += "/namespaces/$ns"
	}
	return base + "/" + k.plural
}

// served are the resources that paths may abbreviate.
var served = []kind{
	{"pods", "v1", "Pod", true},
	{"services", "v1", "Service", true},
	{"configmaps", "v1", "ConfigMap", true},
	{"secrets", "v1", "Secret", true},
	{"serviceaccounts", "v1", "ServiceAccount", true},
	{"endpoints", "v1", "Endpoints", true},
	{"events", "v1", "Event", true},
	{"persistentvolumeclaims", "v1", "PersistentVolumeClaim", true},
	{"replicationcontrollers", "v1", "ReplicationController", true},
	{"resourcequotas", "v1", "ResourceQuota", true},
	{"limitranges", "v1", "LimitRange", true},
	{"podtemplates", "v1", "PodTemplate", true},
	{"namespaces", "v1", "Namespace", false},
	{"nodes", "v1", "Node", false},
	{"persistentvolumes", "v1", "PersistentVolume", false},
	{"deployments", "apps/v1", "Deployment", true},
	{"replicasets", "apps/v1", "ReplicaSet", true},
	{"statefulsets", "apps/v1", "StatefulSet", true},
	{"daemonsets", "apps/v1", "DaemonSet", true},
	{"controllerrevisions", "apps/v1", "ControllerRevision", true},
	{"jobs", "batch/v1", "Job", true},
	{"cronjobs", "batch/v1", "CronJob", true},
	{"poddisruptionbudgets", "policy/v1", "PodDisruptionBudget", true},
	{"horizontalpodautoscalers", "autoscaling/v2", "HorizontalPodAutoscaler", true},
	{"roles", "rbac.authorization.k8s.io/v1", "Role", true},
	{"rolebindings", "rbac.authorization.k8s.io/v1", "RoleBinding", true},
	{"clusterroles", "rbac.authorization.k8s.io/v1", "ClusterRole", false},
	{"clusterrolebindings", "rbac.authorization.k8s.io/v1", "ClusterRoleBinding", false},
	{"mutatingwebhookconfigurations", "admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", false},
	{"validatingwebhookconfigurations", "admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", false},
	{"validatingadmissionpolicies", "admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", false},
	{"validatingadmissionpolicybindings", "admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", false},
	{"leases", "coordination.k8s.io/v1", "Lease", true},
	{"endpointslices", "discovery.k8s.io/v1", "EndpointSlice", true},
	{"ingresses", "networking.k8s.io/v1", "Ingress", true},
	{"ingressclasses", "networking.k8s.io/v1", "IngressClass", false},
	{"networkpolicies", "networking.k8s.io/v1", "NetworkPolicy", true},
	{"priorityclasses", "scheduling.k8s.io/v1", "PriorityClass", false},
	{"storageclasses", "storage.k8s.io/v1", "StorageClass", false},
	{"customresourcedefinitions", "apiextensions.k8s.io/v1", "CustomResourceDefinition", false},
	{"widgets", "conform.rutter.dev/v1", "Widget", true},
	{"gadgets", "conform.rutter.dev/v1", "Gadget", true},
	{"fleets", "conform.rutter.dev/v1", "Fleet", false},
}

func servedKind(plural string) (kind, bool) {
	i := slices.IndexFunc(served, func(k kind) bool { return k.plural == plural })
	if i < 0 {
		return kind{}, false
	}
	return served[i], true
}
