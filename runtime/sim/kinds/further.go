package kinds

import (
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// further judges what Validate leaves: rules that a person runs into less often.
func further(gvk schema.GroupVersionKind, obj map[string]any) field.ErrorList {
	spec := field.NewPath("spec")
	switch gvk.GroupKind().String() {
	case "Deployment.apps":
		return append(deployment(obj, spec), podRules(spec.Child("template", "spec"), at(obj, "spec", "template", "spec"))...)
	case "ReplicaSet.apps", "StatefulSet.apps", "DaemonSet.apps", "Job.batch":
		return podRules(spec.Child("template", "spec"), at(obj, "spec", "template", "spec"))
	case "PodTemplate":
		path := field.NewPath("template", "spec")
		return append(containers(path, at(obj, "template", "spec")), podRules(path, at(obj, "template", "spec"))...)
	case "Pod":
		return podRules(spec, at(obj, "spec"))
	case "PodDisruptionBudget.policy":
		return slices.Concat(share(obj, spec, "minAvailable"), share(obj, spec, "maxUnavailable"))
	case "ConfigMap":
		return dataKeys(obj)
	case "Secret":
		return secretRules(obj)
	case "RoleBinding.rbac.authorization.k8s.io", "ClusterRoleBinding.rbac.authorization.k8s.io":
		return binding(obj)
	case "Role.rbac.authorization.k8s.io", "ClusterRole.rbac.authorization.k8s.io":
		return roleRules(obj, gvk.Kind == "Role")
	}
	return nil
}

func deployment(obj map[string]any, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	rolling, _ := at(obj, "spec", "strategy", "rollingUpdate").(map[string]any)
	path := spec.Child("strategy", "rollingUpdate")
	if at(obj, "spec", "strategy", "type") == "Recreate" && rolling != nil {
		errs = append(errs, field.Forbidden(path, "may not be specified when strategy `type` is 'Recreate'"))
	} else if rolling != nil && zero(rolling["maxSurge"]) && zero(rolling["maxUnavailable"]) {
		errs = append(errs, field.Invalid(path.Child("maxUnavailable"), rolling["maxUnavailable"], "may not be 0 when `maxSurge` is 0"))
	}
	deadline, ok := at(obj, "spec", "progressDeadlineSeconds").(int64)
	ready, _ := at(obj, "spec", "minReadySeconds").(int64)
	if ok && deadline <= ready {
		errs = append(errs, field.Invalid(spec.Child("progressDeadlineSeconds"), deadline, "must be greater than minReadySeconds"))
	}
	if p, _ := at(obj, "spec", "template", "spec", "restartPolicy").(string); p == "Never" || p == "OnFailure" {
		errs = append(errs, field.NotSupported(spec.Child("template", "spec", "restartPolicy"), p, []string{"Always"}))
	}
	return errs
}

func zero(v any) bool {
	n, ok := v.(int64)
	return ok && n == 0 || v == "0%"
}

// podRules judges a pod's specification beside the names and images of its
// containers.
func podRules(path *field.Path, v any) field.ErrorList {
	var errs field.ErrorList
	spec, _ := v.(map[string]any)
	if spec == nil {
		return nil
	}
	volumes := map[string]bool{}
	list, _ := spec["volumes"].([]any)
	for _, x := range list {
		m, _ := x.(map[string]any)
		name, _ := m["name"].(string)
		volumes[name] = true
	}
	for _, f := range []string{"initContainers", "containers"} {
		list, _ := spec[f].([]any)
		for i, x := range list {
			m, _ := x.(map[string]any)
			errs = append(errs, containerRules(path.Child(f).Index(i), m, volumes)...)
		}
	}
	if p, _ := spec["restartPolicy"].(string); p != "" && !slices.Contains([]string{"Always", "OnFailure", "Never"}, p) {
		errs = append(errs, field.NotSupported(path.Child("restartPolicy"), p, []string{"Always", "OnFailure", "Never"}))
	}
	return errs
}

func containerRules(path *field.Path, c map[string]any, volumes map[string]bool) field.ErrorList {
	var errs field.ErrorList
	ports, _ := c["ports"].([]any)
	for i, x := range ports {
		m, _ := x.(map[string]any)
		if n, _ := m["containerPort"].(int64); n == 0 {
			errs = append(errs, field.Required(path.Child("ports").Index(i).Child("containerPort"), ""))
		} else if n < 0 || n > 65535 {
			errs = append(errs, field.Invalid(path.Child("ports").Index(i).Child("containerPort"), n, utilvalidation.InclusiveRangeError(1, 65535)))
		}
	}
	env, _ := c["env"].([]any)
	for i, x := range env {
		m, _ := x.(map[string]any)
		if name, _ := m["name"].(string); name == "" {
			errs = append(errs, field.Required(path.Child("env").Index(i).Child("name"), ""))
		}
	}
	mounts, _ := c["volumeMounts"].([]any)
	for i, x := range mounts {
		m, _ := x.(map[string]any)
		if name, _ := m["name"].(string); name != "" && !volumes[name] {
			errs = append(errs, field.NotFound(path.Child("volumeMounts").Index(i).Child("name"), name))
		}
	}
	if p, _ := c["imagePullPolicy"].(string); p != "" && !slices.Contains([]string{"Always", "IfNotPresent", "Never"}, p) {
		errs = append(errs, field.NotSupported(path.Child("imagePullPolicy"), p, []string{"Always", "IfNotPresent", "Never"}))
	}
	return errs
}

var percentage = regexp.MustCompile(`^[0-9]+%$`)

// share judges a number or percentage of a disruption budget.
func share(obj map[string]any, spec *field.Path, name string) field.ErrorList {
	path := spec.Child(name)
	switch v := at(obj, "spec", name).(type) {
	case int64:
		if v < 0 {
			return field.ErrorList{field.Invalid(path, v, "must be greater than or equal to 0").WithOrigin("minimum")}
		}
	case string:
		if !percentage.MatchString(v) {
			return field.ErrorList{field.Invalid(path, v, strings.Join(utilvalidation.IsValidPercent(v), ", "))}
		}
		if n := strings.TrimLeft(strings.TrimSuffix(v, "%"), "0"); len(n) > 3 || len(n) == 3 && n != "100" {
			return field.ErrorList{field.Invalid(path, v, "must not be greater than 100%")}
		}
	}
	return nil
}

func dataKeys(obj map[string]any) field.ErrorList {
	var errs field.ErrorList
	binary, _ := obj["binaryData"].(map[string]any)
	data, _ := obj["data"].(map[string]any)
	for _, k := range sortedKeys(data) {
		path := field.NewPath("data").Key(k)
		for _, msg := range utilvalidation.IsConfigMapKey(k) {
			errs = append(errs, field.Invalid(path, k, msg))
		}
		if _, twice := binary[k]; twice {
			errs = append(errs, field.Invalid(path, k, "duplicate of key present in binaryData"))
		}
	}
	return errs
}

func sortedKeys(m map[string]any) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func secretRules(obj map[string]any) field.ErrorList {
	var errs field.ErrorList
	data, _ := obj["data"].(map[string]any)
	switch obj["type"] {
	case "kubernetes.io/tls":
		for _, k := range []string{"tls.crt", "tls.key"} {
			if _, ok := data[k]; !ok {
				errs = append(errs, field.Required(field.NewPath("data").Key(k), ""))
			}
		}
	case "kubernetes.io/service-account-token":
		if s, _ := at(obj, "metadata", "annotations", "kubernetes.io/service-account.name").(string); s == "" {
			errs = append(errs, field.Required(field.NewPath("metadata", "annotations").Key("kubernetes.io/service-account.name"), ""))
		}
	}
	return errs
}

func binding(obj map[string]any) field.ErrorList {
	var errs field.ErrorList
	ref := field.NewPath("roleRef")
	if g, _ := at(obj, "roleRef", "apiGroup").(string); g != "rbac.authorization.k8s.io" {
		errs = append(errs, field.NotSupported(ref.Child("apiGroup"), g, []string{"rbac.authorization.k8s.io"}))
	}
	if k, _ := at(obj, "roleRef", "kind").(string); k != "Role" && k != "ClusterRole" {
		errs = append(errs, field.NotSupported(ref.Child("kind"), k, []string{"Role", "ClusterRole"}))
	}
	subjects, _ := obj["subjects"].([]any)
	for i, x := range subjects {
		m, _ := x.(map[string]any)
		ns, _ := m["namespace"].(string)
		if everywhere := obj["kind"] == "ClusterRoleBinding"; everywhere && m["kind"] == "ServiceAccount" && ns == "" {
			errs = append(errs, field.Required(field.NewPath("subjects").Index(i).Child("namespace"), ""))
		}
	}
	return errs
}

func roleRules(obj map[string]any, namespaced bool) field.ErrorList {
	var errs field.ErrorList
	rules, _ := obj["rules"].([]any)
	for i, x := range rules {
		m, _ := x.(map[string]any)
		path := field.NewPath("rules").Index(i)
		some := func(f string) bool { list, _ := m[f].([]any); return len(list) > 0 }
		if !some("verbs") {
			errs = append(errs, field.Required(path.Child("verbs"), "verbs must contain at least one value"))
		}
		if !namespaced && some("nonResourceURLs") {
			continue
		}
		if !some("apiGroups") {
			errs = append(errs, field.Required(path.Child("apiGroups"), "resource rules must supply at least one api group"))
		}
		if !some("resources") {
			errs = append(errs, field.Required(path.Child("resources"), "resource rules must supply at least one resource"))
		}
	}
	return errs
}

// Nils makes null of the empty lists of a built-in object: that is how the real
// server gives back what it stores as protobuf. ControllerRevisions and
// CustomResourceDefinitions hold other people's data and are left alone.
func Nils(gk schema.GroupKind, v any) any {
	if gk.Kind == "ControllerRevision" || gk.Kind == "CustomResourceDefinition" {
		return v
	}
	return nils(v)
}

func nils(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k, y := range x {
			if l, ok := y.([]any); ok && len(l) == 0 {
				x[k] = nil
			} else {
				nils(y)
			}
		}
	case []any:
		for _, y := range x {
			nils(y)
		}
	}
	return v
}
