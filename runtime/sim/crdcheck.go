package sim

import (
	"context"
	"encoding/json"
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
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"rutter.dev/rutter/runtime/sim/kinds"
)

// definitionErrors judges a CustomResourceDefinition that is to be stored; old
// is nil for a creation. The judgement of schemas is the API server's own
// packages'. What puts them together there (apiextensions/validation) links
// the whole of k8s.io/apiserver, so it is done again here, without the
// estimates of what rules cost.
func (c *Cluster) definitionErrors(obj, old *unstructured.Unstructured) field.ErrorList {
	forms := c.defs.spec(obj.Object["spec"])
	next, err := internalDefinition(obj, forms)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	var errs field.ErrorList
	spec := field.NewPath("spec")
	if want := next.Spec.Names.Plural + "." + next.Spec.Group; next.Name != want {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), next.Name, "must be spec.names.plural+\".\"+spec.group"))
	}
	switch next.Spec.Scope {
	case "":
		errs = append(errs, field.Required(spec.Child("scope"), ""))
	case apiextensions.ClusterScoped, apiextensions.NamespaceScoped:
	default:
		errs = append(errs, field.NotSupported(spec.Child("scope"), next.Spec.Scope, []string{string(apiextensions.ClusterScoped), string(apiextensions.NamespaceScoped)}))
	}
	errs = append(errs, versionErrors(next, spec)...)
	if old == nil {
		return append(errs, forms.schemaErrors(next, spec)...)
	}
	if !kinds.Equal(obj.Object["spec"], old.Object["spec"]) {
		errs = append(errs, forms.schemaErrors(next, spec)...)
	}
	for _, f := range []struct {
		at  []string
		now any
	}{
		{[]string{"group"}, next.Spec.Group},
		{[]string{"scope"}, next.Spec.Scope},
		{[]string{"names", "kind"}, next.Spec.Names.Kind},
		{[]string{"names", "plural"}, next.Spec.Names.Plural},
	} {
		// Four words of what is stored: its schemas need no decoding for them.
		was, _, err := unstructured.NestedString(old.Object, append([]string{"spec"}, f.at...)...)
		if err != nil {
			return append(errs, field.InternalError(spec, err))
		}
		if fmt.Sprint(f.now) != was {
			errs = append(errs, field.Invalid(spec.Child(f.at[0], f.at[1:]...), f.now, apivalidation.FieldImmutableErrorMsg))
		}
	}
	return errs
}

// internalDefinition is obj as the API server's packages judge it. Its spec may
// be shared.
func internalDefinition(obj *unstructured.Unstructured, forms *specForms) (*apiextensions.CustomResourceDefinition, error) {
	spec, err := forms.internal.get(func() (*apiextensions.CustomResourceDefinitionSpec, error) { return internalSpec(obj.Object["spec"]) })
	if err != nil {
		return nil, err
	}
	out := &apiextensions.CustomResourceDefinition{Spec: *spec}
	out.Name = obj.GetName()
	status, _ := obj.Object["status"].(map[string]any)
	stored, _ := status["storedVersions"].([]any) // normalize has seen to it
	for _, v := range stored {
		out.Status.StoredVersions = append(out.Status.StoredVersions, fmt.Sprint(v))
	}
	if len(stored) == 0 { // establish sets it
		for _, v := range spec.Versions {
			if v.Storage {
				out.Status.StoredVersions = []string{v.Name}
			}
		}
	}
	return out, nil
}

func internalSpec(spec any) (*apiextensions.CustomResourceDefinitionSpec, error) {
	var def apiextensionsv1.CustomResourceDefinition
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(map[string]any{"spec": spec}, &def); err != nil {
		return nil, err
	}
	out := &apiextensions.CustomResourceDefinition{}
	err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&def, out, nil)
	return &out.Spec, err
}

// versionErrors judges the versions: one is stored, each stored one is there.
func versionErrors(def *apiextensions.CustomResourceDefinition, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	storage, names := 0, map[string]bool{}
	for i, v := range def.Spec.Versions {
		if v.Storage {
			storage++
		}
		if names[v.Name] {
			errs = append(errs, field.Invalid(spec.Child("versions"), shown(def.Spec.Versions), "must contain unique version names"))
		}
		names[v.Name] = true
		if def.Spec.Validation == nil && (v.Schema == nil || v.Schema.OpenAPIV3Schema == nil) {
			errs = append(errs, field.Required(spec.Child("versions").Index(i).Child("schema", "openAPIV3Schema"), ""))
		}
	}
	if storage != 1 {
		errs = append(errs, field.Invalid(spec.Child("versions"), shown(def.Spec.Versions), "must have exactly one version marked as storage version"))
	}
	stored := field.NewPath("status", "storedVersions")
	if len(def.Status.StoredVersions) == 0 {
		errs = append(errs, field.Invalid(stored, nil, "must have at least one stored version"))
	}
	for i, v := range def.Status.StoredVersions {
		if !names[v] {
			errs = append(errs, field.Invalid(stored.Index(i), v, "missing from spec.versions; "+v+" was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in "+v+" and removes "+v+" from status.storedVersions"))
		}
	}
	return errs
}

// shown is a value as the server shows it in an error.
func shown(v any) any {
	b, err := json.Marshal(v)
	if err != nil {
		return v
	}
	return json.RawMessage(b)
}

// schemaErrors judges the schemas of def, whose spec's forms f are.
func (f *specForms) schemaErrors(def *apiextensions.CustomResourceDefinition, spec *field.Path) field.ErrorList {
	errs, _ := f.errs.get(func() (field.ErrorList, error) { return schemaErrors(def, spec), nil })
	return errs
}

// schemaErrors judges the schemas: structural, with defaults that fit, and
// rules that compile. A schema that all versions have is at spec.validation.
func schemaErrors(def *apiextensions.CustomResourceDefinition, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	judge := func(v *apiextensions.CustomResourceValidation, path *field.Path) {
		if v != nil && v.OpenAPIV3Schema != nil {
			errs = append(errs, oneSchemaErrors(def, v.OpenAPIV3Schema, path.Child("openAPIV3Schema"))...)
		}
	}
	judge(def.Spec.Validation, spec.Child("validation"))
	for i, v := range def.Spec.Versions {
		judge(v.Schema, spec.Child("versions").Index(i).Child("schema"))
	}
	return errs
}

func oneSchemaErrors(def *apiextensions.CustomResourceDefinition, s *apiextensions.JSONSchemaProps, path *field.Path) field.ErrorList {
	preserve := def.Spec.PreserveUnknownFields != nil && *def.Spec.PreserveUnknownFields
	if s.Type == "" && !preserve {
		return field.ErrorList{field.Required(path.Child("type"), "must not be empty at the root")}
	}
	schema, err := structural.NewStructural(s)
	if err != nil {
		return field.ErrorList{field.Invalid(path, "", err.Error())}
	}
	errs := structural.ValidateStructural(path, schema)
	if len(errs) > 0 {
		return errs
	}
	more, err := defaulting.ValidateDefaults(context.Background(), path, schema, true, true)
	if err != nil {
		return append(errs, field.InternalError(path, err))
	}
	return append(append(errs, more...), ruleErrors(schema, s, path, true)...)
}

// ruleEnvironment is made when the first rule is compiled; it never changes.
var ruleEnvironment = sync.OnceValue(func() *environment.EnvSet {
	return environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
})

// ruleErrors compiles the rules of a schema and of those below it.
func ruleErrors(s *structural.Structural, props *apiextensions.JSONSchemaProps, path *field.Path, root bool) field.ErrorList {
	var errs field.ErrorList
	if len(s.XValidations) > 0 {
		results, err := cel.Compile(s, model.SchemaDeclType(s, root), celconfig.PerCallLimit, ruleEnvironment(), cel.NewExpressionsEnvLoader())
		if err != nil {
			return field.ErrorList{field.InternalError(path, err)}
		}
		for i, r := range results {
			at := path.Child("x-kubernetes-validations").Index(i)
			if r.Error != nil {
				errs = append(errs, field.Invalid(at.Child("rule"), shown(props.XValidations[i]), r.Error.Detail))
			}
			if r.MessageExpressionError != nil {
				errs = append(errs, field.Invalid(at.Child("messageExpression"), shown(props.XValidations[i]), r.MessageExpressionError.Detail))
			}
		}
	}
	if s.Items != nil && props.Items != nil && props.Items.Schema != nil {
		errs = append(errs, ruleErrors(s.Items, props.Items.Schema, path.Child("items"), false)...)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		child, below := s.Properties[name], props.Properties[name]
		errs = append(errs, ruleErrors(&child, &below, path.Child("properties").Key(name), false)...)
	}
	if a := s.AdditionalProperties; a != nil && a.Structural != nil && props.AdditionalProperties != nil && props.AdditionalProperties.Schema != nil {
		errs = append(errs, ruleErrors(a.Structural, props.AdditionalProperties.Schema, path.Child("additionalProperties"), false)...)
	}
	return errs
}
