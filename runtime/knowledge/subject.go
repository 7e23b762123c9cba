package knowledge

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"rutter.dev/rutter/runtime/cluster"
)

// subject is a set of objects that a detection looks at.
type subject struct {
	name   string
	kinds  []schema.GroupKind
	labels []labels.Selector // one of them selects the object; none: all objects do
	// where lists it in the namespaces of control planes and CNI alone.
	meshOnly bool
	// view gives what the conditions are about, where that is not the object
	// itself: nil where the object has none.
	view func(o *cluster.Object) []any
}

var (
	deployment  = schema.GroupKind{Group: "apps", Kind: "Deployment"}
	daemonSet   = schema.GroupKind{Group: "apps", Kind: "DaemonSet"}
	statefulSet = schema.GroupKind{Group: "apps", Kind: "StatefulSet"}
	configMap   = schema.GroupKind{Kind: "ConfigMap"}
)

// subjects are those with a name of their own. The labels are the charts'
// (manifests/charts in istio/istio); ztunnel's was app=ztunnel up to 1.23.
func subjects() []subject {
	return []subject{
		{name: "istiod", kinds: []schema.GroupKind{deployment}, labels: selectors("app=istiod")},
		{name: "cni", kinds: []schema.GroupKind{daemonSet}, labels: selectors("k8s-app=istio-cni-node")},
		{name: "ztunnel", kinds: []schema.GroupKind{daemonSet}, labels: selectors("app.kubernetes.io/name=ztunnel", "app=ztunnel")},
		{name: "workload", kinds: []schema.GroupKind{deployment, statefulSet, daemonSet}},
		{name: "mesh-config", kinds: []schema.GroupKind{configMap}, meshOnly: true, view: meshConfig},
		{name: "values", kinds: []schema.GroupKind{configMap}, meshOnly: true, view: helmValues},
	}
}

func selectors(texts ...string) []labels.Selector {
	var out []labels.Selector
	for _, t := range texts {
		k, v, _ := strings.Cut(t, "=")
		out = append(out, labels.SelectorFromSet(labels.Set{k: v}))
	}
	return out
}

// subjectOf reads what a detection is in.
func subjectOf(in string) (subject, error) {
	if in == "" {
		return subject{}, fmt.Errorf("a detection has no in: a kind or a subject")
	}
	var names []string
	for _, s := range subjects() {
		if s.name == in {
			return s, nil
		}
		names = append(names, s.name)
	}
	gk := schema.ParseGroupKind(in)
	if gk.Kind == "" || strings.ToUpper(gk.Kind[:1]) != gk.Kind[:1] {
		return subject{}, fmt.Errorf("in: %q is no kind (Kind.group) and none of %s", in, strings.Join(names, ", "))
	}
	return subject{name: in, kinds: []schema.GroupKind{gk}, meshOnly: gk == configMap}, nil
}

func (s subject) covers(o *cluster.Object) bool {
	gvk := o.GroupVersionKind()
	is := false
	for _, k := range s.kinds {
		is = is || k == gvk.GroupKind()
	}
	if !is || len(s.labels) == 0 {
		return is
	}
	for _, l := range s.labels {
		if l.Matches(labels.Set(o.GetLabels())) {
			return true
		}
	}
	return false
}

func (s subject) views(o *cluster.Object) []any {
	if s.view == nil {
		return []any{o.Object}
	}
	return s.view(o)
}

// meshConfig is the mesh configuration in a ConfigMap istio or istio-REVISION.
func meshConfig(o *cluster.Object) []any {
	if o.GetName() != "istio" && !strings.HasPrefix(o.GetName(), "istio-") {
		return nil
	}
	return parsed(o, "mesh")
}

// helmValues are the values that an istiod was rendered with: those in the
// injector's ConfigMap, and since 1.26 those that were given, in the ConfigMap
// values or values-REVISION.
func helmValues(o *cluster.Object) []any {
	switch name := o.GetName(); {
	case name == "istio-sidecar-injector", strings.HasPrefix(name, "istio-sidecar-injector-"):
		return parsed(o, "values")
	case name == "values", strings.HasPrefix(name, "values-"):
		return parsed(o, "original-values")
	}
	return nil
}

// parsed reads YAML in a key of a ConfigMap. What can't be read holds nothing
// that could be found: istiod would not read it either.
func parsed(o *cluster.Object, key string) []any {
	data, _ := o.Object["data"].(map[string]any)
	text, _ := data[key].(string)
	if text == "" {
		return nil
	}
	var v map[string]any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil || v == nil {
		return nil
	}
	return []any{v}
}
