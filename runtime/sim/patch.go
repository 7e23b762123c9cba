package sim

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/mergepatch"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"rutter.dev/rutter/runtime/plain"
	"rutter.dev/rutter/runtime/sim/kinds"
)

// patch changes a stored object by a patch of any of the four kinds. created
// reports that server-side apply made a new object.
func (c *Cluster) patch(gr schema.GroupResource, ns, name string, pt types.PatchType, body []byte, force *bool, o writeOptions) (obj *unstructured.Unstructured, created bool, err error) {
	res := c.reg.byName[gr]
	if res == nil {
		return nil, false, errNotServed()
	}
	if pt == types.ApplyYAMLPatchType {
		return c.apply(res, ns, name, body, force != nil && *force, o)
	}
	if force != nil {
		return nil, false, apierrors.NewInvalid(schema.GroupKind{Group: "meta.k8s.io", Kind: "PatchOptions"}, "", field.ErrorList{
			field.Forbidden(field.NewPath("force"), "may not be specified for non-apply patch"),
		})
	}
	obj, err = c.update(gr, ns, name, o, func(cur *unstructured.Unstructured) (*unstructured.Unstructured, error) {
		next, err := patched(res, cur, pt, body, o)
		if err == nil && next.GetUID() != "" && next.GetUID() != cur.GetUID() {
			return nil, fixedUID(res, name, string(next.GetUID()))
		}
		return next, err
	})
	return obj, false, err
}

// patched applies a JSON, merge or strategic merge patch to the present state.
func patched(res *resource, cur *unstructured.Unstructured, pt types.PatchType, body []byte, o writeOptions) (*unstructured.Unstructured, error) {
	switch pt {
	case types.JSONPatchType, types.MergePatchType:
		before, err := plain.Encode(cur.Object)
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		var after []byte
		if pt == types.JSONPatchType {
			p, err := jsonpatch.DecodePatch(body)
			if err != nil {
				text := strings.Replace(err.Error(), "jsonpatch.Patch", "[]handlers.jsonPatchOp", 1)
				return nil, apierrors.NewBadRequest("error decoding patch: " + text)
			}
			if after, err = p.Apply(before); err != nil {
				return nil, apierrors.NewGenericServerResponse(422, "", schema.GroupResource{}, "", err.Error(), 0, false)
			}
		} else {
			var m map[string]any
			if err := utiljson.Unmarshal(body, &m); err != nil {
				return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
			}
			if after, err = jsonpatch.MergePatch(before, body); err != nil {
				return nil, apierrors.NewBadRequest(err.Error())
			}
		}
		return decodeJSON(after)
	case types.StrategicMergePatchType:
		if res.crd != nil {
			return nil, unsupportedPatch(res)
		}
		var p map[string]any
		if err := utiljson.Unmarshal(body, &p); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		typed, err := kinds.Scheme().New(res.gvk(o.version))
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		m, err := strategicpatch.StrategicMergeMapPatch(cur.DeepCopy().Object, p, typed)
		if err != nil {
			return nil, strategicError(err)
		}
		return &unstructured.Unstructured{Object: m}, nil
	}
	return nil, unsupportedPatch(res)
}

// strategicError is what the server makes of a strategic merge patch that cannot
// be merged (apiserver handlers, interpretStrategicMergePatchError): what it has
// no code for is a bare 500.
func strategicError(err error) error {
	switch {
	case errors.Is(err, mergepatch.ErrBadJSONDoc), errors.Is(err, mergepatch.ErrBadPatchFormatForPrimitiveList), errors.Is(err, mergepatch.ErrBadPatchFormatForRetainKeys),
		errors.Is(err, mergepatch.ErrBadPatchFormatForSetElementOrderList), errors.Is(err, mergepatch.ErrUnsupportedStrategicMergePatchFormat):
		return apierrors.NewBadRequest(err.Error())
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: 500, Message: err.Error()}}
}

func unsupportedPatch(res *resource) error {
	if res.crd == nil {
		return unsupportedMedia("415: Unsupported Media Type")
	}
	return unsupportedMedia("the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml")
}

func decodeJSON(b []byte) (*unstructured.Unstructured, error) {
	m, err := plain.Decode(b)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return &unstructured.Unstructured{Object: m}, nil
}

// apply is server-side apply.
func (c *Cluster) apply(res *resource, ns, name string, body []byte, force bool, o writeOptions) (*unstructured.Unstructured, bool, error) {
	if o.manager == "" {
		return nil, false, apierrors.NewInvalid(schema.GroupKind{Group: "meta.k8s.io", Kind: "PatchOptions"}, "", requiredManager())
	}
	if o.version == "" {
		o.version = res.storage
	}
	if o.dryRun {
		defer c.rehearse()()
	}
	wanted, err := appliedObject(res, ns, name, body, o)
	if err != nil {
		return nil, false, err
	}
	fm, err := c.fieldManager(res, o.version, o.subresource)
	if err != nil {
		return nil, false, apierrors.NewInternalError(fmt.Errorf("field manager of %s: %w", res.gr(), err))
	}
	k := objectKey{res.gr(), ns, name}
	e := c.st.get(k)
	if e == nil {
		if o.subresource != "" {
			return nil, false, apierrors.NewNotFound(res.gr(), name)
		}
		if uid := wanted.GetUID(); uid != "" {
			return nil, false, fixedUID(res, name, string(uid))
		}
		wanted.SetResourceVersion("")
		if err := c.mayCreate(res, ns, name, o); err != nil {
			return nil, false, err
		}
		obj, err := c.applyNew(res, fm, ns, wanted, force, o)
		return obj, true, err
	}
	cur, err := c.convert(res, e.obj, o.version)
	if err != nil {
		return nil, false, err
	}
	if err := c.precondition(res.gr(), name, e, wanted); err != nil {
		return nil, false, err
	}
	out, err := fm.Apply(cur, wanted, o.manager, force)
	if err != nil {
		return nil, false, applyError(err)
	}
	next, ok := out.(*unstructured.Unstructured)
	if !ok {
		return nil, false, apierrors.NewInternalError(fmt.Errorf("apply to %s: unexpected %T", res.gr(), out))
	}
	next = next.DeepCopy() // it may share with the stored object
	c.stamp(cur, next)
	if !same(cur, next) { // what is stored has been normalized
		managed := managedFields(next)
		if next, err = c.prepareUpdate(res, cur, next, o); err != nil {
			return nil, false, err
		}
		if managed == nil { // the last owner has gone; an update would keep it
			setMeta(next, "managedFields", nil)
		}
	}
	obj, err := c.finishUpdate(res, k, e, cur, next, o)
	return obj, false, err
}

// applyNew creates an object by server-side apply.
func (c *Cluster) applyNew(res *resource, fm *managedfields.FieldManager, ns string, wanted *unstructured.Unstructured, force bool, o writeOptions) (*unstructured.Unstructured, error) {
	live := c.blank(res, o.version)
	out, err := fm.Apply(live, wanted, o.manager, force)
	if err != nil {
		return nil, applyError(err)
	}
	obj, ok := out.(*unstructured.Unstructured)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("apply to %s: unexpected %T", res.gr(), out))
	}
	obj = obj.DeepCopy()
	c.stamp(live, obj)
	meta, _ := obj.Object["metadata"].(map[string]any)
	managed := meta["managedFields"]
	// The server compares an apply's resourceVersion with that of the object
	// that is there. Where there is none it is not looked at, other than in a
	// create (k8s.io/apiserver registry/generic/registry/store.go, Update).
	obj.SetResourceVersion("")
	o.untracked, o.managed = true, managed
	return c.create(res.gr(), ns, obj, o)
}

// appliedObject decodes an apply body and makes it agree with the URL.
func appliedObject(res *resource, ns, name string, body []byte, o writeOptions) (*unstructured.Unstructured, error) {
	u, err := decodeApplied(body, o.validation == "Strict")
	if err != nil {
		return nil, err
	}
	if u.GroupVersionKind() != res.gvk(o.version) {
		return nil, apierrors.NewBadRequest("invalid object type: " + u.GroupVersionKind().String())
	}
	if u.GetName() == "" {
		u.SetName(name)
	}
	if u.GetName() != name {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", u.GetName(), name))
	}
	if res.namespaced {
		if u.GetNamespace() != "" && u.GetNamespace() != ns {
			return nil, apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
		}
	}
	if u.Object["metadata"].(map[string]any)["managedFields"] != nil {
		return nil, apierrors.NewBadRequest("metadata.managedFields must be nil")
	}
	return u, nil
}

// fixedUID refuses a patch that names another uid than the object's.
func fixedUID(res *resource, name, uid string) error {
	return apierrors.NewInvalid(res.gk(), name, field.ErrorList{field.Invalid(field.NewPath("metadata", "uid"), uid, "field is immutable").WithOrigin("immutable")})
}

// decodeApplied reads an apply body: YAML by its media type, but JSON in
// practice, which is read far more quickly as such.
func decodeApplied(body []byte, strict bool) (*unstructured.Unstructured, error) {
	if t := bytes.TrimSpace(body); len(t) > 0 && t[0] == '{' {
		m := map[string]any{}
		twice, err := kjson.UnmarshalStrict(t, &m)
		if err == nil {
			if strict && len(twice) > 0 {
				return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", twice[0]))
			}
			return &unstructured.Unstructured{Object: m}, nil
		}
	}
	read := plain.Written.LaxJSON
	if strict {
		read = plain.Written.JSON
	}
	j, err := read(body)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error %sdecoding YAML: error converting YAML to JSON: %v", map[bool]string{true: "strict "}[strict], err))
	}
	return decodeJSON(j)
}

// applyError keeps API errors (conflicts with their causes) and makes a bad
// request of the rest, which are objects that do not fit the schema.
func applyError(err error) error {
	if _, ok := err.(apierrors.APIStatus); ok { //nolint:errorlint // the field manager does not wrap
		return err
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: 500, Reason: "", Message: err.Error(),
	}}
}
