package mesh

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rutter.dev/rutter/runtime/cluster"
)

func validator(kind, policy string, rest map[string]any) *cluster.Object {
	o := &cluster.Object{Object: map[string]any{
		"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": map[string]any{"name": "istio-validator-istio-system"},
	}}
	hook := map[string]any{"name": "rev.validation.istio.io", "failurePolicy": policy, "clientConfig": rest}
	o.Object["webhooks"] = []any{hook, map[string]any{"name": "other.istio.io", "failurePolicy": policy}}
	return o
}

// What a running istiod sets of its webhooks stays istiod's; what it did not
// set, and what somebody else set, is the manifest's or a conflict.
func TestYield(t *testing.T) {
	const fields = `{"f:webhooks":{"k:{\"name\":\"rev.validation.istio.io\"}":{"f:clientConfig":{"f:caBundle":{}},"f:failurePolicy":{}}}}`
	for _, tc := range []struct {
		name, kind, manager string
		policy, ca          bool // kept in what is applied
	}{
		{"istiod's validation", "ValidatingWebhookConfiguration", "pilot-discovery", false, false},
		{"istiod's injection", "MutatingWebhookConfiguration", "pilot-discovery", false, false},
		{"a person's", "ValidatingWebhookConfiguration", "kubectl-edit", true, true},
		{"another kind", "EnvoyFilter", "pilot-discovery", true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			live := validator(tc.kind, "Fail", map[string]any{"caBundle": "Q0E="})
			live.SetManagedFields([]metav1.ManagedFieldsEntry{{
				Manager: tc.manager, Operation: metav1.ManagedFieldsOperationUpdate, FieldsType: "FieldsV1",
				FieldsV1: metav1.NewFieldsV1(fields),
			}})
			want := validator(tc.kind, "Ignore", map[string]any{"caBundle": "", "url": "https://localhost"})
			if err := Yield(want, live); err != nil {
				t.Fatal(err)
			}
			hooks := want.Object["webhooks"].([]any)
			first, second := hooks[0].(map[string]any), hooks[1].(map[string]any)
			_, policy := first["failurePolicy"]
			client := first["clientConfig"].(map[string]any)
			_, ca := client["caBundle"]
			if policy != tc.policy || ca != tc.ca {
				t.Errorf("kept failurePolicy %t and caBundle %t, want %t and %t", policy, ca, tc.policy, tc.ca)
			}
			if client["url"] == nil || second["failurePolicy"] != "Ignore" {
				t.Errorf("took what istiod does not own: %v", hooks)
			}
		})
	}
}

func TestYieldKeepsWhatIsNotThereYet(t *testing.T) {
	want := validator("ValidatingWebhookConfiguration", "Ignore", map[string]any{})
	if err := Yield(want, nil); err != nil {
		t.Fatal(err)
	}
	if hook := want.Object["webhooks"].([]any)[0].(map[string]any); hook["failurePolicy"] != "Ignore" {
		t.Errorf("got %v", hook)
	}
}
