package cluster_test

import (
	"reflect"
	"testing"

	"rutter.dev/rutter/runtime/cluster"
)

// Two objects are the same when their digests are, and finding out changes neither.
func TestSameIsThatOfDigests(t *testing.T) {
	object := func(spec any, metadata map[string]any) *cluster.Object {
		return &cluster.Object{Object: map[string]any{"apiVersion": "v1", "kind": "Thing", "metadata": metadata, "spec": spec, "status": map[string]any{"at": "1"}}}
	}
	noisy := func() map[string]any {
		return map[string]any{
			"name": "t", "uid": "u", "resourceVersion": "7", "managedFields": []any{}, "labels": map[string]any{},
			"annotations": map[string]any{"deployment.kubernetes.io/revision": "3"},
		}
	}
	template := func(md map[string]any) map[string]any {
		return map[string]any{"template": map[string]any{"metadata": md}}
	}
	all := []*cluster.Object{
		object(map[string]any{}, map[string]any{"name": "t"}), object(map[string]any{}, noisy()), object(nil, noisy()),
		object(map[string]any{"n": int64(1)}, noisy()), object(map[string]any{"n": 1.0}, noisy()), object(map[string]any{"n": 1.5}, noisy()), object(map[string]any{"n": "1"}, noisy()),
		object([]any{int64(1), nil, true}, noisy()), object([]any{1.0, nil, true}, noisy()), object([]any{int64(1), nil, false}, noisy()), object([]any{}, noisy()),
		object(template(map[string]any{"creationTimestamp": nil, "name": "p"}), noisy()), object(template(map[string]any{"name": "p"}), noisy()), object(template(map[string]any{"creationTimestamp": "x", "name": "p"}), noisy()),
	}
	for i, a := range all {
		for j, b := range all {
			x, err := cluster.Digest(a)
			if err != nil {
				t.Fatal(err)
			}
			y, err := cluster.Digest(b)
			if err != nil {
				t.Fatal(err)
			}
			before := a.DeepCopy()
			if got := cluster.Same(a, b); got != (x == y) {
				t.Errorf("%d and %d: same %v, digests equal %v", i, j, got, x == y)
			}
			if !reflect.DeepEqual(a, before) {
				t.Errorf("%d: comparing changed it to %v", i, a)
			}
			if n := cluster.Normalize(a, cluster.NormalizeOptions{}); !reflect.DeepEqual(n, cluster.Normal(a, cluster.NormalizeOptions{})) {
				t.Errorf("%d: Normal is not Normalize", i)
			}
		}
	}
}
