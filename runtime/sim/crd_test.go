package sim_test

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/sim"
)

var things = schema.GroupVersionResource{Group: "ex.io", Version: "v1", Resource: "things"}

func thingCRD(openAPI object, spec object) *unstructured.Unstructured {
	s := object{
		"group": "ex.io", "scope": "Namespaced", "names": object{"plural": "things", "kind": "Thing"},
		"versions": []any{object{"name": "v1", "served": true, "storage": true, "subresources": object{"status": object{}}, "schema": object{"openAPIV3Schema": openAPI}}},
	}
	for k, v := range spec {
		s[k] = v
		if v == nil {
			delete(s, k)
		}
	}
	return obj("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "things.ex.io", object{"spec": s})
}

func thing(name string, spec object) *unstructured.Unstructured {
	return obj("ex.io/v1", "Thing", "shop", name, object{"spec": spec})
}

// TestCustomResourceRules holds a real server's answers for a schema with CEL
// rules.
func TestCustomResourceRules(t *testing.T) {
	ctx := t.Context()
	_, d := newCluster(t, sim.Options{})
	must(t)(d.Resource(crds).Create(ctx, thingCRD(object{"type": "object", "properties": object{
		"spec": object{
			"type": "object", "required": []any{"a"},
			"properties": object{
				"a": object{"type": "integer", "maximum": int64(5)}, "b": object{"type": "string"}, "c": object{"type": "string", "default": "x"},
				"l": object{"type": "array", "maxItems": int64(5), "items": object{"type": "string", "maxLength": int64(10)}},
			},
			"x-kubernetes-validations": []any{
				object{"rule": "self.a < 3 || has(self.b)", "message": "b is needed"},
				object{"rule": "!has(oldSelf.b) || self.b == oldSelf.b", "messageExpression": `"b was " + oldSelf.b`, "reason": "FieldValueForbidden", "fieldPath": ".b"},
			},
		},
		"status": object{"type": "object", "properties": object{"n": object{"type": "integer"}}},
	}}, nil), metav1.CreateOptions{}))
	ti := d.Resource(things).Namespace("shop")
	const unchecked = "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation]"
	for name, x := range map[string]struct {
		spec object
		want string
	}{
		"ok":    {object{"a": int64(1), "z": int64(3)}, ""},
		"rule":  {object{"a": int64(4)}, "spec: Invalid value: b is needed"},
		"max":   {object{"a": int64(9), "b": "x"}, "spec.a: Invalid value: 9: spec.a in body should be less than or equal to 5"},
		"typ":   {object{"a": "x"}, `[spec.a: Invalid value: "string": spec.a in body must be of type integer: "string", ` + unchecked},
		"req":   {object{}, "[spec.a: Required value, " + unchecked},
		"multi": {object{"l": []any{"aaaaaaaaaaaaaaaa"}, "a": int64(1)}, "[spec.l[0]: Too long: may not be more than 10 bytes, " + unchecked},
	} {
		u, err := ti.Create(ctx, thing(name, x.spec), metav1.CreateOptions{})
		switch {
		case x.want == "" && err != nil, x.want != "" && (err == nil || err.Error() != `Thing.ex.io "`+name+`" is invalid: `+x.want):
			t.Errorf("%s: %v", name, err)
		case x.want == "" && (at(u, "spec", "c") != "x" || at(u, "spec", "z") != nil):
			t.Errorf("%s: neither defaulted nor pruned: %v", name, u.Object["spec"])
		}
	}
	must(t)(ti.Create(ctx, thing("two", object{"a": int64(1), "b": "q"}), metav1.CreateOptions{}))
	_, err := ti.Patch(ctx, "two", types.MergePatchType, []byte(`{"spec":{"b":"r"}}`), metav1.PatchOptions{})
	if err == nil || err.Error() != `Thing.ex.io "two" is invalid: spec.b: Forbidden: b was q` {
		t.Errorf("transition rule: %v", err)
	}
	_, err = d.Resource(things).List(ctx, metav1.ListOptions{FieldSelector: "spec.a=1"})
	if err == nil || err.Error() != "field label not supported: spec.a" {
		t.Errorf("%v", err)
	}
}

// TestDefinitionsAreChecked holds a real server's refusals of definitions.
func TestDefinitionsAreChecked(t *testing.T) {
	ctx := t.Context()
	_, d := newCluster(t, sim.Options{})
	const at = "spec.validation.openAPIV3Schema"
	for name, x := range map[string]struct {
		schema, spec object
		want         string
	}{
		"no type":     {object{"properties": object{"spec": object{"type": "object"}}}, nil, at + ".type: Required value: must not be empty at the root"},
		"structure":   {object{"type": "object", "properties": object{"spec": object{"type": "object", "properties": object{"a": object{}}}}}, nil, at + ".properties[spec].properties[a].type: Required value: must not be empty for specified object fields"},
		"default":     {object{"type": "object", "properties": object{"spec": object{"type": "object", "properties": object{"a": object{"type": "integer", "default": "x"}}}}}, nil, at + `.properties[spec].properties[a].default: Invalid value: "string":  in body must be of type integer: "string"`},
		"rule":        {object{"type": "object", "x-kubernetes-validations": []any{object{"rule": "self.("}}}, nil, at + `.x-kubernetes-validations[0].rule: Invalid value: {"Rule":"self.(","Message":"","MessageExpression":"","Reason":null,"FieldPath":"","OptionalOldSelf":null}: compilation failed: ERROR: <input>:1:6: Syntax error: no viable alternative at input '.('`},
		"scope":       {object{"type": "object"}, object{"scope": nil}, "spec.scope: Required value"},
		"wrong names": {object{"type": "object"}, object{"names": object{"plural": "others", "kind": "Thing"}}, `metadata.name: Invalid value: "things.ex.io": must be spec.names.plural+"."+spec.group`},
	} {
		_, err := d.Resource(crds).Create(ctx, thingCRD(x.schema, x.spec), metav1.CreateOptions{})
		if err == nil || !strings.HasPrefix(err.Error(), `CustomResourceDefinition.apiextensions.k8s.io "things.ex.io" is invalid: `+x.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t)(d.Resource(crds).Create(ctx, thingCRD(object{"type": "object"}, nil), metav1.CreateOptions{}))
	_, err := d.Resource(crds).Patch(ctx, "things.ex.io", types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/versions/0/name","value":"v2"}]`), metav1.PatchOptions{})
	if err == nil || !strings.Contains(err.Error(), `status.storedVersions[0]: Invalid value: "v1": missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until a storage migration`) {
		t.Errorf("a stored version is dropped: %v", err)
	}
}
