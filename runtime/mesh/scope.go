package mesh

import (
	"path"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/cluster"
)

// Selector selects objects for a backup of the mesh.
type Selector struct {
	Group     string   // API group; "" is the core group
	Resources []string // plural names; empty means every resource of the group that can be listed
	Names     []string // patterns as of path.Match; empty means any
	Labels    []string // label keys of which one must be there; empty means any
	Type      string   // of a Secret; "" means any
	Sensitive bool     // to be encrypted or refused
	Why       string
}

// istioGroups are the API groups whose objects are mesh configuration.
var istioGroups = []string{
	"networking.istio.io", "security.istio.io", "telemetry.istio.io", "extensions.istio.io",
	"install.istio.io", "gateway.networking.k8s.io",
}

// ownership marks an object that an Istio install made.
var ownership = []string{"install.operator.istio.io/owning-resource", "operator.istio.io/component", LabelRev, LabelTag}

// BackupScope is what makes up a mesh (GUIDE §3 "Back up"): selectors are
// alternatives, an object that any of them selects belongs to it.
func BackupScope() []Selector {
	scope := make([]Selector, 0, 16)
	for _, g := range istioGroups {
		scope = append(scope, Selector{Group: g, Why: "mesh configuration"})
	}
	return append(
		scope,
		Selector{Group: "apiextensions.k8s.io", Resources: []string{"customresourcedefinitions"}, Names: []string{"*.istio.io", "*.gateway.networking.k8s.io"}, Why: "schemas and stored versions"},
		Selector{Group: "admissionregistration.k8s.io", Resources: []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations"}, Names: []string{"istio*", "istiod*"}, Why: "injection, tags and validation"},
		Selector{Group: "admissionregistration.k8s.io", Resources: []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations"}, Labels: ownership, Why: "injection, tags and validation"},
		Selector{Resources: []string{"configmaps"}, Names: []string{"istio*"}, Why: "mesh and injector configuration"},
		Selector{Resources: []string{"secrets"}, Names: []string{"cacerts", "istio-ca-secret", "istio-remote-secret-*"}, Sensitive: true, Why: "CA and remote clusters"},
		Selector{Resources: []string{"secrets"}, Type: "kubernetes.io/tls", Sensitive: true, Why: "gateway certificates"},
		Selector{Resources: []string{"secrets"}, Type: "helm.sh/release.v1", Sensitive: true, Why: "Helm release records"},
		Selector{Resources: []string{"services", "serviceaccounts"}, Labels: ownership, Why: "the install"},
		Selector{Group: "apps", Resources: []string{"deployments", "daemonsets"}, Labels: ownership, Why: "the install"},
		Selector{Group: "rbac.authorization.k8s.io", Labels: ownership, Why: "the install"},
		Selector{Group: "autoscaling", Resources: []string{"horizontalpodautoscalers"}, Labels: ownership, Why: "the install"},
		Selector{Group: "policy", Resources: []string{"poddisruptionbudgets"}, Labels: ownership, Why: "the install"},
		Selector{Resources: []string{"namespaces"}, Labels: []string{LabelInjection, LabelRev, "istio.io/dataplane-mode"}, Why: "injection labels"},
	)
}

// Selects reports whether s selects an object of the given resource.
func (s Selector) Selects(res cluster.Resource, o *cluster.Object) bool {
	if s.Group != res.GVR.Group || len(s.Resources) > 0 && !slices.Contains(s.Resources, res.GVR.Resource) {
		return false
	}
	if s.Type != "" && o.Object["type"] != s.Type {
		return false
	}
	return s.selects(o.GetName(), o.GetLabels())
}

func (s Selector) selects(name string, labels map[string]string) bool {
	if len(s.Names) > 0 && !slices.ContainsFunc(s.Names, func(p string) bool {
		ok, err := path.Match(p, name)
		return err == nil && ok
	}) {
		return false
	}
	return len(s.Labels) == 0 || slices.ContainsFunc(s.Labels, func(k string) bool {
		_, ok := labels[k]
		return ok
	})
}

// Covers reports whether some object of the resource may be in the scope, so
// that a backup knows what to list.
func (s Selector) Covers(res cluster.Resource) bool {
	return s.Group == res.GVR.Group && (len(s.Resources) == 0 || slices.Contains(s.Resources, res.GVR.Resource))
}

// IsMeshConfig reports whether an object configures the mesh: an Istio or
// Gateway API resource, its schema, an injection or validation webhook, or the
// mesh and injector ConfigMaps. labels may be nil where they are not known.
func IsMeshConfig(ref cluster.Ref, labels map[string]string) bool {
	if slices.Contains(istioGroups, ref.Group) {
		return true
	}
	owned := slices.ContainsFunc(ownership, func(k string) bool { _, ok := labels[k]; return ok })
	switch ref.Kind {
	case "CustomResourceDefinition":
		return strings.HasSuffix(ref.Name, ".istio.io") || strings.HasSuffix(ref.Name, ".gateway.networking.k8s.io")
	case "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration":
		return owned || strings.HasPrefix(ref.Name, "istio")
	case "ConfigMap":
		return ref.Group == "" && (ref.Name == "istio" || strings.HasPrefix(ref.Name, "istio-"))
	}
	return false
}
