package sim

import (
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"rutter.dev/rutter/runtime/sim/kinds"
)

// normalize decodes the object as the server would: unknown fields go (or are
// refused), defaults come. For built-in kinds that is a round trip through the
// Go type, so that the form of the result is the real server's.
func (c *Cluster) normalize(res *resource, obj *unstructured.Unstructured, o writeOptions) (*unstructured.Unstructured, error) {
	if res.crd != nil {
		return res.crd.normalize(res, obj, o)
	}
	if res.gr() == grCRDs {
		return c.normalizeDefinition(res, obj, o)
	}
	return normalizeTyped(res, obj, o)
}

// normalizeTyped is normalize for a built-in kind.
func normalizeTyped(res *resource, obj *unstructured.Unstructured, o writeOptions) (*unstructured.Unstructured, error) {
	gvk := res.gvk(o.version)
	typed, err := kinds.Scheme().New(gvk)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if o.validation == "" && !o.controller && !o.load {
		o.validation = "Warn"
	}
	err = runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(obj.Object, typed, o.validation == "Strict" || o.validation == "Warn")
	if strict, ok := runtime.AsStrictDecodingError(err); ok {
		if o.validation == "Strict" {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %s", res.kind, o.version, res.kind, strict.Error()))
		}
		for _, e := range strict.Errors() {
			o.warn(e.Error())
		}
	} else if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", res.kind, o.version, res.kind, decodingError(obj, typed, err)))
	}
	kinds.Default(typed)
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if !o.controller && !o.load {
		kinds.Nils(gvk.GroupKind(), m)
	}
	out := &unstructured.Unstructured{Object: m}
	out.SetGroupVersionKind(gvk)
	return out, nil
}

// decodingError words what does not fit a Go type as the server's decoder, which
// reads JSON, does.
func decodingError(obj *unstructured.Unstructured, typed runtime.Object, err error) error {
	if b, merr := json.Marshal(obj.Object); merr == nil {
		if jerr := kjson.UnmarshalCaseSensitivePreserveInts(b, typed); jerr != nil {
			return jerr
		}
	}
	return err
}

// prepareCreate sets what the server sets on a new object.
func (c *Cluster) prepareCreate(res *resource, obj *unstructured.Unstructured, o writeOptions) {
	if hasGeneration(res) && (obj.GetGeneration() == 0 || !o.load) { // others keep what they are sent with
		obj.SetGeneration(1)
	}
	if o.load {
		if res.gr() == grNamespaces {
			prepareNamespace(obj)
		}
		return
	}
	switch res.gr() {
	case grNamespaces:
		prepareNamespace(obj)
	case grPods:
		obj.Object["status"] = map[string]any{"phase": "Pending", "qosClass": kinds.QOSClass(obj.Object)}
	default:
		if !res.status || res.plural == "nodes" {
			return
		}
		if res.crd != nil {
			delete(obj.Object, "status")
			return
		}
		resetStatus(res, obj)
	}
}

// resetStatus gives the object the status of an empty Go value.
func resetStatus(res *resource, obj *unstructured.Unstructured) {
	delete(obj.Object, "status")
	if empty := kinds.EmptyStatus(obj.GroupVersionKind()); empty != nil {
		obj.Object["status"] = empty
	}
	if res.plural == "persistentvolumeclaims" || res.plural == "persistentvolumes" {
		obj.Object["status"] = map[string]any{"phase": "Pending"}
	}
}

// prepareNamespace labels a namespace with its name and makes it active.
func prepareNamespace(obj *unstructured.Unstructured) {
	l := obj.GetLabels()
	if l == nil {
		l = map[string]string{}
	}
	l["kubernetes.io/metadata.name"] = obj.GetName()
	obj.SetLabels(l)
	obj.Object["spec"] = map[string]any{}
	obj.Object["status"] = map[string]any{"phase": "Active"}
}

// prepareUpdate carries over what the request may not change.
func (c *Cluster) prepareUpdate(res *resource, cur, next *unstructured.Unstructured, o writeOptions) (*unstructured.Unstructured, error) {
	if o.subresource == "status" {
		out := shallow(cur)
		if s, ok := next.Object["status"]; ok {
			out.Object["status"] = s
		} else {
			delete(out.Object, "status")
		}
		if m := managedFields(next); m != nil {
			setMeta(out, "managedFields", m)
		}
		if o.controller {
			return out, nil
		}
		return c.normalize(res, out, o)
	}
	meta := next.Object["metadata"].(map[string]any)
	old, _ := cur.Object["metadata"].(map[string]any)
	for _, f := range []string{"uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "generateName", "resourceVersion"} {
		if v, ok := old[f]; ok {
			meta[f] = v
		} else {
			delete(meta, f)
		}
	}
	delete(meta, "selfLink")
	if _, ok := meta["managedFields"]; !ok && old["managedFields"] != nil {
		meta["managedFields"] = old["managedFields"]
	}
	keepOnUpdate(res, cur, next)
	var err error
	if !o.controller {
		if next, err = c.normalizeLike(res, cur, next, o); err != nil {
			return nil, err
		}
	}
	if res.status && (!o.load || next.Object["status"] == nil) {
		if s, ok := cur.Object["status"]; ok {
			next.Object["status"] = s
		} else {
			delete(next.Object, "status")
		}
	}
	return next, nil
}

// keepOnUpdate keeps values that the server allocated and that an update may
// leave out.
func keepOnUpdate(res *resource, cur, next *unstructured.Unstructured) {
	switch res.gr() {
	case grServices:
		kinds.KeepServiceFields(cur.Object, next.Object)
	case grNamespaces:
		if _, ok := next.Object["spec"]; !ok {
			next.Object["spec"] = cur.Object["spec"]
		}
		l := next.GetLabels()
		if l == nil {
			l = map[string]string{}
		}
		if l["kubernetes.io/metadata.name"] != next.GetName() {
			l["kubernetes.io/metadata.name"] = next.GetName()
			next.SetLabels(l)
		}
	}
}

// allocate sets what the server sets so late that its owner is nobody: the
// finalizer of a namespace, and the address of a Service, by the counter rather
// than at random.
func (c *Cluster) allocate(res *resource, obj *unstructured.Unstructured) {
	switch res.gr() {
	case grNamespaces:
		obj.Object["spec"] = map[string]any{"finalizers": []any{"kubernetes"}}
	case grServices:
		kinds.AllocateClusterIP(obj.Object, func() uint32 {
			d := c.digest()
			return uint32(d[0])<<8 | uint32(d[1])
		}, func(ip string) bool { return c.clusterIPUsed(ip) })
	}
}

func (c *Cluster) clusterIPUsed(ip string) bool {
	t := c.st.read(grServices, "")
	if t == nil {
		return false
	}
	for _, e := range t.items {
		if s, _, _ := unstructured.NestedString(e.obj.Object, "spec", "clusterIP"); s == ip {
			return true
		}
	}
	return false
}

func (c *Cluster) validateCreate(res *resource, obj *unstructured.Unstructured, o writeOptions) error {
	errs := kinds.ValidateMeta(res.gr(), obj, res.namespaced)
	if !o.controller {
		if res.crd != nil {
			errs = append(errs, res.crd.validate(o.version, obj, nil)...)
		} else {
			errs = append(errs, kinds.Validate(res.gvk(o.version), obj.Object)...)
			errs = append(errs, admissionErrors(res, obj)...)
			errs = append(errs, quotaErrors(res, obj)...)
			if res.gr() == grCRDs && !o.load {
				errs = c.definitionErrors(obj, nil) // of the metadata, too
			}
		}
	}
	return invalid(res, obj.GetName(), errs)
}

func (c *Cluster) validateUpdate(res *resource, cur, next *unstructured.Unstructured, o writeOptions) error {
	if o.controller {
		return nil
	}
	errs := kinds.ValidateMetaUpdate(cur, next)
	switch {
	case res.crd != nil:
		errs = append(errs, res.crd.validate(o.version, next, cur)...)
	case o.subresource == "":
		errs = append(errs, kinds.Validate(res.gvk(o.version), next.Object)...)
		errs = append(errs, kinds.ValidateUpdate(res.gr(), cur.Object, next.Object)...)
		errs = append(errs, admissionErrors(res, next)...)
		errs = append(errs, quotaErrors(res, next)...)
		if res.gr() == grCRDs && !o.load {
			errs = append(c.definitionErrors(next, cur), errs...)
		}
	}
	return invalid(res, next.GetName(), errs)
}

func invalid(res *resource, name string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(res.gk(), name, errs)
}
