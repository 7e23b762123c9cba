// Package quota is the arithmetic of ResourceQuotas: what an object uses, what
// a namespace uses, and what a quota refuses, in the words of the API server's
// admission plugin (apiserver/pkg/admission/plugin/resourcequota).
package quota

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// counted are the core resources that a quota may name without "count/".
var counted = []string{"configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services"}

// compute are the names of what containers ask for.
var compute = []corev1.ResourceName{
	"cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.ephemeral-storage", "limits.cpu", "limits.memory", "limits.ephemeral-storage",
}

// Resource is the resource whose objects use up name; false for a name that
// is nothing's.
func Resource(name corev1.ResourceName) (schema.GroupResource, bool) {
	s := string(name)
	if counted, ok := strings.CutPrefix(s, "count/"); ok {
		return schema.ParseGroupResource(counted), true
	}
	switch {
	case slices.Contains(counted, s):
		return schema.GroupResource{Resource: s}, true
	case strings.HasPrefix(s, "services."):
		return schema.GroupResource{Resource: "services"}, true
	case s == "requests.storage", strings.Contains(s, ".storageclass.storage.k8s.io/"):
		return schema.GroupResource{Resource: "persistentvolumeclaims"}, true
	case slices.Contains(compute, name), strings.HasPrefix(s, "requests."), strings.HasPrefix(s, "limits."), strings.HasPrefix(s, "hugepages-"):
		return schema.GroupResource{Resource: "pods"}, true
	}
	return schema.GroupResource{}, false
}

// Usage is what one object uses.
func Usage(gr schema.GroupResource, obj *unstructured.Unstructured) corev1.ResourceList {
	one := resource.MustParse("1")
	out := corev1.ResourceList{corev1.ResourceName("count/" + gr.String()): one}
	if gr.Group != "" {
		return out
	}
	switch gr.Resource {
	case "pods":
		var pod corev1.Pod
		if runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &pod) != nil || ended(&pod) {
			return out
		}
		podUsage(&pod, out)
	case "services":
		serviceUsage(obj, out)
	case "persistentvolumeclaims":
		claimUsage(obj, out)
	}
	if slices.Contains(counted, gr.Resource) {
		out[corev1.ResourceName(gr.Resource)] = one
	}
	return out
}

// ended reports whether a pod has run to its end, and uses nothing any longer.
func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func podUsage(pod *corev1.Pod, out corev1.ResourceList) {
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	for _, c := range pod.Spec.Containers {
		add(requests, c.Resources.Requests)
		add(limits, c.Resources.Limits)
	}
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil { // a sidecar runs beside the others
			add(requests, c.Resources.Requests)
			add(limits, c.Resources.Limits)
			continue
		}
		atLeast(requests, c.Resources.Requests)
		atLeast(limits, c.Resources.Limits)
	}
	for name, q := range requests {
		out["requests."+name] = q
		if name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage {
			out[name] = q
		}
	}
	for name, q := range limits {
		out["limits."+name] = q
	}
}

func serviceUsage(obj *unstructured.Unstructured, out corev1.ResourceList) {
	typ, _, _ := unstructured.NestedString(obj.Object, "spec", "type")
	ports, _, _ := unstructured.NestedSlice(obj.Object, "spec", "ports")
	allocate, set, _ := unstructured.NestedBool(obj.Object, "spec", "allocateLoadBalancerNodePorts")
	nodePorts, balancers := 0, 0
	switch typ {
	case "NodePort":
		nodePorts = len(ports)
	case "LoadBalancer":
		balancers = 1
		if !set || allocate {
			nodePorts = len(ports)
		}
	}
	out["services.nodeports"] = *resource.NewQuantity(int64(nodePorts), resource.DecimalSI)
	out["services.loadbalancers"] = *resource.NewQuantity(int64(balancers), resource.DecimalSI)
}

func claimUsage(obj *unstructured.Unstructured, out corev1.ResourceList) {
	text, _, _ := unstructured.NestedString(obj.Object, "spec", "resources", "requests", "storage")
	q, err := resource.ParseQuantity(text)
	if err != nil {
		return
	}
	out["requests.storage"] = q
	if class, _, _ := unstructured.NestedString(obj.Object, "spec", "storageClassName"); class != "" {
		out[corev1.ResourceName(class+".storageclass.storage.k8s.io/requests.storage")] = q
		out[corev1.ResourceName(class+".storageclass.storage.k8s.io/persistentvolumeclaims")] = resource.MustParse("1")
	}
}

func add(sum, more corev1.ResourceList) {
	for name, q := range more {
		s := sum[name]
		s.Add(q)
		sum[name] = s
	}
}

func atLeast(sum, least corev1.ResourceList) {
	for name, q := range least {
		if s, ok := sum[name]; !ok || s.Cmp(q) < 0 {
			sum[name] = q
		}
	}
}

// Applies reports whether a quota is about the object: all of its scopes must
// fit. A scope concerns pods only.
func Applies(q *corev1.ResourceQuota, gr schema.GroupResource, obj *unstructured.Unstructured) bool {
	scopes := slices.Clone(q.Spec.Scopes)
	if s := q.Spec.ScopeSelector; s != nil {
		for _, e := range s.MatchExpressions {
			scopes = append(scopes, e.ScopeName)
		}
	}
	if len(scopes) == 0 {
		return true
	}
	var pod corev1.Pod
	if gr != (schema.GroupResource{Resource: "pods"}) || runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &pod) != nil {
		return false
	}
	asks := slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return len(c.Resources.Requests)+len(c.Resources.Limits) > 0 })
	for _, s := range scopes {
		fits := false
		switch s {
		case corev1.ResourceQuotaScopeTerminating:
			fits = pod.Spec.ActiveDeadlineSeconds != nil
		case corev1.ResourceQuotaScopeNotTerminating:
			fits = pod.Spec.ActiveDeadlineSeconds == nil
		case corev1.ResourceQuotaScopeBestEffort:
			fits = !asks
		case corev1.ResourceQuotaScopeNotBestEffort:
			fits = asks
		case corev1.ResourceQuotaScopePriorityClass:
			fits = pod.Spec.PriorityClassName != ""
		case corev1.ResourceQuotaScopeCrossNamespacePodAffinity, corev1.ResourceQuotaScopeVolumeAttributesClass:
		}
		if !fits {
			return false
		}
	}
	return true
}

// Check refuses a write that a quota has no room for: obj is to be stored, old
// is what it replaces (nil for a new one), used what the namespace uses of the
// quota now. The error is the API server's reason.
func Check(q *corev1.ResourceQuota, used corev1.ResourceList, gr schema.GroupResource, obj, old *unstructured.Unstructured) error {
	if gr == (schema.GroupResource{Resource: "pods"}) && old == nil {
		if missing := unspecified(q, obj); missing != "" {
			return fmt.Errorf("failed quota: %s: must specify %s", q.Name, missing)
		}
	}
	wants := Usage(gr, obj)
	if old != nil {
		for name, was := range Usage(gr, old) {
			now := wants[name]
			now.Sub(was)
			wants[name] = now
		}
	}
	var exceeded []corev1.ResourceName
	for name, limit := range q.Spec.Hard {
		more, asked := wants[name]
		if !asked || more.Sign() <= 0 {
			continue
		}
		total := used[name]
		total.Add(more)
		if total.Cmp(limit) > 0 {
			exceeded = append(exceeded, name)
		}
	}
	if len(exceeded) == 0 {
		return nil
	}
	slices.Sort(exceeded)
	return fmt.Errorf("exceeded quota: %s, requested: %s, used: %s, limited: %s", q.Name, list(exceeded, wants), list(exceeded, used), list(exceeded, q.Spec.Hard))
}

func list(names []corev1.ResourceName, of corev1.ResourceList) string {
	parts := make([]string, len(names))
	for i, n := range names {
		q := of[n]
		parts[i] = string(n) + "=" + q.String()
	}
	return strings.Join(parts, ",")
}

// unspecified says what a quota limits and a pod's containers don't ask for.
func unspecified(q *corev1.ResourceQuota, obj *unstructured.Unstructured) string {
	var pod corev1.Pod
	if runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &pod) != nil {
		return ""
	}
	var out []string
	for _, name := range compute {
		if _, limited := q.Spec.Hard[name]; !limited {
			continue
		}
		var who []string
		for _, c := range append(slices.Clone(pod.Spec.Containers), pod.Spec.InitContainers...) {
			asks, plain := c.Resources.Requests, strings.TrimPrefix(string(name), "requests.")
			if l, ok := strings.CutPrefix(string(name), "limits."); ok {
				asks, plain = c.Resources.Limits, l
			}
			if _, ok := asks[corev1.ResourceName(plain)]; !ok {
				who = append(who, c.Name)
			}
		}
		if len(who) > 0 {
			slices.Sort(who)
			out = append(out, fmt.Sprintf("%s for: %s", name, strings.Join(who, ",")))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

// Validate judges a ResourceQuota that is to be stored.
func Validate(q *corev1.ResourceQuota) field.ErrorList {
	var errs field.ErrorList
	names := make([]corev1.ResourceName, 0, len(q.Spec.Hard))
	for name := range q.Spec.Hard {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		path := field.NewPath("spec", "hard").Key(string(name))
		if _, ok := Resource(name); !ok && !strings.Contains(string(name), "/") {
			errs = append(
				errs, field.Invalid(path, string(name), "must be a standard resource type or fully qualified"),
				field.Invalid(path, string(name), "must be a standard resource for quota"),
			)
		}
		if v := q.Spec.Hard[name]; v.Sign() < 0 {
			errs = append(errs, field.Invalid(path, v.String(), "must be greater than or equal to 0"))
		}
	}
	return errs
}
