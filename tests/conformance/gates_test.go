package conformance

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"rutter.dev/rutter/cmd/modules"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
)

var update = flag.Bool("update", false, "write testdata/gates.md anew")

const gatesFile = "testdata/gates.md"

// The tables of which change passes which gate are documentation: a gate that
// is taken from a class, or a class that a builtin can newly make, shows here.
func TestGates(t *testing.T) {
	got := gatesTable() + "\n" + builtinsTable(modules.Specs(laboratory(t).renderer))
	if *update {
		if err := os.WriteFile(gatesFile, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(gatesFile)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what the declarations say; if the change is meant:\n  go test ./tests/conformance -run TestGates -update\ngot:\n%s", gatesFile, got)
	}
}

func gatesTable() string {
	var b strings.Builder
	b.WriteString("# Gates\n\nWhich gates a change passes, by its class. The host derives the class from the\nrequest.\n\n| class |")
	for _, g := range gate.All() {
		fmt.Fprintf(&b, " %s %s |", g.Code, g.Name)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(gate.All())) + "\n")
	for _, c := range effect.Classes() {
		fmt.Fprintf(&b, "| %s |", c)
		codes := gate.For(c)
		for _, g := range gate.All() {
			mark := " "
			if slices.Contains(codes, g.Code) {
				mark = " × "
			}
			b.WriteString(mark + "|")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func builtinsTable(all []*builtin.Spec) string {
	var b strings.Builder
	b.WriteString("# Builtins\n\nWhich classes of change a builtin can make. All others make none.\n\n| builtin |")
	for _, c := range effect.Classes() {
		fmt.Fprintf(&b, " %s |", c)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(effect.Classes())) + "\n")
	for _, s := range all {
		if s.Class != builtin.Write {
			continue
		}
		fmt.Fprintf(&b, "| %s |", s.Name)
		for _, c := range effect.Classes() {
			mark := " "
			if s.Declares(c) {
				mark = " × "
			}
			b.WriteString(mark + "|")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// Every class passes the gates that no change may do without, and none is
// without gates.
func TestEveryClassIsGuarded(t *testing.T) {
	for _, c := range effect.Classes() {
		codes := gate.For(c)
		for _, must := range []gate.Code{gate.ClusterPinned, gate.LockHeld, gate.DryRun, gate.Scope} {
			if !slices.Contains(codes, must) {
				t.Errorf("class %s does not pass %s", c, must)
			}
		}
		for _, code := range codes {
			if !slices.ContainsFunc(gate.All(), func(g *gate.Gate) bool { return g.Code == code }) {
				t.Errorf("class %s passes %s, which does not exist", c, code)
			}
		}
	}
	for _, g := range gate.All() {
		if g.Name == "" || g.Rationale == "" || g.Source == "" {
			t.Errorf("%s: name %q, rationale %q, source %q; want all", g.Code, g.Name, g.Rationale, g.Source)
		}
		if g.Before == nil && g.After == nil {
			t.Errorf("%s judges nothing", g.Code)
		}
	}
}

// anyObject are the builtins that take any object, with the verbs that they
// use: they declare every class that such requests can have.
var anyObject = map[string][]effect.Verb{
	"kube.apply":       {effect.Apply, effect.Delete},
	"istioctl.install": {effect.Apply, effect.Delete},
	"kube.patch":       {effect.Patch},
	"kube.label":       {effect.Patch},
	"kube.delete":      {effect.Delete},
	"backup.restore":   {effect.Create, effect.Replace, effect.Delete},
}

// notShown says why a class is declared that no run here makes.
var notShown = map[string]map[effect.Class]string{
	"restart.control_plane": {
		effect.Eviction: "only a CNI DaemonSet that is updated OnDelete is restarted pod by pod",
	},
}

// declared compares the classes that a builtin declares with those that were seen.
func declared(t *testing.T, s *builtin.Spec, seen map[effect.Class]bool) {
	t.Helper()
	for c := range seen {
		if !s.Declares(c) {
			t.Errorf("made effects of class %s, which it does not declare", c)
		}
	}
	if verbs := anyObject[s.Name]; verbs != nil {
		if want := reachable(t, verbs); !slices.Equal(s.Effects, want) {
			t.Errorf("declares effects of classes %s; requests with %s can have %s", s.Effects, verbs, want)
		}
		return
	}
	for _, c := range s.Effects {
		switch why := notShown[s.Name][c]; {
		case !seen[c] && why == "":
			t.Errorf("declares effects of class %s, which nothing here makes: add a call that does to more in settings", c)
		case seen[c] && why != "":
			t.Errorf("makes effects of class %s, though notShown says: %s", c, why)
		}
	}
}

// reachable lists the classes that Classify gives to requests with the verbs,
// tried on one object of every sort.
func reachable(t *testing.T, verbs []effect.Verb) []effect.Class {
	t.Helper()
	found := map[effect.Class]bool{}
	for _, sort := range sorts {
		o := &cluster.Object{Object: map[string]any{"apiVersion": sort.version, "kind": sort.kind, "metadata": map[string]any{
			"name": sort.name, "namespace": "x", "labels": map[string]any{sort.label: sort.value},
		}}}
		body, err := json.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range verbs {
			e := &effect.Effect{Verb: v, Ref: cluster.RefOf(o), Before: o, Body: body}
			if v == effect.Delete || v == effect.Evict {
				e.Body = nil
			}
			found[effect.Classify(e)] = true
			if v == effect.Patch {
				e.Body = []byte(`{"spec": {"template": {"metadata": {"annotations": {"` + effect.AnnotationRestart + `": "x"}}}}}`)
				found[effect.Classify(e)] = true
			}
		}
	}
	return slices.DeleteFunc(effect.Classes(), func(c effect.Class) bool { return !found[c] })
}

// sorts are objects of every sort that Classify tells apart.
var sorts = []struct{ version, kind, name, label, value string }{
	{"apiextensions.k8s.io/v1", "CustomResourceDefinition", "x", "x", "x"},
	{"admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "x", "x", "x"},
	{"admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "x", "istio.io/tag", "x"},
	{"apps/v1", "Deployment", "istiod", "x", "x"},
	{"apps/v1", "Deployment", "x", "x", "x"},
	{"apps/v1", "Deployment", "x", "istio", "ingressgateway"},
	{"apps/v1", "StatefulSet", "x", "x", "x"},
	{"v1", "Service", "x", "install.operator.istio.io/owning-resource", "x"},
	{"networking.istio.io/v1", "VirtualService", "x", "x", "x"},
	{"v1", "ConfigMap", "istio", "x", "x"},
	{"v1", "ConfigMap", "x", "x", "x"},
	{"v1", "Namespace", "x", "x", "x"},
	{"v1", "Pod", "x", "x", "x"},
}
