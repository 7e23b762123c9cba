package mesh

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Retag makes, from the manifest of version from, a stand-in for the manifest
// of the older version to, for use where the real one is not at hand. It
// replaces the version wherever it stands (image tags, labels, and the JSON
// and templates inside ConfigMaps), and then takes something away, so that an
// upgrade from the stand-in to the original has more to do than to move tags:
//
//   - the HorizontalPodAutoscaler of the ingress gateway is dropped (the last
//     HorizontalPodAutoscaler, or else ClusterRole, where there is no such): an object to create;
//   - the last environment variable of istiod is dropped: a field to add;
//   - fields that 1.31 added to the DestinationRule schema are dropped
//     (http2KeepAlive, zoneAwareLbSetting, outlierDetectionHttpErrorCodes), or
//     else one CRD's description: a CRD to change.
//
// The given objects are not changed.
func Retag(manifest []*unstructured.Unstructured, from, to string) []*unstructured.Unstructured {
	out := make([]*unstructured.Unstructured, 0, len(manifest))
	for _, m := range manifest {
		o, _ := replaceStrings(m.Object, func(s string) string { return replaceVersion(s, from, to) }).(object)
		out = append(out, &unstructured.Unstructured{Object: o})
	}
	out = dropObject(out)
	dropField(out)
	changeSchema(out)
	return out
}

// replaceVersion replaces a version where it is not part of a longer number.
func replaceVersion(s, from, to string) string {
	if from == "" || !strings.Contains(s, from) {
		return s
	}
	var b strings.Builder
	for {
		i := strings.Index(s, from)
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		end := i + len(from)
		inside := (i > 0 && (digit(s[i-1]) || s[i-1] == '.')) || (end < len(s) && digit(s[end])) ||
			(end+1 < len(s) && s[end] == '.' && digit(s[end+1]))
		b.WriteString(s[:i])
		if inside {
			b.WriteString(from)
		} else {
			b.WriteString(to)
		}
		s = s[end:]
	}
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// replaceStrings copies decoded JSON with every string value replaced.
func replaceStrings(v any, f func(string) string) any {
	switch x := v.(type) {
	case string:
		return f(x)
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, e := range x {
			out[k] = replaceStrings(e, f)
		}
		return out
	case []any:
		out := make([]any, len(x))
		for i, e := range x {
			out[i] = replaceStrings(e, f)
		}
		return out
	}
	return v
}

func dropObject(all []*unstructured.Unstructured) []*unstructured.Unstructured {
	for _, fits := range []func(o *unstructured.Unstructured) bool{
		func(o *unstructured.Unstructured) bool {
			return o.GetKind() == "HorizontalPodAutoscaler" && o.GetName() == "istio-ingressgateway"
		},
		func(o *unstructured.Unstructured) bool { return o.GetKind() == "HorizontalPodAutoscaler" },
		func(o *unstructured.Unstructured) bool { return o.GetKind() == "ClusterRole" },
	} {
		for i, o := range slices.Backward(all) {
			if fits(o) {
				return slices.Delete(all, i, i+1)
			}
		}
	}
	return all
}

func dropField(all []*unstructured.Unstructured) {
	for _, o := range all {
		if o.GetKind() != "Deployment" || o.GetLabels()["app"] != "istiod" {
			continue
		}
		containers, _, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "template", "spec", "containers")
		list, _ := containers.([]any)
		if len(list) == 0 {
			continue
		}
		container, _ := list[0].(object)
		if env, _ := container["env"].([]any); len(env) > 0 {
			container["env"] = env[:len(env)-1]
			return
		}
	}
}

// newFields are properties of DestinationRule that came with Istio 1.31.
var newFields = []string{"http2KeepAlive", "zoneAwareLbSetting", "outlierDetectionHttpErrorCodes"}

func changeSchema(all []*unstructured.Unstructured) {
	for _, o := range all {
		if o.GetKind() == "CustomResourceDefinition" && strings.HasPrefix(o.GetName(), "destinationrules.") && dropProperties(o.Object["spec"]) {
			return
		}
	}
	for _, o := range all {
		if o.GetKind() == "CustomResourceDefinition" && dropDescription(o.Object["spec"]) {
			return
		}
	}
}

func dropProperties(v any) (changed bool) {
	switch x := v.(type) {
	case map[string]any:
		if p, ok := x["properties"].(map[string]any); ok {
			for _, f := range newFields {
				if _, ok := p[f]; ok {
					delete(p, f)
					changed = true
				}
			}
		}
		for _, e := range x {
			changed = dropProperties(e) || changed
		}
	case []any:
		for _, e := range x {
			changed = dropProperties(e) || changed
		}
	}
	return changed
}

// dropDescription removes the description of every version's schema.
func dropDescription(spec any) (changed bool) {
	s, _ := spec.(map[string]any)
	versions, _ := s["versions"].([]any)
	for _, v := range versions {
		version, _ := v.(map[string]any)
		schema, _ := version["schema"].(map[string]any)
		root, _ := schema["openAPIV3Schema"].(map[string]any)
		properties, _ := root["properties"].(map[string]any)
		field, _ := properties["spec"].(map[string]any)
		if _, ok := field["description"]; ok {
			delete(field, "description")
			changed = true
		}
	}
	return changed
}
