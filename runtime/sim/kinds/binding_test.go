package kinds

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestSubjectsOfBindings: a ServiceAccount without a namespace is that of the
// RoleBinding's own; a ClusterRoleBinding has none to give.
func TestSubjectsOfBindings(t *testing.T) {
	for kind, want := range map[string]int{"RoleBinding": 0, "ClusterRoleBinding": 1} {
		errs := Validate(schema.GroupVersionKind{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: kind}, map[string]any{
			"kind": kind, "roleRef": map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
			"subjects": []any{map[string]any{"kind": "ServiceAccount", "name": "sa"}},
		})
		if len(errs) != want {
			t.Errorf("%s: %v", kind, errs)
		}
	}
}
