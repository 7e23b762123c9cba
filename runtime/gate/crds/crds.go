// Package crds judges what a change of a CustomResourceDefinition does to the
// objects that are stored already: by the API server's own pruning, defaulting
// and validation, the CEL rules included. It reads nothing.
package crds

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/api/equality"
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

// Change is what a new schema does to objects of one version. Its schemas are
// compiled when the first object is judged: most kinds have none.
type Change struct {
	Version  string
	old, now *apiextensionsv1.JSONSchemaProps
	pruned   bool // unknown fields are, by the new definition
	compiled *struct{ old, now *compiled }
}

// Changes lists the versions whose schema differs between d and next, as far as
// both serve them. Versions that change alike are one Change, unless a webhook
// converts between them.
func (d *Definition) Changes(next *Definition) []Change {
	var out []Change
	for i := range next.Versions {
		now := &next.Versions[i]
		old := d.Version(now.Name)
		if old == nil || !old.Served || !now.Served || same(old.raw, now.raw) && d.PreserveUnknown == next.PreserveUnknown {
			continue
		}
		alike := func(c Change) bool { return same(c.now, now.raw) && same(c.old, old.raw) }
		if !d.Converts && slices.ContainsFunc(out, alike) {
			continue
		}
		out = append(out, Change{Version: now.Name, old: old.raw, now: now.raw, pruned: !next.PreserveUnknown})
	}
	return out
}

// same compares schemas without what only people read.
func same(a, b *apiextensionsv1.JSONSchemaProps) bool {
	if a == b || a == nil || b == nil {
		return a == b
	}
	return equality.Semantic.DeepEqual(a, b) || equality.Semantic.DeepEqual(bare(a), bare(b))
}

// bare is a copy without descriptions, titles and examples, at any depth.
func bare(s *apiextensionsv1.JSONSchemaProps) *apiextensionsv1.JSONSchemaProps {
	if s == nil {
		return nil
	}
	out := *s // what is not walked below is shared, and not written
	out.Description, out.Title, out.Example = "", "", nil
	out.Not = bare(s.Not)
	out.AllOf, out.AnyOf, out.OneOf = bareAll(s.AllOf), bareAll(s.AnyOf), bareAll(s.OneOf)
	out.Properties, out.PatternProperties, out.Definitions = bareMap(s.Properties), bareMap(s.PatternProperties), bareMap(s.Definitions)
	if s.Items != nil {
		out.Items = &apiextensionsv1.JSONSchemaPropsOrArray{Schema: bare(s.Items.Schema), JSONSchemas: bareAll(s.Items.JSONSchemas)}
	}
	out.AdditionalProperties, out.AdditionalItems = bareOrBool(s.AdditionalProperties), bareOrBool(s.AdditionalItems)
	return &out
}

func bareAll(in []apiextensionsv1.JSONSchemaProps) []apiextensionsv1.JSONSchemaProps {
	out := make([]apiextensionsv1.JSONSchemaProps, len(in))
	for i := range in {
		out[i] = *bare(&in[i])
	}
	return out
}

func bareMap[M ~map[string]apiextensionsv1.JSONSchemaProps](in M) M {
	out := make(M, len(in))
	for name, s := range in {
		out[name] = *bare(&s)
	}
	return out
}

func bareOrBool(in *apiextensionsv1.JSONSchemaPropsOrBool) *apiextensionsv1.JSONSchemaPropsOrBool {
	if in == nil {
		return nil
	}
	return &apiextensionsv1.JSONSchemaPropsOrBool{Allows: in.Allows, Schema: bare(in.Schema)}
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

// compiledKeeps bounds what is remembered: every version of every kind that
// Istio and the Gateway API define, before and after an upgrade.
const compiledKeeps = 256

// Compiled remembers schemas that were compiled, by what they say: a schema with
// rules takes milliseconds, and is judged in the forecast, live, and in the next
// run. The zero value is ready, and a nil Compiled remembers nothing. Safe for
// concurrent use: what is compiled is only read.
type Compiled struct {
	mu   sync.Mutex
	kept map[[sha256.Size]byte]*compiled
}

func (k *Compiled) schema(s *apiextensionsv1.JSONSchemaProps) (*compiled, error) {
	if k == nil || s == nil {
		return compile(s)
	}
	raw, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	key := sha256.Sum256(raw)
	k.mu.Lock()
	c := k.kept[key]
	k.mu.Unlock()
	if c != nil {
		return c, nil
	}
	if c, err = compile(s); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept == nil || len(k.kept) >= compiledKeeps {
		k.kept = map[[sha256.Size]byte]*compiled{}
	}
	k.kept[key] = c
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
// It fails where one of the schemas is none. A Change is not safe for concurrent
// use; known, which may be nil, is.
func (c *Change) Judge(ctx context.Context, known *Compiled, o *cluster.Object) (broken, pruned []string, err error) {
	if err := c.compile(known); err != nil {
		return nil, nil, err
	}
	old, now := c.compiled.old, c.compiled.now
	broken = news(now.errors(ctx, o.Object, c.pruned), func() []string { return old.errors(ctx, o.Object, c.pruned) })
	if c.pruned {
		pruned = news(now.unknown(o.Object), func() []string { return old.unknown(o.Object) })
	}
	return broken, pruned, nil
}

func (c *Change) compile(known *Compiled) (err error) {
	if c.compiled != nil {
		return nil
	}
	both := &struct{ old, now *compiled }{}
	if both.now, err = known.schema(c.now); err != nil {
		return fmt.Errorf("new schema of version %s: %w", c.Version, err)
	}
	if both.old, err = known.schema(c.old); err != nil {
		return fmt.Errorf("schema of version %s: %w", c.Version, err)
	}
	c.compiled = both
	return nil
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
