// Package openapi derives OpenAPI v3 schemas from the Go types of the built-in
// Kubernetes kinds: from their json, patchStrategy and patchMergeKey tags and
// their SwaggerDoc methods.
package openapi

import (
	"reflect"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// Prefix is where references between schemas point in an OpenAPI v3 document.
const Prefix = "#/components/schemas/"

// Schemas returns the schemas of the kinds of a group and version, and of
// everything that they refer to, by model name.
func Schemas(s *runtime.Scheme, gv schema.GroupVersion, kinds []string) map[string]*spec.Schema {
	b := &builder{out: map[string]*spec.Schema{}}
	for _, k := range kinds {
		for _, kind := range []string{k, k + "List"} {
			gvk := gv.WithKind(kind)
			obj, err := s.New(gvk)
			if err != nil {
				continue // a kind without a list, as a review has none
			}
			t := reflect.TypeOf(obj).Elem()
			b.ref(t)
			addGVK(b.out[ModelName(t)], gvk)
		}
	}
	return b.out
}

func addGVK(s *spec.Schema, gvk schema.GroupVersionKind) {
	list, _ := s.Extensions["x-kubernetes-group-version-kind"].([]any)
	s.AddExtension("x-kubernetes-group-version-kind", append(list, map[string]any{"group": gvk.Group, "version": gvk.Version, "kind": gvk.Kind}))
}

type builder struct{ out map[string]*spec.Schema }

type modelNamer interface{ OpenAPIModelName() string }

// ModelName is the name of a type's schema.
func ModelName(t reflect.Type) string {
	if n, ok := reflect.New(t).Interface().(modelNamer); ok {
		return n.OpenAPIModelName()
	}
	path := t.PkgPath()
	host, rest, _ := strings.Cut(path, "/")
	parts := strings.Split(host, ".")
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return strings.Join(parts, ".") + "." + strings.ReplaceAll(rest, "/", ".") + "." + t.Name()
}

// ref is a reference to the type's schema, which is built if it is new, or the
// schema itself for simple types.
func (b *builder) ref(t reflect.Type) spec.Schema {
	if s, ok := simple(t); ok {
		return s
	}
	switch t.Kind() {
	case reflect.Pointer:
		return b.ref(t.Elem())
	case reflect.Slice, reflect.Array:
		item := b.ref(t.Elem())
		return spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"array"}, Items: &spec.SchemaOrArray{Schema: &item}}}
	case reflect.Map:
		item := b.ref(t.Elem())
		return spec.Schema{SchemaProps: spec.SchemaProps{
			Type: []string{"object"}, AdditionalProperties: &spec.SchemaOrBool{Allows: true, Schema: &item},
		}}
	case reflect.Struct:
		name := ModelName(t)
		if b.out[name] == nil {
			s := &spec.Schema{}
			b.out[name] = s // before the fields, because types are recursive
			b.object(t, s)
		}
		return *spec.RefSchema(Prefix + name)
	}
	return spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}
}

type typed interface {
	OpenAPISchemaType() []string
	OpenAPISchemaFormat() string
}

// simple are the types that marshal to a scalar or to free-form JSON.
func simple(t reflect.Type) (spec.Schema, bool) {
	scalar := func(typ, format string) (spec.Schema, bool) {
		return spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{typ}, Format: format}}, true
	}
	switch t.String() {
	case "intstr.IntOrString":
		return spec.Schema{SchemaProps: spec.SchemaProps{Format: "int-or-string", OneOf: []spec.Schema{
			{SchemaProps: spec.SchemaProps{Type: []string{"integer"}}}, {SchemaProps: spec.SchemaProps{Type: []string{"string"}}},
		}}}, true
	case "resource.Quantity":
		return spec.Schema{SchemaProps: spec.SchemaProps{OneOf: []spec.Schema{
			{SchemaProps: spec.SchemaProps{Type: []string{"string"}}}, {SchemaProps: spec.SchemaProps{Type: []string{"number"}}},
		}}}, true
	case "v1.JSON", "v1.JSONSchemaPropsOrArray", "v1.JSONSchemaPropsOrBool", "v1.JSONSchemaPropsOrStringArray":
		return spec.Schema{}, true
	}
	if t.Kind() == reflect.Struct {
		if x, ok := reflect.New(t).Interface().(typed); ok {
			if types := x.OpenAPISchemaType(); len(types) == 1 {
				return scalar(types[0], x.OpenAPISchemaFormat())
			}
		}
	}
	switch t.Kind() {
	case reflect.String:
		return scalar("string", "")
	case reflect.Bool:
		return scalar("boolean", "")
	case reflect.Int32, reflect.Int16, reflect.Int8, reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return scalar("integer", "int32")
	case reflect.Int64, reflect.Int, reflect.Uint64:
		return scalar("integer", "int64")
	case reflect.Float32, reflect.Float64:
		return scalar("number", "double")
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return scalar("string", "byte")
		}
	}
	return spec.Schema{}, false
}

type documented interface{ SwaggerDoc() map[string]string }

func (b *builder) object(t reflect.Type, s *spec.Schema) {
	s.Type = []string{"object"}
	docs := map[string]string{}
	if d, ok := reflect.New(t).Interface().(documented); ok {
		docs = d.SwaggerDoc()
		s.Description = docs[""]
	}
	s.Properties = map[string]spec.Schema{}
	b.fields(t, s, docs)
	if len(s.Properties) == 0 {
		s.Properties = nil
	}
}

func (b *builder) fields(t reflect.Type, s *spec.Schema, docs map[string]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if name == "" && f.Anonymous {
			b.inline(f.Type, s)
			continue
		}
		if name == "" {
			continue
		}
		p := b.ref(f.Type)
		p = listType(t, f, p)
		if d := docs[name]; d != "" {
			p = described(p, d)
		}
		s.Properties[name] = p
		if !strings.Contains(opts, "omitempty") && !strings.Contains(opts, "omitzero") && f.Type.Kind() != reflect.Pointer && f.Type.Kind() != reflect.Struct {
			s.Required = append(s.Required, name)
		}
	}
}

func (b *builder) inline(t reflect.Type, s *spec.Schema) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	docs := map[string]string{}
	if d, ok := reflect.New(t).Interface().(documented); ok {
		docs = d.SwaggerDoc()
	}
	b.fields(t, s, docs)
}

// described adds a description. OpenAPI allows none beside a reference, so the
// reference goes into allOf, as the real server's documents have it.
func described(p spec.Schema, text string) spec.Schema {
	if p.Ref.String() != "" {
		return spec.Schema{SchemaProps: spec.SchemaProps{AllOf: []spec.Schema{p}, Description: text}, VendorExtensible: p.VendorExtensible}
	}
	p.Description = text
	return p
}

// mapKeys are the lists whose keys for server-side apply are more than their
// patchMergeKey (comments +listMapKey in k8s.io/api).
var mapKeys = map[string][]any{
	"Container.ports":                            {"containerPort", "protocol"},
	"EphemeralContainerCommon.ports":             {"containerPort", "protocol"},
	"ServiceSpec.ports":                          {"port", "protocol"},
	"PodSpec.topologySpreadConstraints":          {"topologyKey", "whenUnsatisfiable"},
	"CustomResourceDefinitionStatus.conditions":  {"type"},
	"PodSpec.hostAliases":                        {"ip"},
	"ValidatingAdmissionPolicyStatus.conditions": {"type"},
	"HorizontalPodAutoscalerStatus.conditions":   {"type"},
	"PodDisruptionBudgetStatus.conditions":       {"type"},
}

// listType puts the merge behaviour of a list into extensions.
func listType(owner reflect.Type, f reflect.StructField, p spec.Schema) spec.Schema {
	strategy, key := f.Tag.Get("patchStrategy"), f.Tag.Get("patchMergeKey")
	if strategy != "" {
		p.AddExtension("x-kubernetes-patch-strategy", strategy)
	}
	if key != "" {
		p.AddExtension("x-kubernetes-patch-merge-key", key)
	}
	if f.Type.Kind() != reflect.Slice || f.Type.Elem().Kind() == reflect.Uint8 {
		return p
	}
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	keys := mapKeys[owner.Name()+"."+name]
	if keys == nil && key != "" && strings.Contains(strategy, "merge") {
		keys = []any{key}
	}
	switch {
	case keys != nil:
		p.AddExtension("x-kubernetes-list-type", "map")
		p.AddExtension("x-kubernetes-list-map-keys", keys)
	case strategy == "merge":
		p.AddExtension("x-kubernetes-list-type", "set")
	default:
		p.AddExtension("x-kubernetes-list-type", "atomic")
	}
	return p
}

// ObjectMeta returns the schemas of metav1.ObjectMeta and what it refers to.
// The map is the caller's.
func ObjectMeta() map[string]*spec.Schema {
	b := &builder{out: map[string]*spec.Schema{}}
	b.ref(reflect.TypeFor[metav1.ObjectMeta]())
	b.ref(reflect.TypeFor[metav1.ListMeta]())
	return b.out
}
