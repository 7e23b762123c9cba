// Package crds judges what a change of a CustomResourceDefinition does to the
// objects that are stored already: by the API server's own pruning, defaulting
// and validation, the CEL rules included. It reads nothing.
package crds

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"

	"rutter.dev/rutter/runtime/cluster"
)

// Definition is a CustomResourceDefinition, decoded.
type Definition struct {
	Group, Kind, Plural string
	Namespaced          bool
	Versions            []Version
	Stored              []string // status.storedVersions
	Converts            bool     // by a webhook: an object has another form in each version
	PreserveUnknown     bool     // nothing is ever pruned
}

// Version is one version of a definition.
type Version struct {
	Name            string
	Served, Storage bool
	raw             *apiextensionsv1.JSONSchemaProps
}

// Parse reads a definition, as it is stored or as it would be.
func Parse(o *cluster.Object) (*Definition, error) {
	var d apiextensionsv1.CustomResourceDefinition
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d); err != nil {
		return nil, fmt.Errorf("%s: %w", cluster.RefOf(o), err)
	}
	out := &Definition{
		Group: d.Spec.Group, Kind: d.Spec.Names.Kind, Plural: d.Spec.Names.Plural,
		Namespaced: d.Spec.Scope == apiextensionsv1.NamespaceScoped, Stored: d.Status.StoredVersions,
		Converts:        d.Spec.Conversion != nil && d.Spec.Conversion.Strategy == apiextensionsv1.WebhookConverter,
		PreserveUnknown: d.Spec.PreserveUnknownFields,
	}
	for _, v := range d.Spec.Versions {
		w := Version{Name: v.Name, Served: v.Served, Storage: v.Storage}
		if v.Schema != nil {
			w.raw = v.Schema.OpenAPIV3Schema
		}
		out.Versions = append(out.Versions, w)
	}
	return out, nil
}

// Version finds a version by its name; nil if there is none.
func (d *Definition) Version(name string) *Version {
	i := slices.IndexFunc(d.Versions, func(v Version) bool { return v.Name == name })
	if i < 0 {
		return nil
	}
	return &d.Versions[i]
}

// Reading is the version through which objects are read: the storage version,
// or where that is not served, the first that is; "" if none is served.
func (d *Definition) Reading() string {
	served := ""
	for _, v := range d.Versions {
		switch {
		case v.Served && v.Storage:
			return v.Name
		case v.Served && served == "":
			served = v.Name
		}
	}
	return served
}

// Lost lists the stored versions of d that next does not have any more. Objects
// that are stored in one could not be read again.
func (d *Definition) Lost(next *Definition) []string {
	var out []string
	for _, v := range d.Stored {
		if next.Version(v) == nil {
			out = append(out, v)
		}
	}
	return out
}

// Unserved lists the versions that d serves and next does not.
func (d *Definition) Unserved(next *Definition) []string {
	var out []string
	for _, v := range d.Versions {
		if n := next.Version(v.Name); v.Served && (n == nil || !n.Served) {
			out = append(out, v.Name)
		}
	}
	return out
}

// Change is what a new schema does to objects of one version.
type Change struct {
	Version  string
	old, now *compiled
	pruned   bool // unknown fields are, by the new definition
}

// Changes lists the versions whose schema differs between d and next, as far as
// both serve them. Versions that change alike are one Change, unless a webhook
// converts between them.
func (d *Definition) Changes(next *Definition) ([]Change, error) {
	var out []Change
	var seen []*Version
	for i := range next.Versions {
		now := &next.Versions[i]
		old := d.Version(now.Name)
		if old == nil || !old.Served || !now.Served || same(old.raw, now.raw) && d.PreserveUnknown == next.PreserveUnknown {
			continue
		}
		alike := func(v *Version) bool { return same(v.raw, now.raw) && same(d.Version(v.Name).raw, old.raw) }
		if !d.Converts && slices.ContainsFunc(seen, alike) {
			continue
		}
		seen = append(seen, now)
		c := Change{Version: now.Name, pruned: !next.PreserveUnknown}
		var err error
		if c.now, err = compile(now.raw); err != nil {
			return nil, fmt.Errorf("new schema of version %s: %w", now.Name, err)
		}
		if c.old, err = compile(old.raw); err != nil {
			return nil, fmt.Errorf("schema of version %s: %w", now.Name, err)
		}
		out = append(out, c)
	}
	return out, nil
}

// same compares schemas without what only people read.
func same(a, b *apiextensionsv1.JSONSchemaProps) bool {
	if a == nil || b == nil {
		return a == b
	}
	return reflect.DeepEqual(bare(a), bare(b))
}

func bare(s *apiextensionsv1.JSONSchemaProps) any {
	raw, err := json.Marshal(s)
	if err != nil {
		return err
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return err
	}
	return undescribed(v, true)
}

// undescribed drops description, title and example of schemas in place. Under
// properties, such a name is a field's.
func undescribed(v any, isSchema bool) any {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if _, text := x.(string); isSchema && text && (k == "description" || k == "title" || k == "example") {
				delete(v, k)
				continue
			}
			v[k] = undescribed(x, k != "properties" && k != "definitions" && k != "patternProperties" || !isSchema)
		}
	case []any:
		for i := range v {
			v[i] = undescribed(v[i], isSchema)
		}
	}
	return v
}

// compiled is one schema, ready to judge; all fields are nil for a version
// without a schema, which takes everything.
type compiled struct {
	structural *schema.Structural
	validator  validation.SchemaValidator
	rules      *cel.Validator
}

func compile(s *apiextensionsv1.JSONSchemaProps) (*compiled, error) {
	if s == nil {
		return &compiled{}, nil
	}
	var internal apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(s, &internal, nil); err != nil {
		return nil, err
	}
	c := &compiled{}
	var err error
	if c.structural, err = schema.NewStructural(&internal); err != nil {
		return nil, err
	}
	if c.validator, _, err = validation.NewSchemaValidator(&internal); err != nil {
		return nil, err
	}
	c.rules = cel.NewValidator(c.structural, true, celconfig.PerCallLimit)
	return c, nil
}

// errors judges a copy of the object as the server would if it were written
// anew: pruned, defaulted, validated.
func (c *compiled) errors(ctx context.Context, o map[string]any, prune bool) []string {
	if c.structural == nil {
		return nil
	}
	o = runtime.DeepCopyJSON(o)
	if prune {
		pruning.Prune(o, c.structural, true)
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(o, c.structural)
	defaulting.Default(o, c.structural)
	errs := validation.ValidateCustomResource(nil, o, c.validator)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, c.structural, o)...)
	if c.rules != nil && len(errs) == 0 { // rules rely on the object's form
		more, _ := c.rules.Validate(ctx, nil, c.structural, o, nil, celconfig.RuntimeCELCostBudget)
		errs = more
	}
	out := make([]string, 0, len(errs))
	for _, e := range errs {
		out = append(out, said(e))
	}
	return out
}

// said is an error without the value that is wrong, which may be large.
func said(e *field.Error) string {
	if e.Detail == "" {
		return e.Field + ": " + strings.ToLower(e.Type.String())
	}
	return e.Field + ": " + e.Detail
}

// unknown lists the fields that the schema prunes.
func (c *compiled) unknown(o map[string]any) []string {
	if c.structural == nil {
		return nil
	}
	return pruning.PruneWithOptions(runtime.DeepCopyJSON(o), c.structural, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
}

// Judge says what the change does to an object as it is read through the
// change's version: the errors that the new schema has and the old one has not,
// and the fields that are pruned now. What was wrong before is nobody's doing.
func (c Change) Judge(ctx context.Context, o *cluster.Object) (broken, pruned []string) {
	broken = news(c.now.errors(ctx, o.Object, c.pruned), func() []string { return c.old.errors(ctx, o.Object, c.pruned) })
	if c.pruned {
		pruned = news(c.now.unknown(o.Object), func() []string { return c.old.unknown(o.Object) })
	}
	return broken, pruned
}

// news are those of now that were not there before, sorted.
func news(now []string, before func() []string) []string {
	if len(now) == 0 {
		return nil
	}
	fresh := map[string]bool{}
	for _, s := range now {
		fresh[s] = true
	}
	for _, s := range before() {
		delete(fresh, s)
	}
	return slices.Sorted(maps.Keys(fresh))
}
