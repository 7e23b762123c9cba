package manifest

import (
	"context"
	"errors"
	"testing"

	"rutter.dev/rutter/runtime/cluster"
)

// asked is a cluster that answers dry-runs of an apply: with a conflict over a
// field of each owner, unless it is forced.
type asked struct {
	cluster.Reader
	owners []string
	forced []bool // of each request
}

func (a *asked) DryRunApply(_ context.Context, obj *cluster.Object, o cluster.ApplyOptions) (*cluster.Object, error) {
	a.forced = append(a.forced, o.Force)
	if o.Force {
		return obj, nil
	}
	conflict := &cluster.ConflictError{Ref: cluster.RefOf(obj)}
	for _, m := range a.owners {
		conflict.Fields = append(conflict.Fields, cluster.FieldConflict{Manager: m})
	}
	return nil, conflict
}

// An apply is only forced at once where nobody but those who are adopted could be
// in conflict with it; whoever else owns a field is heard.
func TestForecastHearsOtherOwners(t *testing.T) {
	entry := func(manager, subresource string) any {
		return map[string]any{
			"manager": manager, "operation": "Update", "apiVersion": "v1", "subresource": subresource, "fieldsType": "FieldsV1",
			"fieldsV1": map[string]any{"f:data": map[string]any{".": map[string]any{}, "f:a": map[string]any{}}},
		}
	}
	elsewhere := func(manager, version string) any {
		e := entry(manager, "").(map[string]any)
		e["apiVersion"], e["fieldsV1"] = version, map[string]any{"f:data": map[string]any{".": map[string]any{}, "f:b": map[string]any{}}}
		return e
	}
	for _, tt := range []struct {
		name     string
		managed  []any
		owners   []string // that the server finds in conflict
		requests int
		refused  bool
	}{
		{"adopted alone", []any{entry("istio-operator", "")}, []string{"istio-operator"}, 1, false},
		{"with rutter's own", []any{entry("istio-operator", ""), entry(cluster.FieldManager, "")}, []string{"istio-operator"}, 1, false},
		{"a controller's status", []any{entry("istio-operator", ""), entry("controller", "status")}, []string{"istio-operator"}, 1, false},
		{"somebody else too", []any{entry("istio-operator", ""), entry("kubectl", "")}, []string{"kubectl"}, 1, true},
		{"somebody else, of the same", []any{entry("istio-operator", ""), entry("kubectl", "")}, []string{"istio-operator"}, 2, false},
		{"somebody else, elsewhere", []any{entry("istio-operator", ""), elsewhere("controller", "v1")}, []string{"istio-operator"}, 1, false},
		{"somebody else, by another version", []any{entry("istio-operator", ""), elsewhere("controller", "v1beta1")}, []string{"istio-operator"}, 2, false},
		{"an autoscaler's scale", []any{entry("istio-operator", ""), entry("autoscaler", "scale")}, []string{"autoscaler"}, 1, true},
		{"nobody's", nil, []string{"before-first-apply"}, 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			obj := object("ConfigMap", "v1", "istio", nil)
			obj.Object["data"] = map[string]any{"a": "1"}
			live := obj.DeepCopy()
			if tt.managed != nil {
				live.Object["metadata"].(map[string]any)["managedFields"] = tt.managed
			}
			a := &asked{owners: tt.owners}
			_, err := forecast(t.Context(), a, obj, live, []string{"istio-operator"})
			var conflict *cluster.ConflictError
			if errors.As(err, &conflict) != tt.refused || !tt.refused && err != nil {
				t.Errorf("got %v, want a conflict: %v", err, tt.refused)
			}
			if len(a.forced) != tt.requests {
				t.Errorf("asked %d times (forced: %v), want %d", len(a.forced), a.forced, tt.requests)
			}
		})
	}
}
