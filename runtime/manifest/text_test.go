package manifest

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v2"

	"rutter.dev/rutter/runtime/cluster"
)

// An object that is written field by field reads as when it is written as a whole.
func TestLinesOfAnObject(t *testing.T) {
	spec := map[string]any{"a": []any{"x: y", map[string]any{"b": int64(1), "text": "one\ntwo\n"}}, "empty": map[string]any{}}
	is := &cluster.Object{Object: map[string]any{
		"apiVersion": "v1", "kind": "Thing", "metadata": map[string]any{"name": "t", "labels": map[string]any{"a": "1"}},
		"spec": spec, "data": map[string]any{"k": "v"}, "immutable": true, "webhooks": []any{},
	}}
	whole, err := yaml.Marshal(is.Object)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, want string
		o          *cluster.Object
	}{{"there", string(whole), is}, {"absent", "", nil}, {"empty", "", &cluster.Object{}}} {
		got, err := lines(tt.o)
		if err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(got, ""); text != tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.name, text, tt.want)
		}
	}
}
