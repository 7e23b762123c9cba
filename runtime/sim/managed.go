package sim

import (
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"rutter.dev/rutter/runtime/sim/kinds"
	"rutter.dev/rutter/runtime/sim/openapi"
)

// managerKey names one field manager: they differ by kind, version and
// subresource.
type managerKey struct {
	gvk schema.GroupVersionKind
	sub string
}

// builtinTypes converts built-in kinds for server-side apply. It is built once
// for the process, because parsing the schemas takes long; nothing changes it.
var builtinTypes = sync.OnceValue(func() managedfields.TypeConverter {
	return applyconfigurations.NewTypeConverter(kinds.Scheme())
})

// definitionTypes is the same for CustomResourceDefinition, which client-go
// does not know.
var definitionTypes = sync.OnceValues(func() (managedfields.TypeConverter, error) {
	gv := schema.GroupVersion{Group: grCRDs.Group, Version: "v1"}
	return managedfields.NewTypeConverter(openapi.Schemas(kinds.Scheme(), gv, []string{"CustomResourceDefinition"}), false)
})

func (c *Cluster) typeConverter(res *resource) (managedfields.TypeConverter, error) {
	switch {
	case res.crd != nil:
		return res.crd.types(res)
	case res.gr() == grCRDs:
		return definitionTypes()
	case res.createOnly: // nor these, which are only answered
		gv := res.gvk(res.storage).GroupVersion()
		return managedfields.NewTypeConverter(openapi.Schemas(kinds.Scheme(), gv, []string{res.kind}), false)
	}
	return builtinTypes(), nil
}

func (c *Cluster) fieldManager(res *resource, version, sub string) (*managedfields.FieldManager, error) {
	k := managerKey{res.gvk(version), sub}
	if fm := c.managers[k]; fm != nil {
		return fm, nil
	}
	types, err := c.typeConverter(res)
	if err != nil {
		return nil, err
	}
	build := managedfields.NewDefaultFieldManager
	if res.crd != nil {
		build = managedfields.NewDefaultCRDFieldManager
	}
	fm, err := build(types, converter{c, res}, noDefaults{}, creator{c, res}, k.gvk, k.gvk.GroupVersion(), sub, resetFields(res, sub))
	if err != nil {
		return nil, err
	}
	c.managers[k] = fm
	return fm, nil
}

// forget drops the field managers of a resource whose schema changed.
func (c *Cluster) forget(gk schema.GroupKind) {
	for k := range c.managers {
		if k.gvk.GroupKind() == gk {
			delete(c.managers, k)
		}
	}
}

// resetFields are the fields that a request cannot own because the server
// ignores them: the status on the main resource, all else on the status.
func resetFields(res *resource, sub string) map[fieldpath.APIVersion]fieldpath.Filter {
	if !res.status {
		return nil
	}
	paths := fieldpath.NewSet(fieldpath.MakePathOrDie("status"))
	if sub == "status" {
		paths = fieldpath.NewSet(fieldpath.MakePathOrDie("spec"), fieldpath.MakePathOrDie("metadata"))
	}
	out := map[fieldpath.APIVersion]fieldpath.Filter{}
	for _, v := range res.versions {
		out[fieldpath.APIVersion(res.gvk(v).GroupVersion().String())] = fieldpath.NewExcludeSetFilter(paths)
	}
	return out
}

// track records in the object's managedFields what this write changed.
func (c *Cluster) track(res *resource, live, obj *unstructured.Unstructured, o writeOptions) (*unstructured.Unstructured, error) {
	fm, err := c.fieldManager(res, o.version, o.subresource)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("field manager of %s: %w", res.gr(), err))
	}
	out, err := fm.Update(live, obj, o.manager)
	if err != nil { // validation will say what does not fit the schema
		setMeta(obj, "managedFields", nil)
		return obj, nil //nolint:nilerr // as the server does (FieldManager.UpdateNoErrors)
	}
	u, ok := out.(*unstructured.Unstructured)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("managed fields of %s: unexpected %T", res.gr(), out))
	}
	c.stamp(live, u)
	return u, nil
}

// stamp replaces the machine's time in changed managedFields entries by the
// virtual one, and keeps the time of entries that did not change.
func (c *Cluster) stamp(live, obj *unstructured.Unstructured) {
	meta, _ := obj.Object["metadata"].(map[string]any)
	list, _ := meta["managedFields"].([]any)
	if list == nil {
		return
	}
	lm, _ := live.Object["metadata"].(map[string]any)
	old, _ := lm["managedFields"].([]any)
	out := make([]any, 0, len(list))
	for _, e := range list {
		m, ok := e.(map[string]any)
		if !ok {
			continue
		}
		n := make(map[string]any, len(m))
		for k, v := range m {
			n[k] = v
		}
		n["time"] = c.timestamp()
		for _, p := range old {
			if pm, ok := p.(map[string]any); ok && sameManager(pm, n) {
				n["time"] = pm["time"]
			}
		}
		out = append(out, n)
	}
	meta["managedFields"] = out
}

// managedFields are the object's entries as they are stored, undecoded.
func managedFields(obj *unstructured.Unstructured) []any {
	meta, _ := obj.Object["metadata"].(map[string]any)
	list, _ := meta["managedFields"].([]any)
	return list
}

func sameManager(a, b map[string]any) bool {
	for _, k := range []string{"manager", "operation", "apiVersion", "subresource"} {
		if a[k] != b[k] {
			return false
		}
	}
	return kinds.Equal(a["fieldsV1"], b["fieldsV1"])
}

// converter adapts convert to the field manager.
type converter struct {
	c   *Cluster
	res *resource
}

// Convert implements runtime.ObjectConvertor; the field manager does not use it.
func (converter) Convert(in, out, _ any) error {
	return fmt.Errorf("converting %T into %T is not supported", in, out)
}

// ConvertToVersion implements runtime.ObjectConvertor.
func (k converter) ConvertToVersion(in runtime.Object, gv runtime.GroupVersioner) (runtime.Object, error) {
	u, ok := in.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("unexpected %T", in)
	}
	want, ok := gv.KindForGroupVersionKinds([]schema.GroupVersionKind{u.GroupVersionKind()})
	if !ok {
		v, isGV := gv.(schema.GroupVersion)
		if !isGV {
			return in, nil
		}
		want = v.WithKind(u.GetKind())
	}
	if !k.res.serves(want.Version) {
		return nil, runtime.NewNotRegisteredErrForKind("simulated cluster", want)
	}
	return k.c.convert(k.res, u, want.Version)
}

// ConvertFieldLabel implements runtime.ObjectConvertor.
func (converter) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}

// noDefaults leaves defaulting to normalize, after the merge.
type noDefaults struct{}

// Default implements runtime.ObjectDefaulter.
func (noDefaults) Default(runtime.Object) {}

// creator makes what an object is compared with when nobody manages it yet.
type creator struct {
	c   *Cluster
	res *resource
}

// New implements runtime.ObjectCreater.
func (k creator) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	return k.c.blank(k.res, gvk.Version), nil
}
