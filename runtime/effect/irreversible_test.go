package effect

import (
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/cluster"
)

func TestIrreversible(t *testing.T) {
	crd := func(stored string) *cluster.Object {
		return thing(t, "spec: {versions: [{name: v1, storage: "+map[bool]string{true: "true", false: "false"}[stored == "v1"]+
			"}, {name: v2, storage: "+map[bool]string{true: "true", false: "false"}[stored == "v2"]+"}]}")
	}
	kind := cluster.Ref{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition", Name: "a"}
	for name, c := range map[string]struct {
		e    Effect
		want string
	}{
		"CA":                {Effect{Verb: Patch, Ref: cluster.Ref{Version: "v1", Kind: "Secret", Name: "cacerts"}}, "CA"},
		"another Secret":    {Effect{Verb: Patch, Ref: cluster.Ref{Version: "v1", Kind: "Secret", Name: "token"}}, ""},
		"namespace goes":    {Effect{Verb: Delete, Ref: cluster.Ref{Version: "v1", Kind: "Namespace", Name: "shop"}}, "what is in it"},
		"namespace changes": {Effect{Verb: Patch, Ref: cluster.Ref{Version: "v1", Kind: "Namespace", Name: "shop"}}, ""},
		"another storage":   {Effect{Verb: Apply, Ref: kind, Before: crd("v1"), After: crd("v2")}, "version v2"},
		"the same storage":  {Effect{Verb: Apply, Ref: kind, Before: crd("v1"), After: crd("v1")}, ""},
	} {
		got := Irreversible(&c.e)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

const managed = `
metadata:
  name: a
  annotations: {rutter.dev/run: r, rutter.dev/effect: e}
  managedFields:`

func entry(manager, op, fields string) string {
	return "\n  - {manager: " + manager + ", operation: " + op + ", apiVersion: v1, fieldsType: FieldsV1, fieldsV1: " + fields + "}"
}

func TestOwners(t *testing.T) {
	marks := `{"f:metadata": {"f:annotations": {".": {}, "f:rutter.dev/run": {}, "f:rutter.dev/effect": {}}}}`
	a, ab := `{"f:data": {"f:a": {}}}`, `{"f:data": {"f:a": {}, "f:b": {}}}`
	before := thing(t, managed+entry("installer", "Apply", ab))
	for name, c := range map[string]struct {
		live string
		back string // who gets fields back
		left string // what the patch holds no more
		nil  bool
	}{
		"as it was":          {entry("installer", "Apply", ab) + entry("rutter", "Update", marks), "", "", true},
		"moved":              {entry("rutter", "Apply", ab) + entry("rutter", "Update", marks), "installer", "rutter Apply", false},
		"partly moved":       {entry("installer", "Apply", a) + entry("rutter", "Apply", `{"f:data": {"f:b": {}}}`), "installer", "rutter Apply", false},
		"taken besides":      {entry("installer", "Apply", ab) + entry("rutter", "Update", a), "", "rutter Update", false},
		"others came to own": {entry("installer", "Apply", ab) + entry("kubectl", "Update", `{"f:data": {"f:c": {}}}`), "", "", true},
	} {
		patch, back, err := Owners(before, thing(t, managed+c.live))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if (patch == nil) != c.nil || strings.Join(back, ",") != c.back {
			t.Errorf("%s: patch %v, back to %v; want nil %v, back to %q", name, patch, back, c.nil, c.back)
		}
		if c.left == "" {
			continue
		}
		manager, op, _ := strings.Cut(c.left, " ")
		op0, ok := patch[0].(map[string]any)
		if !ok {
			t.Fatalf("%s: %v", name, patch)
		}
		list, ok := op0["value"].([]any)
		if !ok {
			t.Fatalf("%s: %v", name, patch)
		}
		for _, e := range list {
			m, ok := e.(map[string]any)
			if ok && m["manager"] == manager && m["operation"] == op {
				t.Errorf("%s: still owned: %v", name, m)
			}
		}
	}
}
