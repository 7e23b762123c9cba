package kinds

import (
	"reflect"
	"testing"
)

// TestEqualIsDeepEqual holds the quick comparison against the one it stands for.
func TestEqualIsDeepEqual(t *testing.T) {
	list := []any{"x", int64(1)}
	table := map[string]any{"k": list}
	values := []any{
		nil, "", "a", int64(1), int64(2), float64(1), int32(1), true, false,
		[]any(nil),
		[]any{},
		[]any{nil},
		list,
		[]any{"x", int64(1)},
		[]any{"x", float64(1)},
		list[:1],
		map[string]any(nil),
		map[string]any{},
		table,
		map[string]any{"k": []any{"x", int64(1)}},
		map[string]any{"k": nil},
		map[string]any{"l": nil},
		map[string]any{"k": map[string]any{}},
		[]string{"x"},
	}
	for i, a := range values {
		for j, b := range values {
			if got, want := Equal(a, b), reflect.DeepEqual(a, b); got != want {
				t.Errorf("Equal of %d %#v and %d %#v: got %v, want %v", i, a, j, b, got, want)
			}
		}
	}
}
