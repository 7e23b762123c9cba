package diff

import (
	"fmt"
	"reflect"
	"strings"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

// The concerns under which a change is filed: those that the upgrade guide
// tells a reviewer to look at (GUIDE §1 row 5), and the kinds that break most.
const (
	riskSecurity = "security-context"
	riskService  = "service-type"
	riskCNI      = "cni-sidecar"
	riskImage    = "image"
	riskCRD      = "crd"
	riskWebhook  = "webhook"
	riskRBAC     = "rbac"
	riskRemoval  = "removal"
	riskOther    = "other"
)

// risks names the concerns that a change touches, at least riskOther.
func risks(ref cluster.Ref, before, after *cluster.Object) []string {
	var out []string
	add := func(when bool, risk string) {
		if when {
			out = append(out, risk)
		}
	}
	a, b := body(before), body(after)
	add(after == nil, riskRemoval)
	add(ref.Kind == "CustomResourceDefinition", riskCRD)
	add(strings.HasSuffix(ref.Kind, "WebhookConfiguration"), riskWebhook)
	add(ref.Group == "rbac.authorization.k8s.io" || ref.Kind == "ServiceAccount" && ref.Group == "", riskRBAC)
	add(differ(a, b, "securityContext"), riskSecurity)
	add(ref.Kind == "Service" && ref.Group == "" && serviceType(a) != serviceType(b), riskService)
	add(differ(a, b, "image"), riskImage)
	add(isSidecarConfig(ref, before, after), riskCNI)
	if len(out) == 0 {
		out = append(out, riskOther)
	}
	return out
}

func body(o *cluster.Object) map[string]any {
	if o == nil {
		return nil
	}
	return o.Object
}

func serviceType(o map[string]any) string {
	spec, _ := o["spec"].(map[string]any)
	t, _ := spec["type"].(string)
	if t == "" && o != nil {
		return "ClusterIP"
	}
	return t
}

// isSidecarConfig: what decides how pods are wired into the mesh.
func isSidecarConfig(ref cluster.Ref, objs ...*cluster.Object) bool {
	if ref.Kind == "ConfigMap" && ref.Group == "" {
		return effect.IsMeshConfigMap(ref.Name)
	}
	for _, o := range objs {
		if o == nil {
			continue
		}
		l := o.GetLabels()
		if l["operator.istio.io/component"] == "Cni" || l["k8s-app"] == "istio-cni-node" {
			return true
		}
	}
	return false
}

// differ reports whether the values of the named field, anywhere in a and b,
// are not the same. CRD schemas describe such fields, they don't set them.
func differ(a, b map[string]any, field string) bool {
	for _, o := range []map[string]any{a, b} {
		if o["kind"] == "CustomResourceDefinition" {
			return false
		}
	}
	x, y := map[string]any{}, map[string]any{}
	collect(a, field, "", x)
	collect(b, field, "", y)
	return !reflect.DeepEqual(x, y)
}

// collect finds the field's values by path; elements of lists go by their name
// where they have one, so that a reordering is no change.
func collect(v any, field, path string, into map[string]any) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if k == field {
				into[path] = e
				continue
			}
			collect(e, field, path+"."+k, into)
		}
	case []any:
		for i, e := range v {
			key := fmt.Sprint(i)
			if m, ok := e.(map[string]any); ok {
				if n, ok := m["name"].(string); ok {
					key = n
				}
			}
			collect(e, field, path+"["+key+"]", into)
		}
	}
}
