package manifest

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v2"

	"rutter.dev/rutter/runtime/cluster"
)

// Two states that are written field by field read as each does when it is written
// as a whole.
func TestLinesOfAPair(t *testing.T) {
	spec := map[string]any{"a": []any{"x: y", map[string]any{"b": int64(1), "text": "one\ntwo\n"}}, "empty": map[string]any{}}
	was := &cluster.Object{Object: map[string]any{
		"apiVersion": "v1", "kind": "Thing", "metadata": map[string]any{"name": "t", "labels": map[string]any{"a": "1"}},
		"spec": spec, "data": map[string]any{"k": "v"}, "immutable": true,
	}}
	is := was.DeepCopy()
	is.SetLabels(map[string]string{"a": "2"})
	delete(is.Object, "data")
	is.Object["webhooks"] = []any{}
	for _, tt := range []struct {
		name    string
		was, is *cluster.Object
	}{{"both", was, is}, {"the same", was, was}, {"made", nil, is}, {"deleted", was, nil}, {"neither", nil, nil}} {
		t.Run(tt.name, func(t *testing.T) {
			a, b, err := pairLines(tt.was, tt.is)
			if err != nil {
				t.Fatal(err)
			}
			for _, side := range []struct {
				o    *cluster.Object
				text string
			}{{tt.was, strings.Join(a, "")}, {tt.is, strings.Join(b, "")}} {
				whole := ""
				if side.o != nil {
					y, err := yaml.Marshal(normal(side.o))
					if err != nil {
						t.Fatal(err)
					}
					whole = string(y)
				}
				if side.text != whole {
					t.Errorf("got\n%s\nwant\n%s", side.text, whole)
				}
			}
		})
	}
}
