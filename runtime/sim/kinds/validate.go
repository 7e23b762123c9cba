package kinds

import (
	"reflect"
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateMeta judges the metadata of a new object.
func ValidateMeta(gr schema.GroupResource, obj *unstructured.Unstructured, namespaced bool) field.ErrorList {
	name := apivalidation.NameIsDNSSubdomain
	switch {
	case gr.Group == "rbac.authorization.k8s.io":
		name = func(s string, prefix bool) []string {
			if s == "." || s == ".." || strings.ContainsAny(s, "/%") {
				return []string{"may not be '.' or '..' or contain '/' or '%'"}
			}
			return nil
		}
	case gr.Resource == "services":
		name = apivalidation.NameIsDNS1035Label
	case gr.Resource == "namespaces":
		name = apivalidation.NameIsDNSLabel
	case gr.Resource == "events":
		name = func(string, bool) []string { return nil }
	}
	return apivalidation.ValidateObjectMetaAccessor(obj, namespaced, name, field.NewPath("metadata"))
}

// ValidateMetaUpdate judges a change of metadata.
func ValidateMetaUpdate(old, obj *unstructured.Unstructured) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("metadata")
	errs = append(errs, validation.ValidateLabels(obj.GetLabels(), path.Child("labels"))...)
	errs = append(errs, apivalidation.ValidateAnnotations(obj.GetAnnotations(), path.Child("annotations"))...)
	if old.GetDeletionTimestamp() != nil {
		had := map[string]bool{}
		for _, f := range old.GetFinalizers() {
			had[f] = true
		}
		for _, f := range obj.GetFinalizers() {
			if !had[f] {
				errs = append(errs, field.Forbidden(path.Child("finalizers"), "no new finalizers can be added if the object is being deleted, found new finalizers []string{\""+f+"\"}"))
			}
		}
	}
	return errs
}

// at reads a nested value of an object's JSON form.
func at(m map[string]any, path ...string) any {
	var v any = m
	for _, p := range path {
		o, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = o[p]
	}
	return v
}

// Validate judges what the server refuses most often in a built-in kind.
func Validate(gvk schema.GroupVersionKind, obj map[string]any) field.ErrorList {
	spec := field.NewPath("spec")
	var errs field.ErrorList
	switch gvk.GroupKind().String() {
	case "Deployment.apps", "ReplicaSet.apps", "StatefulSet.apps", "DaemonSet.apps":
		errs = append(errs, nonNegative(obj, spec, "replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds")...)
		errs = append(errs, selectorAndTemplate(obj, spec)...)
	case "Job.batch":
		errs = append(errs, nonNegative(obj, spec, "parallelism", "completions", "backoffLimit")...)
		errs = append(errs, podTemplate(obj, spec.Child("template"), "spec", "template", "spec")...)
		if rp, _ := at(obj, "spec", "template", "spec", "restartPolicy").(string); rp != "Never" && rp != "OnFailure" {
			errs = append(errs, field.NotSupported(spec.Child("template", "spec", "restartPolicy"), rp, []string{"OnFailure", "Never"}))
		}
	case "Pod":
		errs = append(errs, containers(spec, at(obj, "spec"))...)
	case "Service":
		errs = append(errs, servicePorts(obj, spec)...)
	case "PodDisruptionBudget.policy":
		if at(obj, "spec", "minAvailable") != nil && at(obj, "spec", "maxUnavailable") != nil {
			errs = append(errs, field.Invalid(spec, "", "minAvailable and maxUnavailable cannot be both set"))
		}
	case "HorizontalPodAutoscaler.autoscaling":
		minimum, _ := at(obj, "spec", "minReplicas").(int64)
		maximum, _ := at(obj, "spec", "maxReplicas").(int64)
		if maximum < 1 {
			errs = append(errs, field.Invalid(spec.Child("maxReplicas"), maximum, "must be greater than 0"))
		}
		if maximum < minimum {
			errs = append(errs, field.Invalid(spec.Child("maxReplicas"), maximum, "must be greater than or equal to `minReplicas`"))
		}
	case "MutatingWebhookConfiguration.admissionregistration.k8s.io", "ValidatingWebhookConfiguration.admissionregistration.k8s.io":
		errs = append(errs, webhooks(obj)...)
	}
	return append(errs, further(gvk, obj)...)
}

func nonNegative(obj map[string]any, spec *field.Path, names ...string) field.ErrorList {
	var errs field.ErrorList
	for _, n := range names {
		if v, ok := at(obj, "spec", n).(int64); ok && v < 0 {
			errs = append(errs, field.Invalid(spec.Child(n), v, "must be greater than or equal to 0").WithOrigin("minimum"))
		}
	}
	return errs
}

func selectorAndTemplate(obj map[string]any, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	raw, _ := at(obj, "spec", "selector").(map[string]any)
	if raw == nil {
		errs = append(errs, field.Required(spec.Child("selector"), ""))
	} else {
		var ls metav1.LabelSelector
		err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &ls)
		var sel labels.Selector
		if err == nil {
			sel, err = metav1.LabelSelectorAsSelector(&ls)
		}
		tl := map[string]string{}
		if m, ok := at(obj, "spec", "template", "metadata", "labels").(map[string]any); ok {
			for k, v := range m {
				tl[k], _ = v.(string)
			}
		}
		switch {
		case err != nil:
			errs = append(errs, field.Invalid(spec.Child("selector"), raw, "invalid label selector"))
		case sel.Empty():
			errs = append(errs, field.Invalid(spec.Child("selector"), raw, "empty selector is invalid for deployment"))
		case !sel.Matches(labels.Set(tl)):
			errs = append(errs, field.Invalid(spec.Child("template", "metadata", "labels"), tl, "`selector` does not match template `labels`"))
		}
	}
	return append(errs, podTemplate(obj, spec.Child("template"), "spec", "template", "spec")...)
}

func podTemplate(obj map[string]any, path *field.Path, where ...string) field.ErrorList {
	return containers(path.Child("spec"), at(obj, where...))
}

func containers(path *field.Path, spec any) field.ErrorList {
	var errs field.ErrorList
	m, _ := spec.(map[string]any)
	list, _ := m["containers"].([]any)
	if len(list) == 0 {
		errs = append(errs, field.Required(path.Child("containers"), ""))
	}
	seen := map[string]bool{}
	for _, f := range []string{"initContainers", "containers"} {
		cs, _ := m[f].([]any)
		for i, c := range cs {
			cm, _ := c.(map[string]any)
			p := path.Child(f).Index(i)
			name, _ := cm["name"].(string)
			if name == "" {
				errs = append(errs, field.Required(p.Child("name"), ""))
			} else {
				for _, msg := range apivalidation.NameIsDNSLabel(name, false) {
					errs = append(errs, field.Invalid(p.Child("name"), name, msg))
				}
				if seen[name] {
					errs = append(errs, field.Duplicate(p.Child("name"), name))
				}
			}
			seen[name] = true
			if image, _ := cm["image"].(string); image == "" && f == "containers" {
				errs = append(errs, field.Required(p.Child("image"), ""))
			}
		}
	}
	return errs
}

func servicePorts(obj map[string]any, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	ports, _ := at(obj, "spec", "ports").([]any)
	typ, _ := at(obj, "spec", "type").(string)
	ip, _ := at(obj, "spec", "clusterIP").(string)
	if len(ports) == 0 && typ != "ExternalName" && ip != "None" {
		errs = append(errs, field.Required(spec.Child("ports"), ""))
	}
	switch typ {
	case "ClusterIP", "NodePort", "LoadBalancer", "ExternalName":
	default:
		errs = append(errs, field.NotSupported(spec.Child("type"), typ, []string{"ClusterIP", "ExternalName", "LoadBalancer", "NodePort"}))
	}
	for i, p := range ports {
		pm, _ := p.(map[string]any)
		if n, _ := pm["port"].(int64); n < 1 || n > 65535 {
			errs = append(errs, field.Invalid(spec.Child("ports").Index(i).Child("port"), n, "must be between 1 and 65535, inclusive"))
		}
		if name, _ := pm["name"].(string); name == "" && len(ports) > 1 {
			errs = append(errs, field.Required(spec.Child("ports").Index(i).Child("name"), ""))
		}
	}
	return errs
}

func webhooks(obj map[string]any) field.ErrorList {
	var errs field.ErrorList
	list, _ := obj["webhooks"].([]any)
	for i, w := range list {
		m, _ := w.(map[string]any)
		p := field.NewPath("webhooks").Index(i)
		if se, _ := m["sideEffects"].(string); se == "" {
			errs = append(errs, field.Required(p.Child("sideEffects"), "must specify one of None, NoneOnDryRun"))
		}
		if v, _ := m["admissionReviewVersions"].([]any); len(v) == 0 {
			errs = append(errs, field.Required(p.Child("admissionReviewVersions"), "must specify one of v1, v1beta1"))
		}
	}
	return errs
}

// immutable lists the fields that an update may not change.
var immutable = map[string][][]string{
	"deployments.apps":                       {{"spec", "selector"}},
	"replicasets.apps":                       {{"spec", "selector"}},
	"daemonsets.apps":                        {{"spec", "selector"}},
	"jobs.batch":                             {{"spec", "selector"}, {"spec", "template"}, {"spec", "completionMode"}},
	"secrets":                                {{"type"}},
	"storageclasses.storage.k8s.io":          {{"provisioner"}, {"parameters"}, {"reclaimPolicy"}, {"volumeBindingMode"}},
	"rolebindings.rbac.authorization.k8s.io": {{"roleRef"}},
	"clusterrolebindings.rbac.authorization.k8s.io": {{"roleRef"}},
	"priorityclasses.scheduling.k8s.io":             {{"value"}},
}

// ValidateUpdate judges changes of fields that are fixed at creation.
func ValidateUpdate(gr schema.GroupResource, old, obj map[string]any) field.ErrorList {
	var errs field.ErrorList
	for _, path := range immutable[gr.String()] {
		v := at(obj, path...)
		if !reflect.DeepEqual(at(old, path...), v) {
			msg := apivalidation.FieldImmutableErrorMsg
			if path[0] == "roleRef" {
				msg = "cannot change roleRef"
				ref, _ := v.(map[string]any)
				v = struct{ APIGroup, Kind, Name any }{ref["apiGroup"], ref["kind"], ref["name"]}
			}
			errs = append(errs, field.Invalid(field.NewPath(path[0], path[1:]...), v, msg))
		}
	}
	switch gr.String() {
	case "services":
		a, _ := at(old, "spec", "clusterIP").(string)
		b, _ := at(obj, "spec", "clusterIP").(string)
		if typ, _ := at(obj, "spec", "type").(string); a != "" && a != b && typ != "ExternalName" {
			errs = append(errs, field.Invalid(field.NewPath("spec", "clusterIPs").Index(0), b, "may not change once set"))
		}
	case "statefulsets.apps":
		errs = append(errs, statefulSetUpdate(old, obj)...)
	case "pods":
		errs = append(errs, podUpdate(old, obj)...)
	case "configmaps", "secrets":
		if frozen, _ := old["immutable"].(bool); frozen {
			if still, _ := obj["immutable"].(bool); !still {
				errs = append(errs, field.Forbidden(field.NewPath("immutable"), "field is immutable when `immutable` is set"))
			}
			for _, f := range []string{"data", "binaryData"} {
				if !reflect.DeepEqual(old[f], obj[f]) {
					errs = append(errs, field.Forbidden(field.NewPath(f), "field is immutable when `immutable` is set"))
				}
			}
		}
	}
	return errs
}

func statefulSetUpdate(old, obj map[string]any) field.ErrorList {
	allowed := map[string]bool{"replicas": true, "ordinals": true, "template": true, "updateStrategy": true, "revisionHistoryLimit": true, "persistentVolumeClaimRetentionPolicy": true, "minReadySeconds": true}
	a, _ := old["spec"].(map[string]any)
	b, _ := obj["spec"].(map[string]any)
	for _, m := range []map[string]any{a, b} {
		for k := range m {
			if !allowed[k] && !reflect.DeepEqual(a[k], b[k]) {
				return field.ErrorList{field.Forbidden(field.NewPath("spec"), "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden")}
			}
		}
	}
	return nil
}

func podUpdate(old, obj map[string]any) field.ErrorList {
	strip := func(m map[string]any) map[string]any {
		spec, _ := m["spec"].(map[string]any)
		c := runtime.DeepCopyJSON(spec)
		for _, k := range []string{"activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations", "nodeName", "schedulingGates"} {
			delete(c, k)
		}
		for _, f := range []string{"containers", "initContainers"} {
			list, _ := c[f].([]any)
			for _, x := range list {
				if xm, ok := x.(map[string]any); ok {
					delete(xm, "image")
				}
			}
		}
		return c
	}
	if !reflect.DeepEqual(strip(old), strip(obj)) {
		return field.ErrorList{field.Forbidden(field.NewPath("spec"), "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)")}
	}
	return nil
}
