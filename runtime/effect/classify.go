package effect

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/plain"
)

// Labels and annotations by which Istio marks what is its own.
// Sources: istio.io/api/label and annotation; the rendered charts.
const (
	labelTag          = "istio.io/tag"
	labelRevision     = "istio.io/rev"
	labelInjection    = "istio-injection"
	labelOwner        = "install.operator.istio.io/owning-resource"
	labelComponent    = "operator.istio.io/component"
	labelPartOf       = "app.kubernetes.io/part-of"
	annotationRestart = "kubectl.kubernetes.io/restartedAt"
)

// AnnotationRestart is the pod-template annotation by which rutter rolls a
// workload. Its value is the effect's own reason, never a wall-clock time, so
// that asking twice rolls once.
const AnnotationRestart = "rutter.dev/restart"

// Classes lists all classes in the order in which tables show them.
func Classes() []Class {
	return []Class{CRD, Webhook, Tag, ControlPlane, Gateway, MeshConfig, Relabel, Restart, Eviction, Plain}
}

// Classify derives the class of an effect from the request alone: its verb,
// target, body, before-image and forecast. A script has no say in it: a label
// counts when the object bears it before or after, so that a request cannot
// take the mark away that it is judged by.
func Classify(e *Effect) Class {
	ls := marks{}
	for _, o := range []*cluster.Object{e.Before, e.object(), e.After} {
		if o != nil {
			ls = append(ls, o.GetLabels())
		}
	}
	switch kind, group := e.Ref.Kind, e.Ref.Group; {
	case kind == "Pod" && group == "" && (e.Verb == Evict || e.Verb == Delete):
		return Eviction
	case kind == "CustomResourceDefinition":
		return CRD
	case kind == "MutatingWebhookConfiguration", kind == "ValidatingWebhookConfiguration":
		if ls.has(labelTag) {
			return Tag
		}
		return Webhook
	case kind == "Namespace" && group == "" && touchesInjection(e):
		return Relabel
	case isWorkload(group, kind):
		return classifyWorkload(e, ls)
	case strings.HasSuffix(group, ".istio.io"), group == "gateway.networking.k8s.io":
		return MeshConfig
	case kind == "ConfigMap" && IsMeshConfigMap(e.Ref.Name), kind == "Secret" && IsMeshSecret(e.Ref.Name):
		return MeshConfig
	case ofInstall(ls):
		return ControlPlane
	}
	return Plain
}

// OfInstall reports whether an object of these labels belongs to an install of
// Istio: what istioctl or a chart rendered, the mesh's ConfigMaps with it.
func OfInstall(ref cluster.Ref, labels map[string]string) bool {
	ls := marks{labels}
	switch {
	case ref.Kind == "CustomResourceDefinition":
		return false
	case ref.Kind == "ConfigMap" && IsMeshConfigMap(ref.Name):
		return true
	case isWorkload(ref.Group, ref.Kind) && (isControlPlane(ref.Name, ls) || isGateway(ls)):
		return true
	}
	return ofInstall(ls)
}

// marks are the labels of an object at the moments that count.
type marks []map[string]string

func (ms marks) has(key string) bool {
	return slices.ContainsFunc(ms, func(m map[string]string) bool { return m[key] != "" })
}

func (ms marks) is(key string, values ...string) bool {
	return slices.ContainsFunc(ms, func(m map[string]string) bool { return slices.Contains(values, m[key]) })
}

// IsMeshConfigMap reports whether a ConfigMap of this name is the mesh's own:
// mesh config, injector template and values, CNI config.
func IsMeshConfigMap(name string) bool {
	return name == "istio" || strings.HasPrefix(name, "istio-")
}

// IsMeshSecret reports whether a Secret of this name holds a CA of the mesh.
func IsMeshSecret(name string) bool {
	return name == "cacerts" || name == "istio-ca-secret" || strings.HasPrefix(name, "istio-remote-secret-")
}

func isWorkload(group, kind string) bool {
	switch kind {
	case "Deployment", "StatefulSet", "DaemonSet":
		return group == "apps"
	case "Rollout":
		return group == "argoproj.io"
	}
	return false
}

func classifyWorkload(e *Effect, ls marks) Class {
	switch {
	case isControlPlane(e.Ref.Name, ls):
		return ControlPlane
	case isGateway(ls):
		if e.RestartsOnly() {
			return Restart
		}
		return Gateway
	case e.RestartsOnly():
		return Restart
	case ofInstall(ls):
		return ControlPlane
	case rolls(e):
		return Restart
	}
	return Plain
}

func isControlPlane(name string, ls marks) bool {
	return ls.is("app", "istiod", "istio-cni", "istio-cni-node", "ztunnel") ||
		ls.is("k8s-app", "istio-cni-node") || ls.is(labelComponent, "Pilot", "Cni", "Ztunnel") ||
		name == "istiod" || strings.HasPrefix(name, "istiod-")
}

func isGateway(ls marks) bool {
	return ls.is("istio", "ingressgateway", "egressgateway") || slices.ContainsFunc(ls, func(m map[string]string) bool {
		return strings.Contains(m[labelComponent], "Gateway")
	})
}

func ofInstall(ls marks) bool {
	return ls.has(labelOwner) || ls.has(labelComponent) || ls.is(labelPartOf, "istio")
}

// rolls reports whether a write to an existing workload gives it another pod
// template, and so new pods: a restart, whatever else the write is called.
// Without a forecast to tell by, it is taken for one.
func rolls(e *Effect) bool {
	if e.Absent || e.Before == nil || e.Verb == Delete {
		return false
	}
	if e.After == nil {
		return true
	}
	return !reflect.DeepEqual(template(e.Before), template(e.After))
}

func template(o *cluster.Object) any {
	spec, _ := o.Object["spec"].(map[string]any)
	return spec["template"]
}

// object is the body as an object; nil for patches that are lists.
func (e *Effect) object() *cluster.Object {
	if len(e.Body) == 0 {
		return nil
	}
	m, err := plain.Decode(e.Body)
	if err != nil {
		return nil
	}
	return &cluster.Object{Object: m}
}

// Intended is the object as the effect would leave it: the forecast, or
// without one the body of a write of a whole object; nil for a deletion, and
// for a patch without a forecast.
func (e *Effect) Intended() *cluster.Object {
	switch {
	case e.After != nil:
		return e.After
	case e.Verb == Apply, e.Verb == Create, e.Verb == Replace:
		return e.object()
	}
	return nil
}

// Misdirected says how the body's own target differs from Ref, which the gates
// judge by; "" if it does not. A body without a namespace is for a
// cluster-scoped object.
func (e *Effect) Misdirected() string {
	if e.Verb != Apply && e.Verb != Create && e.Verb != Replace {
		return ""
	}
	o := e.object()
	if o == nil {
		return "the body is no object"
	}
	if got := cluster.RefOf(o); got.ID() != e.Ref.ID() {
		return "the body is " + got.String()
	}
	return ""
}

// touchesInjection reports whether a write to a namespace changes the labels
// by which pods are injected.
func touchesInjection(e *Effect) bool {
	if e.Verb == Delete || e.Before == nil || e.After == nil {
		return true
	}
	old, now := e.Before.GetLabels(), e.After.GetLabels()
	for _, k := range []string{labelInjection, labelRevision, "istio.io/dataplane-mode", "istio.io/use-waypoint"} {
		if old[k] != now[k] {
			return true
		}
	}
	return false
}

// RestartsOnly reports whether the patch does nothing but set restart
// annotations on the pod template.
func (e *Effect) RestartsOnly() bool {
	o := e.object()
	if e.Verb != Patch || o == nil {
		return false
	}
	path := []string{"spec", "template", "metadata", "annotations"}
	m := o.Object
	for _, p := range path {
		if len(m) != 1 {
			return false
		}
		next, ok := m[p].(map[string]any)
		if !ok {
			return false
		}
		m = next
	}
	keys := slices.Collect(maps.Keys(m))
	return len(keys) > 0 && !slices.ContainsFunc(keys, func(k string) bool {
		return k != AnnotationRestart && k != annotationRestart
	})
}
