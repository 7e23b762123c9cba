package cluster

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"

	"rutter.dev/rutter/runtime/plain"
)

// What is read without a request is what a request would have given.
func TestReceivedAsByARequest(t *testing.T) {
	held := map[string]any{
		"text": "a", "yes": true, "nothing": nil, "whole": int64(7), "list": []any{"a", int64(1), 2.0, []any{}, map[string]any{}},
		"floats": []any{4294967295.0, -3.0, 0.5, 1e21, 1e300, math.Copysign(0, -1), float64(1 << 53), math.Pow(2, 62), math.Pow(2, 63), -math.Pow(2, 63)},
	}
	text, err := json.Marshal(held)
	if err != nil {
		t.Fatal(err)
	}
	want, err := plain.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	got := received(held).(map[string]any)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %#v\nwant %#v", got, want)
	}
	got["list"].([]any)[0] = "b"
	if held["list"].([]any)[0] != "a" {
		t.Error("it is no copy")
	}
}
