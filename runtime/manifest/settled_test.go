package manifest

import (
	"testing"

	"rutter.dev/rutter/runtime/cluster"
)

func TestSettledOnlyWherePlain(t *testing.T) {
	config := func(data map[string]any, managed ...any) *cluster.Object {
		o := &cluster.Object{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{"name": "istio", "namespace": "istio-system"}, "data": data,
		}}
		if managed != nil {
			o.Object["metadata"].(map[string]any)["managedFields"] = managed
		}
		return o
	}
	owns := func(manager string, keys ...string) any {
		fields := map[string]any{}
		for _, k := range keys {
			fields["f:"+k] = map[string]any{}
		}
		return map[string]any{
			"manager": manager, "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
			"fieldsV1": map[string]any{"f:data": fields},
		}
	}
	marked := func(manager string) *cluster.Object {
		o := config(map[string]any{"a": "1"}, map[string]any{
			"manager": manager, "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
			"fieldsV1": map[string]any{"f:metadata": map[string]any{"f:labels": map[string]any{"f:istio.io/rev": map[string]any{}}}},
		})
		o.SetLabels(map[string]string{"istio.io/rev": "default"})
		return o
	}
	one, two := map[string]any{"a": "1"}, map[string]any{"a": "1", "b": "2"}
	for _, tt := range []struct {
		name       string
		want, live *cluster.Object
		adopt      []string
		settled    bool
	}{
		{"absent", config(one), nil, nil, false},
		{"equal, nobody's", config(one), config(one), nil, true},
		{"a value differs", config(map[string]any{"a": "2"}), config(one), nil, false},
		{"a value is new", config(two), config(one), nil, false},
		{"a value is null", config(map[string]any{"a": nil}), config(map[string]any{"a": nil}), nil, false},
		{"a list is longer", config(map[string]any{"a": []any{"x"}}), config(map[string]any{"a": []any{"x", "y"}}), nil, false},
		{"somebody has more", config(one), config(two, owns("kubectl", "a", "b")), nil, true},
		{"rutter applied more", config(one), config(two, owns(cluster.FieldManager, "a", "b")), nil, false},
		{"rutter applied the same", config(two), config(two, owns(cluster.FieldManager, "a", "b")), nil, true},
		{"an adopted manager has more", config(one), config(two, owns("istio-operator", "a", "b")), []string{"istio-operator"}, false},
		{"an adopted manager has the same", config(one), config(two, owns("istio-operator", "a")), []string{"istio-operator"}, true},
		{"rutter applied a mark", config(one), marked(cluster.FieldManager), nil, false},
		{"an adopted manager's mark", config(one), marked("istio-operator"), []string{"istio-operator"}, true},
	} {
		got, err := settled(tt.want, tt.live, tt.adopt)
		if err != nil || got != tt.settled {
			t.Errorf("%s: settled = %v, %v, want %v", tt.name, got, err, tt.settled)
		}
	}
}
