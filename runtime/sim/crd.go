package sim

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"rutter.dev/rutter/runtime/sim/openapi"
)

// crd is the served form of a CustomResourceDefinition. Clones of a cluster
// share it, so that its schemas are built once.
type crd struct {
	listKind  string
	spec      apiextensionsv1.CustomResourceDefinitionSpec
	versions  map[string]*crdVersion
	converter lazy[managedfields.TypeConverter]
}

// crdVersion holds one version's schema, decoded and built on first use: a
// cluster's definitions are mostly schemas, and few of them are ever asked for.
type crdVersion struct {
	def    apiextensionsv1.CustomResourceDefinitionVersion // without the schema
	schema any
	built  lazy[*crdSchema]
}

// crdSchema is what a version's objects are held against; the fields are nil
// for a version without a schema, rules also for one without CEL rules.
type crdSchema struct {
	schema    *structural.Structural
	validator validation.SchemaValidator
	rules     *cel.Validator
}

// lazy is a value that is made once, when it is first asked for.
type lazy[T any] struct {
	once  sync.Once
	value T
	err   error
}

func (l *lazy[T]) get(build func() (T, error)) (T, error) {
	l.once.Do(func() { l.value, l.err = build() })
	return l.value, l.err
}

// definition is the resource that a stored CustomResourceDefinition describes.
func (e *entry) definition(d *definitions) (*resource, error) {
	return e.def.get(func() (*resource, error) {
		return d.spec(e.obj.Object["spec"]).resource.get(func() (*resource, error) { return newCRD(e.obj) })
	})
}

// newCRD makes the resource that a stored CustomResourceDefinition describes.
func newCRD(obj *unstructured.Unstructured) (*resource, error) {
	var def apiextensionsv1.CustomResourceDefinition
	spec, schemas := withoutSchemas(obj)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(map[string]any{"spec": spec}, &def); err != nil {
		return nil, fmt.Errorf("customresourcedefinition %s: %w", obj.GetName(), err)
	}
	n := def.Spec.Names
	r := &resource{
		group: def.Spec.Group, plural: n.Plural, singular: n.Singular, kind: n.Kind, short: n.ShortNames,
		categories: n.Categories, namespaced: def.Spec.Scope == apiextensionsv1.NamespaceScoped,
		crd: &crd{listKind: n.ListKind, spec: def.Spec, versions: map[string]*crdVersion{}},
	}
	for _, v := range def.Spec.Versions {
		r.crd.versions[v.Name] = &crdVersion{def: v, schema: schemas[v.Name]}
		if v.Served {
			r.versions = append(r.versions, v.Name)
		}
		if v.Storage {
			r.storage = v.Name
		}
		if s := v.Subresources; s != nil {
			r.status = r.status || s.Status != nil
			r.scale = r.scale || s.Scale != nil
		}
	}
	return r, nil
}

// withoutSchemas is the spec of a definition without its versions' schemas, and
// these by the versions' names.
func withoutSchemas(obj *unstructured.Unstructured) (spec map[string]any, schemas map[string]any) {
	spec, _ = obj.Object["spec"].(map[string]any)
	spec, schemas = maps.Clone(spec), map[string]any{}
	versions, ok := spec["versions"].([]any)
	if !ok {
		return spec, schemas
	}
	versions = slices.Clone(versions)
	for i, v := range versions {
		if v, is := v.(map[string]any); is {
			name, _ := v["name"].(string)
			schemas[name] = v["schema"]
			v = maps.Clone(v)
			delete(v, "schema")
			versions[i] = v
		}
	}
	spec["versions"] = versions
	return spec, schemas
}

func (d *crd) version(v string) (*crdSchema, error) {
	x := d.versions[v]
	if x == nil {
		return nil, fmt.Errorf("version %s is not defined", v)
	}
	return x.built.get(func() (*crdSchema, error) {
		if x.schema == nil {
			return &crdSchema{}, nil
		}
		var def apiextensionsv1.CustomResourceDefinitionVersion
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(map[string]any{"schema": x.schema}, &def); err != nil {
			return nil, fmt.Errorf("schema of version %s: %w", v, err)
		}
		return newSchema(v, def.Schema)
	})
}

func newSchema(v string, s *apiextensionsv1.CustomResourceValidation) (*crdSchema, error) {
	x := &crdSchema{}
	if s != nil && s.OpenAPIV3Schema != nil {
		var internal apiextensions.JSONSchemaProps
		if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(s.OpenAPIV3Schema, &internal, nil); err != nil {
			return nil, fmt.Errorf("schema of version %s: %w", v, err)
		}
		var err error
		if x.schema, err = structural.NewStructural(&internal); err != nil {
			return nil, fmt.Errorf("schema of version %s is not structural: %w", v, err)
		}
		if x.validator, _, err = validation.NewSchemaValidator(&internal); err != nil {
			return nil, fmt.Errorf("schema of version %s: %w", v, err)
		}
		x.rules = cel.NewValidator(x.schema, true, celconfig.PerCallLimit)
	}
	return x, nil
}

// normalize prunes unknown fields and fills in the schema's defaults.
func (d *crd) normalize(res *resource, obj *unstructured.Unstructured, o writeOptions) (*unstructured.Unstructured, error) {
	v, err := d.version(o.version)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	obj.SetGroupVersionKind(res.gvk(o.version))
	if v.schema == nil {
		return obj, nil
	}
	if !d.spec.PreserveUnknownFields {
		opts := structural.UnknownFieldPathOptions{TrackUnknownFieldPaths: o.validation != "Ignore"}
		unknown := pruning.PruneWithOptions(obj.Object, v.schema, true, opts)
		if len(unknown) > 0 && o.validation == "Strict" {
			errs := make([]error, 0, len(unknown))
			for _, u := range unknown {
				errs = append(errs, fmt.Errorf("unknown field %q", u))
			}
			return nil, apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %s", res.kind, o.version, res.kind, runtime.NewStrictDecodingError(errs).Error()))
		}
		for _, u := range unknown {
			o.warn(fmt.Sprintf("unknown field %q", u))
		}
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(obj.Object, v.schema)
	defaulting.Default(obj.Object, v.schema)
	return obj, nil
}

// validate judges an object against the schema of its version; old is nil for
// a creation.
func (d *crd) validate(version string, obj, old *unstructured.Unstructured) field.ErrorList {
	v, err := d.version(version)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	if v.validator == nil {
		return nil
	}
	var errs field.ErrorList
	var rules []cel.Option
	var before any
	if old != nil {
		same := common.NewCorrelatedObject(obj.Object, old.Object, &model.Structural{Structural: v.schema})
		errs = validation.ValidateCustomResourceUpdate(nil, obj.Object, old.Object, v.validator, validation.WithRatcheting(same))
		rules, before = append(rules, cel.WithRatcheting(same)), old.Object
	} else {
		errs = validation.ValidateCustomResource(nil, obj.Object, v.validator)
	}
	if old == nil || len(listtype.ValidateListSetsAndMaps(nil, v.schema, old.Object)) == 0 {
		errs = append(errs, listtype.ValidateListSetsAndMaps(nil, v.schema, obj.Object)...)
	}
	if v.rules == nil {
		return errs
	}
	if slices.ContainsFunc(errs, blocksRules) {
		return append(errs, field.Invalid(nil, nil, "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"))
	}
	more, _ := v.rules.Validate(context.Background(), nil, v.schema, obj.Object, before, celconfig.RuntimeCELCostBudget, rules...)
	return append(errs, more...)
}

// blocksRules reports whether an error keeps the CEL rules from being checked:
// they could not rely on the object's form.
func blocksRules(e *field.Error) bool {
	switch e.Type {
	case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
		return true
	}
	return false
}

// openAPISchema is the version's schema as the server publishes it: with
// apiVersion, kind and metadata.
func (d *crd) openAPISchema(res *resource, version string) (*spec.Schema, error) {
	v, err := d.version(version)
	if err != nil {
		return nil, err
	}
	s := &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}
	if v.schema != nil {
		s = v.schema.ToKubeOpenAPI()
	}
	props := map[string]spec.Schema{}
	for k, p := range s.Properties {
		props[k] = p
	}
	props["apiVersion"], props["kind"] = *spec.StringProperty(), *spec.StringProperty()
	props["metadata"] = *spec.RefSchema(openapi.Prefix + objectMetaModel)
	s.Properties = props
	s.AddExtension("x-kubernetes-group-version-kind", []any{map[string]any{"group": res.group, "version": version, "kind": res.kind}})
	return s, nil
}

const objectMetaModel = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

// modelName is the name of the version's schema, as the real server makes it.
func (d *crd) modelName(res *resource, version string) string {
	return reverseDomain(res.group) + "." + version + "." + res.kind
}

// types converts the resource's objects for server-side apply by its schema.
func (d *crd) types(res *resource) (managedfields.TypeConverter, error) {
	return d.converter.get(func() (managedfields.TypeConverter, error) { return d.newConverter(res) })
}

func (d *crd) newConverter(res *resource) (managedfields.TypeConverter, error) {
	models := openapi.ObjectMeta()
	for v := range d.versions {
		s, err := d.openAPISchema(res, v)
		if err != nil {
			return nil, err
		}
		models[d.modelName(res, v)] = s
	}
	tc, err := managedfields.NewTypeConverter(models, d.spec.PreserveUnknownFields)
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", res.gr(), err)
	}
	return tc, nil
}
