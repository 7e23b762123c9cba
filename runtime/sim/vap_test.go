package sim_test

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

var (
	policies       = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"}
	policyBindings = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicybindings"}
)

func admissionPolicy(validation, rest object) *unstructured.Unstructured {
	spec := object{
		"matchConstraints": object{"resourceRules": []any{object{"apiGroups": []any{""}, "apiVersions": []any{"v1"}, "operations": []any{"CREATE", "UPDATE", "DELETE"}, "resources": []any{"configmaps"}}}},
		"validations":      []any{validation},
	}
	for k, v := range rest {
		spec[k] = v
	}
	return obj("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "", "p", object{"spec": spec})
}

// TestAdmissionPolicies holds the answers of a real server under a policy.
func TestAdmissionPolicies(t *testing.T) {
	ctx := t.Context()
	c, d := newCluster(t, sim.Options{})
	bindingTo := func(actions ...any) *unstructured.Unstructured {
		return obj("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", "", "p-b", object{"spec": object{"policyName": "p", "validationActions": actions}})
	}
	const by = `configmaps "x" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p-b' denied request: `
	for name, x := range map[string]struct {
		validation, rest object
		action           string
		code             int
		want             string
	}{
		"plain":        {object{"expression": `object.data.a == "c"`}, nil, "Deny", 422, by + `failed expression: object.data.a == "c"`},
		"message":      {object{"expression": `object.data.a == "c"`, "message": "not c", "reason": "Forbidden"}, nil, "Deny", 403, by + "not c"},
		"expression":   {object{"expression": `object.data.a == variables.want`, "messageExpression": `"want " + variables.want`}, object{"variables": []any{object{"name": "want", "expression": `"c"`}}}, "Deny", 422, by + "want c"},
		"error":        {object{"expression": `object.data.zz == "c"`}, nil, "Deny", 422, by + `expression 'object.data.zz == "c"' resulted in error: no such key: zz`},
		"ignored":      {object{"expression": `object.data.zz == "c"`}, object{"failurePolicy": "Ignore"}, "Deny", 201, ""},
		"warning":      {object{"expression": `object.data.a == "c"`}, nil, "Warn", 201, ""},
		"authorizer":   {object{"expression": `authorizer.group("").resource("configmaps").namespace("shop").check("update").allowed()`}, nil, "Deny", 201, ""},
		"namespace":    {object{"expression": `namespaceObject.metadata.name != "shop"`}, nil, "Deny", 422, by + `failed expression: namespaceObject.metadata.name != "shop"`},
		"condition":    {object{"expression": "false"}, object{"matchConditions": []any{object{"name": "m", "expression": `request.operation == "DELETE"`}}}, "Deny", 201, ""},
		"no parameter": {object{"expression": `true`}, object{"paramKind": object{"apiVersion": "v1", "kind": "ConfigMap"}}, "Deny", 422, by + "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"},
	} {
		t.Run(name, func(t *testing.T) {
			must(t)(d.Resource(policies).Create(ctx, admissionPolicy(x.validation, x.rest), metav1.CreateOptions{}))
			b := bindingTo(x.action)
			if name == "no parameter" {
				b.Object["spec"].(object)["paramRef"] = object{"name": "gone", "namespace": "shop", "parameterNotFoundAction": "Deny"}
			}
			must(t)(d.Resource(policyBindings).Create(ctx, b, metav1.CreateOptions{}))
			code, got := ask(t, c.Config(), "POST", "/api/v1/namespaces/shop/configmaps?dryRun=All", object{"metadata": object{"name": "x"}, "data": object{"a": "b"}})
			msg, _ := got["message"].(string)
			if code != x.code || msg != x.want {
				t.Errorf("%d %v", code, msg)
			}
			if err := d.Resource(policies).Delete(ctx, "p", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := d.Resource(policyBindings).Delete(ctx, "p-b", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			if code, _ := ask(t, c.Config(), "POST", "/api/v1/namespaces/shop/configmaps?dryRun=All", object{"metadata": object{"name": "x"}}); code != 201 {
				t.Errorf("without the policy: %d", code)
			}
		})
	}
}

func TestAdmissionPolicyIsChecked(t *testing.T) {
	ctx := t.Context()
	_, d := newCluster(t, sim.Options{})
	for _, x := range []struct {
		validation, rest object
		want             string
	}{
		{object{"expression": "object.("}, nil, "spec.validations[0].expression: Invalid value: \"object.(\": compilation failed: ERROR: <input>:1:8: Syntax error: no viable alternative at input '.('\n | object.(\n | .......^"},
		{object{"expression": "1 + 1"}, nil, `spec.validations[0].expression: Invalid value: "1 + 1": must evaluate to bool but got int`},
		{object{"expression": "true", "reason": "Weird"}, nil, `spec.validations[0].reason: Unsupported value: "Weird": supported values: "Forbidden", "Invalid", "RequestEntityTooLarge"`},
		{object{"expression": "true"}, object{"matchConditions": []any{object{"name": "x", "expression": "object.foo("}}}, `spec.matchConditions[0].expression: Invalid value: "object.foo(": compilation failed: ERROR: <input>:1:12: Syntax error`},
		{nil, object{"validations": nil}, "[spec.validations: Required value: validations or auditAnnotations must contain at least one item, spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item]"},
	} {
		_, err := d.Resource(policies).Create(ctx, admissionPolicy(x.validation, x.rest), metav1.CreateOptions{})
		if err == nil || !strings.HasPrefix(err.Error(), `ValidatingAdmissionPolicy.admissionregistration.k8s.io "p" is invalid: `+x.want) {
			t.Errorf("%v", err)
		}
	}
}
