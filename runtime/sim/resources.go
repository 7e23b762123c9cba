package sim

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// resource describes one served resource: a built-in one, or that of a
// CustomResourceDefinition.
type resource struct {
	group      string
	versions   []string // served, preferred first
	storage    string   // version that objects are stored in
	plural     string
	singular   string
	kind       string
	namespaced bool
	short      []string
	categories []string
	status     bool // has a status subresource
	scale      bool
	createOnly bool // answered, never stored (access reviews)
	crd        *crd // nil for built-in resources
}

func (r *resource) gr() schema.GroupResource {
	return schema.GroupResource{Group: r.group, Resource: r.plural}
}

// stored is the resource in the version that its objects are held in.
func (r *resource) stored() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: r.group, Version: r.storage, Resource: r.plural}
}

func (r *resource) gvk(version string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: r.group, Version: version, Kind: r.kind}
}

func (r *resource) gk() schema.GroupKind { return schema.GroupKind{Group: r.group, Kind: r.kind} }

func (r *resource) serves(version string) bool { return slices.Contains(r.versions, version) }

// returnsDeleted reports whether the deletion of an object is answered with the
// object rather than with a Status (ReturnDeletedObject in the registries of
// Kubernetes).
func (r *resource) returnsDeleted() bool {
	switch r.plural {
	case "pods", "podtemplates", "services", "serviceaccounts", "resourcequotas", "persistentvolumes", "persistentvolumeclaims", "storageclasses":
		return r.crd == nil
	}
	return false
}

// listKind is the kind of a list of the resource's objects.
func (r *resource) listKind() string {
	if r.crd != nil {
		return r.crd.listKind
	}
	return r.kind + "List"
}

// builtinTable lists the built-in resources, one per line: group, versions,
// plural, kind, scope (N namespaced, C cluster), flags (s status, c scale,
// o create-only), short names, categories. Source: the API reference of the
// Kubernetes version that k8s.io/api is pinned to.
const builtinTable = `
- v1 pods Pod N s po all
- v1 services Service N s svc all
- v1 configmaps ConfigMap N - cm -
- v1 secrets Secret N - - -
- v1 serviceaccounts ServiceAccount N - sa -
- v1 namespaces Namespace C s ns -
- v1 nodes Node C s no -
- v1 events Event N - ev -
- v1 endpoints Endpoints N - ep -
- v1 persistentvolumeclaims PersistentVolumeClaim N s pvc -
- v1 persistentvolumes PersistentVolume C s pv -
- v1 replicationcontrollers ReplicationController N sc rc all
- v1 resourcequotas ResourceQuota N s quota -
- v1 limitranges LimitRange N - limits -
- v1 podtemplates PodTemplate N - - -
apps v1 deployments Deployment N sc deploy all
apps v1 replicasets ReplicaSet N sc rs all
apps v1 statefulsets StatefulSet N sc sts all
apps v1 daemonsets DaemonSet N s ds all
apps v1 controllerrevisions ControllerRevision N - - -
batch v1 jobs Job N s - all
batch v1 cronjobs CronJob N s cj all
policy v1 poddisruptionbudgets PodDisruptionBudget N s pdb -
autoscaling v2,v1 horizontalpodautoscalers HorizontalPodAutoscaler N s hpa all
rbac.authorization.k8s.io v1 roles Role N - - -
rbac.authorization.k8s.io v1 rolebindings RoleBinding N - - -
rbac.authorization.k8s.io v1 clusterroles ClusterRole C - - -
rbac.authorization.k8s.io v1 clusterrolebindings ClusterRoleBinding C - - -
admissionregistration.k8s.io v1 mutatingwebhookconfigurations MutatingWebhookConfiguration C - - api-extensions
admissionregistration.k8s.io v1 validatingwebhookconfigurations ValidatingWebhookConfiguration C - - api-extensions
admissionregistration.k8s.io v1 validatingadmissionpolicies ValidatingAdmissionPolicy C s - api-extensions
admissionregistration.k8s.io v1 validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding C - - api-extensions
coordination.k8s.io v1 leases Lease N - - -
discovery.k8s.io v1 endpointslices EndpointSlice N - - -
networking.k8s.io v1 ingresses Ingress N s ing -
networking.k8s.io v1 ingressclasses IngressClass C - - -
networking.k8s.io v1 networkpolicies NetworkPolicy N - netpol -
scheduling.k8s.io v1 priorityclasses PriorityClass C - pc -
storage.k8s.io v1 storageclasses StorageClass C - sc -
events.k8s.io v1 events Event N - ev -
authorization.k8s.io v1 selfsubjectaccessreviews SelfSubjectAccessReview C o - -
authorization.k8s.io v1 subjectaccessreviews SubjectAccessReview C o - -
authorization.k8s.io v1 localsubjectaccessreviews LocalSubjectAccessReview N o - -
authorization.k8s.io v1 selfsubjectrulesreviews SelfSubjectRulesReview C o - -
authentication.k8s.io v1 tokenreviews TokenReview C o - -
authentication.k8s.io v1 selfsubjectreviews SelfSubjectReview C o - -
apiextensions.k8s.io v1 customresourcedefinitions CustomResourceDefinition C s crd,crds api-extensions
`

// builtins parses the table of built-in resources.
func builtins() []*resource {
	var out []*resource
	for line := range strings.Lines(builtinTable) {
		f := strings.Fields(line)
		if len(f) != 8 {
			continue
		}
		list := func(s string) []string {
			if s == "-" {
				return nil
			}
			return strings.Split(s, ",")
		}
		r := &resource{
			versions: strings.Split(f[1], ","), plural: f[2], kind: f[3],
			namespaced: f[4] == "N", short: list(f[6]), categories: list(f[7]),
			status: strings.Contains(f[5], "s"), scale: strings.Contains(f[5], "c"), createOnly: strings.Contains(f[5], "o"),
		}
		if f[0] != "-" {
			r.group = f[0]
		}
		r.singular, r.storage = strings.ToLower(r.kind), r.versions[0]
		out = append(out, r)
	}
	return out
}

// registry is the set of served resources.
type registry struct {
	byName map[schema.GroupResource]*resource
	byKind map[schema.GroupKind]*resource
	order  []*resource // built-ins in table order, then CRDs in order of establishment
}

func newRegistry() *registry {
	r := &registry{byName: map[schema.GroupResource]*resource{}, byKind: map[schema.GroupKind]*resource{}}
	for _, b := range builtins() {
		r.add(b)
	}
	return r
}

func (r *registry) add(x *resource) {
	if old := r.byName[x.gr()]; old != nil {
		r.drop(old)
	}
	r.byName[x.gr()], r.byKind[x.gk()] = x, x
	r.order = append(r.order, x)
}

func (r *registry) drop(x *resource) {
	delete(r.byName, x.gr())
	delete(r.byKind, x.gk())
	r.order = slices.DeleteFunc(r.order, func(o *resource) bool { return o == x })
}

// groupServed reports whether a group has a served resource.
func (r *registry) groupServed(name string) bool {
	return slices.ContainsFunc(r.order, func(x *resource) bool { return x.group == name })
}

// groups lists the served groups in order with their versions, preferred first.
func (r *registry) groups() ([]string, map[string][]string) {
	var names []string
	versions := map[string][]string{}
	for _, x := range r.order {
		if _, ok := versions[x.group]; !ok {
			names = append(names, x.group)
		}
		for _, v := range x.versions {
			if !slices.Contains(versions[x.group], v) {
				versions[x.group] = append(versions[x.group], v)
			}
		}
	}
	for _, n := range names {
		slices.SortStableFunc(versions[n], func(a, b string) int { return compareVersions(b, a) })
	}
	return names, versions
}
