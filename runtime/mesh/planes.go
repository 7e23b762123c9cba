// Package mesh reads what an Istio mesh in a cluster consists of: control
// planes, revision tags, injectors, proxies and their owners; and it holds the
// rules about versions, scope and rollouts that gates and builtins share. It
// reads through cluster.Reader only and links nothing of Istio.
package mesh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
)

// Labels and annotations of Istio that this package goes by (istio.io/api label
// and annotation packages).
const (
	LabelRev          = "istio.io/rev"
	LabelTag          = "istio.io/tag"
	LabelInjection    = "istio-injection"
	LabelPodInject    = "sidecar.istio.io/inject"
	LabelOperator     = "operator.istio.io/version"
	LabelAppVersion   = "app.kubernetes.io/version"
	LabelGatewayName  = "gateway.networking.k8s.io/gateway-name"
	LabelGatewayOwner = "gateway.istio.io/managed"
	AnnotationStatus  = "sidecar.istio.io/status"
	AnnotationImage   = "sidecar.istio.io/proxyImage"

	// DefaultRevision is the revision of an install without one.
	DefaultRevision = "default"
)

var (
	deployments = schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}
	replicaSets = schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "ReplicaSet"}
	pods        = schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	namespaces  = schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}
	webhooks    = schema.GroupVersionKind{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "MutatingWebhookConfiguration"}
)

// ControlPlane is one istiod Deployment.
type ControlPlane struct {
	Ref       cluster.Ref `json:"ref"`
	Namespace string      `json:"namespace"`
	Name      string      `json:"name"`
	Revision  string      `json:"revision"` // "default" for an install without one
	Image     string      `json:"image"`    // of the discovery container
	Version   string      `json:"version"`  // its tag without variant; the labels' version if the tag is none; "" if unknown
	Ready     bool        `json:"ready"`
	Why       string      `json:"why"`      // what kstatus says
	Replicas  int64       `json:"replicas"` // wanted
	Available int64       `json:"available"`
}

// list calls each for every object of a kind; a kind that the server does not
// have has no objects.
func list(ctx context.Context, r cluster.Reader, gvk schema.GroupVersionKind, o cluster.ListOptions, each func(*cluster.Object) error) error {
	res, err := r.ResourceFor(ctx, gvk)
	if errors.Is(err, cluster.ErrNoKind) {
		return nil
	}
	if err != nil {
		return err
	}
	o.Lean = true // nobody here asks who owns a field
	return r.List(ctx, res, o, each)
}

// ControlPlanes lists every istiod, sorted by namespace and name. They carry
// the label app=istiod (charts istio-discovery, deployment.yaml).
func ControlPlanes(ctx context.Context, r cluster.Reader) ([]ControlPlane, error) {
	var out []ControlPlane
	err := list(ctx, r, deployments, cluster.ListOptions{Labels: "app=istiod"}, func(o *cluster.Object) error {
		out = append(out, controlPlane(o))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("control planes: %w", err)
	}
	slices.SortFunc(out, func(a, b ControlPlane) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

func controlPlane(o *cluster.Object) ControlPlane {
	p := ControlPlane{
		Ref: cluster.RefOf(o), Namespace: o.GetNamespace(), Name: o.GetName(),
		Revision: orDefault(o.GetLabels()[LabelRev]),
		Replicas: number(o, 1, "spec", "replicas"), Available: number(o, 0, "status", "availableReplicas"),
	}
	if c := container(o, "discovery", "spec", "template", "spec", "containers"); c != nil {
		p.Image = text(c, "image")
	}
	p.Version = ImageVersion(p.Image)
	if p.Version == "" { // a digest or a private tag
		p.Version = labelVersion(o.GetLabels())
	}
	p.Ready, _, p.Why = cluster.Ready(o)
	return p
}

// labelVersion: istioctl writes app.kubernetes.io/version 1.0.0 from unreleased
// charts, which says nothing.
func labelVersion(l map[string]string) string {
	for _, k := range []string{LabelOperator, LabelAppVersion} {
		if v := l[k]; v != "" && v != "1.0.0" && v != "unknown" && imageTag.MatchString(v) {
			return v
		}
	}
	return ""
}

func orDefault(rev string) string {
	if rev == "" {
		return DefaultRevision
	}
	return rev
}

var imageTag = regexp.MustCompile(`^v?(\d+\.\d+\.\d+(?:-(?:alpha|beta|rc)\.\d+)?)(?:-[\w.-]+)?$`)

// ImageVersion is the Istio version that an image's tag names, without variant
// ("1.31.0-distroless" is 1.31.0); "" if the tag names none.
func ImageVersion(image string) string {
	image, _, _ = strings.Cut(image, "@")
	i := strings.LastIndex(image, ":")
	if i < 0 || strings.Contains(image[i:], "/") {
		return ""
	}
	m := imageTag.FindStringSubmatch(image[i+1:])
	if m == nil {
		return ""
	}
	return m[1]
}

// Injector is one webhook of a mutating webhook configuration that injects.
type Injector struct {
	Configuration string // name of the MutatingWebhookConfiguration
	Webhook       string
	Revision      string // of the control plane that it names
	Tag           string // "" unless it belongs to a revision tag
	Namespaces    labels.Selector
	Objects       labels.Selector
	FailurePolicy string
	Service       cluster.Ref // empty where it names a URL
}

// Tag is a revision tag.
type Tag struct {
	Name, Revision, Configuration string
}

// Injectors lists the injection webhooks, tags included, in the order in which
// the API server calls them: by configuration name, then as listed.
func Injectors(ctx context.Context, r cluster.Reader) ([]Injector, error) {
	var out []Injector
	err := list(ctx, r, webhooks, cluster.ListOptions{}, func(o *cluster.Object) error {
		in, err := injectors(o)
		out = append(out, in...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("injection webhooks: %w", err)
	}
	slices.SortStableFunc(out, func(a, b Injector) int { return cmp.Compare(a.Configuration, b.Configuration) })
	return out, nil
}

func injectors(o *cluster.Object) ([]Injector, error) {
	l := o.GetLabels()
	if l["app"] != "sidecar-injector" && l[LabelTag] == "" {
		return nil, nil
	}
	hooks, _, err := unstructured.NestedSlice(o.Object, "webhooks")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cluster.RefOf(o), err)
	}
	var out []Injector
	for _, h := range hooks {
		m, ok := h.(map[string]any)
		if !ok {
			continue
		}
		in := Injector{
			Configuration: o.GetName(), Webhook: text(m, "name"), Revision: orDefault(l[LabelRev]),
			Tag: l[LabelTag], FailurePolicy: text(m, "failurePolicy"),
		}
		if in.Namespaces, err = selector(m["namespaceSelector"]); err != nil {
			return nil, fmt.Errorf("%s: webhook %s: namespaceSelector: %w", cluster.RefOf(o), in.Webhook, err)
		}
		if in.Objects, err = selector(m["objectSelector"]); err != nil {
			return nil, fmt.Errorf("%s: webhook %s: objectSelector: %w", cluster.RefOf(o), in.Webhook, err)
		}
		if svc, ok, err := unstructured.NestedMap(m, "clientConfig", "service"); err == nil && ok {
			in.Service = cluster.Ref{Version: "v1", Kind: "Service", Namespace: text(svc, "namespace"), Name: text(svc, "name")}
		}
		out = append(out, in)
	}
	return out, nil
}

// selector reads a label selector; an absent one selects everything.
func selector(v any) (labels.Selector, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return labels.Everything(), nil
	}
	var s metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(m, &s); err != nil {
		return nil, err
	}
	return metav1.LabelSelectorAsSelector(&s)
}

// RevisionTags lists the revision tags, sorted by name.
func RevisionTags(ctx context.Context, r cluster.Reader) ([]Tag, error) {
	ins, err := Injectors(ctx, r)
	if err != nil {
		return nil, err
	}
	var out []Tag
	for _, in := range ins {
		if in.Tag != "" {
			out = append(out, Tag{Name: in.Tag, Revision: in.Revision, Configuration: in.Configuration})
		}
	}
	slices.SortFunc(out, func(a, b Tag) int { return cmp.Compare(a.Name, b.Name) })
	return slices.Compact(out), nil
}

// InjectingRevision is the revision of the injector that would inject a pod of
// the given labels in a namespace of the given labels, and whether one would.
// The first that matches wins; overlaps are another gate's concern.
func InjectingRevision(ins []Injector, namespace, pod map[string]string) (string, bool) {
	for _, in := range ins {
		if in.Namespaces.Matches(labels.Set(namespace)) && in.Objects.Matches(labels.Set(pod)) {
			return in.Revision, true
		}
	}
	return "", false
}

// InjectedNamespaces maps each namespace in which a pod without labels of its
// own would be injected to the injecting revision.
func InjectedNamespaces(ctx context.Context, r cluster.Reader) (map[string]string, error) {
	ins, err := Injectors(ctx, r)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	err = list(ctx, r, namespaces, cluster.ListOptions{MetadataOnly: true}, func(o *cluster.Object) error {
		if rev, ok := InjectingRevision(ins, o.GetLabels(), nil); ok {
			out[o.GetName()] = rev
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("injected namespaces: %w", err)
	}
	return out, nil
}

func text(m map[string]any, key string) string {
	s, ok := m[key].(string)
	if !ok {
		return ""
	}
	return s
}

func number(o *cluster.Object, def int64, path ...string) int64 {
	n, ok, err := unstructured.NestedInt64(o.Object, path...)
	if err != nil || !ok {
		return def
	}
	return n
}

// container finds a container by name in the list at path, without copying.
func container(o *cluster.Object, name string, path ...string) map[string]any {
	v, ok, err := unstructured.NestedFieldNoCopy(o.Object, path...)
	if err != nil || !ok {
		return nil
	}
	cs, ok := v.([]any)
	if !ok {
		return nil
	}
	for _, c := range cs {
		if m, ok := c.(map[string]any); ok && m["name"] == name {
			return m
		}
	}
	return nil
}
