package plain

import (
	"reflect"
	"testing"
)

const twoPods = `[
	{"spec": {"containers": [{"name": "app", "env": [{"name": "A", "value": "1"}], "n": 1}], "nodeName": "a"}, "none": null},
	{"spec": {"containers": [{"name": "app", "env": [{"name": "A", "value": "1"}], "n": 1}], "nodeName": "b"}, "none": null, "empty": [], "also": {}}
]`

func decoded(t *testing.T, text string) map[string]any {
	t.Helper()
	m, err := Decode([]byte(`{"v": ` + text + `}`))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestShare(t *testing.T) {
	m := NewSharer().Share(decoded(t, twoPods)).(map[string]any)
	if want := decoded(t, twoPods); !reflect.DeepEqual(m, want) {
		t.Fatalf("sharing changed %v to %v", want, m)
	}
	list := m["v"].([]any)
	spec := func(i int) map[string]any { return list[i].(map[string]any)["spec"].(map[string]any) }
	if addressOf(spec(0)["containers"]) != addressOf(spec(1)["containers"]) {
		t.Error("equal containers are kept twice")
	}
	if addressOf(spec(0)) == addressOf(spec(1)) {
		t.Error("specs that differ are one")
	}
}

// What differs in anything stays what it is, whatever came before it.
func TestShareTellsApart(t *testing.T) {
	s := NewSharer()
	for _, text := range []string{
		`[1]`, `[1.5]`, `["1"]`, `[true]`, `[null]`, `[false]`, `[[]]`, `[{}]`, `[[1]]`, `[1, 1]`, `{"a": 1}`, `{"b": 1}`, `{"a": null}`, `{"a": {}}`, `{"a": []}`,
		`{"a": 1, "b": 2}`, `{"a": 2, "b": 1}`, `[[1], [2]]`, `[[2], [1]]`, `{"a": "b"}`, `{"b": "a"}`, `[{"a": 1}]`,
	} {
		for range 2 {
			if got, want := s.Share(decoded(t, text)), decoded(t, text); !reflect.DeepEqual(got, any(want)) {
				t.Errorf("%s became %v", text, got)
			}
		}
	}
}

// Whatever cannot be JSON is left alone.
func TestShareLeavesOthers(t *testing.T) {
	s := NewSharer()
	for range 2 {
		v := map[string]any{"a": []any{int32(1), []byte("x")}, "b": map[string]any(nil), "c": []any(nil)}
		got := s.Share(v).(map[string]any)
		if !reflect.DeepEqual(got, map[string]any{"a": []any{int32(1), []byte("x")}, "b": map[string]any(nil), "c": []any(nil)}) {
			t.Errorf("became %v", got)
		}
	}
}

func BenchmarkShare(b *testing.B) {
	s := NewSharer()
	for b.Loop() {
		m, err := Decode([]byte(`{"v": ` + twoPods + `}`))
		if err != nil {
			b.Fatal(err)
		}
		s.Share(m)
	}
}
