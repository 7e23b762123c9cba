package effect

import "testing"

func TestOwnersOnly(t *testing.T) {
	for body, want := range map[string]bool{
		`[{"op":"replace","path":"/metadata/managedFields","value":[]}]`:                                                    true,
		`[{"op":"replace","path":"/metadata/managedFields","value":[]},{"op":"replace","path":"/spec/replicas","value":0}]`: false,
		`[{"op":"test","path":"/spec/replicas","value":1},{"op":"remove","path":"/metadata/managedFields/1"}]`:              true,
		`[{"op":"move","from":"/spec","path":"/metadata/managedFields/1"}]`:                                                 false,
		`[{"op":"add","path":"/metadata/managedFieldsX"}]`:                                                                  false,
		`{"metadata":{"managedFields":[]}}`:                                                                                 false,
		`[]`:                                                                                                                false,
		``:                                                                                                                  false,
	} {
		if got := (&Effect{Verb: Patch, Body: []byte(body)}).OwnersOnly(); got != want {
			t.Errorf("%s: %v, want %v", body, got, want)
		}
		if (&Effect{Verb: Apply, Body: []byte(body)}).OwnersOnly() {
			t.Errorf("an apply of %s", body)
		}
	}
}
