package gate

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

// definition is a CRD of Widgets whose versions are given as JSON.
func definition(stored, more string, versions ...string) string {
	return `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"widgets.shop.io"},
	"spec":{"group":"shop.io","scope":"Namespaced","names":{"kind":"Widget","plural":"widgets"}` + more + `,"versions":[` + strings.Join(versions, ",") + `]},
	"status":{"storedVersions":[` + stored + `]}}`
}

func version(name string, served, storage bool, spec string) string {
	return fmt.Sprintf(`{"name":%q,"served":%v,"storage":%v,"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":%s}}}}`, name, served, storage, spec)
}

const (
	loose = `{"type":"object","description":"as it was","properties":{"size":{"type":"integer"},"color":{"type":"string"},"description":{"type":"string"}}}`
	told  = `{"type":"object","description":"told better","properties":{"size":{"type":"integer","description":"in mm"},"color":{"type":"string"},"description":{"type":"string"}}}`
	small = `{"type":"object","properties":{"size":{"type":"integer","maximum":10},"color":{"type":"string"},"description":{"type":"string"}}}`
	fewer = `{"type":"object","properties":{"size":{"type":"integer"},"description":{"type":"string"}}}`
	undoc = `{"type":"object","properties":{"size":{"type":"integer"},"color":{"type":"string"}}}`
	must  = `{"type":"object","required":["owner"],"properties":{"size":{"type":"integer"},"color":{"type":"string"},"description":{"type":"string"},"owner":{"type":"string"}}}`
	given = `{"type":"object","required":["owner"],"properties":{"size":{"type":"integer"},"color":{"type":"string"},"description":{"type":"string"},"owner":{"type":"string","default":"nobody"}}}`
	ruled = `{"type":"object","x-kubernetes-validations":[{"rule":"self.size < 10","message":"too large"}],"properties":{"size":{"type":"integer"},"color":{"type":"string"},"description":{"type":"string"}}}`
)

func widget(name, spec string) string {
	return `{"apiVersion":"shop.io/v1","kind":"Widget","metadata":{"name":"` + name + `","namespace":"shop"},"spec":` + spec + `}`
}

func TestCRDSafe(t *testing.T) {
	v1 := func(schema string) string { return version("v1", true, true, schema) }
	was := definition(`"v1"`, "", v1(loose))
	two := definition(`"v1alpha1","v1"`, "", version("v1alpha1", true, false, loose), v1(loose))
	large, red := widget("large", `{"size":50}`), widget("red", `{"color":"red","size":1}`)
	for name, c := range map[string]struct {
		before, after string
		objects       []string
		fail          error
		want          Verdict
		says          string
	}{
		"new":                              {"", was, nil, cluster.ErrUnreachable, Pass, ""},
		"unchanged, nothing is read":       {was, was, []string{large}, cluster.ErrUnreachable, Pass, ""},
		"told better, nothing is read":     {was, definition(`"v1"`, "", v1(told)), []string{large}, cluster.ErrUnreachable, Pass, ""},
		"deleted, empty":                   {was, "", nil, nil, Pass, ""},
		"deleted, with instances":          {was, "", []string{large}, nil, Block, "widget.shop.io/large in shop"},
		"deleted, no answer":               {was, "", nil, cluster.ErrUnreachable, Block, ""},
		"deleted, unreadable":              {definition(`"v1"`, "", version("v1", false, true, loose)), "", nil, nil, Block, "no version of it is served"},
		"stored version dropped":           {two, was, nil, nil, Block, "version v1alpha1 goes away"},
		"version dropped, not stored":      {definition(`"v1"`, "", version("v1alpha1", true, false, loose), v1(loose)), was, nil, nil, Warn, "v1alpha1 is not served"},
		"stored version not served":        {two, definition(`"v1"`, "", version("v1alpha1", false, false, loose), v1(loose)), nil, nil, Warn, "v1alpha1 is not served"},
		"stricter, object fails":           {was, definition(`"v1"`, "", v1(small)), []string{large}, nil, Block, "large in shop (spec.size:"},
		"stricter, all objects meet it":    {was, definition(`"v1"`, "", v1(small)), []string{red}, nil, Pass, ""},
		"stricter, no answer":              {was, definition(`"v1"`, "", v1(small)), nil, cluster.ErrUnreachable, Block, ""},
		"required":                         {was, definition(`"v1"`, "", v1(must)), []string{large}, nil, Block, "spec.owner"},
		"required, with a default":         {was, definition(`"v1"`, "", v1(given)), []string{large}, nil, Pass, ""},
		"a rule":                           {was, definition(`"v1"`, "", v1(ruled)), []string{large}, nil, Block, "too large"},
		"was wrong before":                 {definition(`"v1"`, "", v1(small)), definition(`"v1"`, "", v1(strings.Replace(small, "color", "colour", 1))), []string{large}, nil, Pass, ""},
		"field removed, used":              {was, definition(`"v1"`, "", v1(fewer)), []string{red}, nil, Warn, "spec.color"},
		"field removed, not used":          {was, definition(`"v1"`, "", v1(fewer)), []string{large}, nil, Pass, ""},
		"a field by the name description":  {was, definition(`"v1"`, "", v1(undoc)), []string{widget("d", `{"description":"x"}`)}, nil, Warn, "spec.description"},
		"was unknown before":               {definition(`"v1"`, "", v1(fewer)), definition(`"v1"`, "", v1(small)), []string{widget("x", `{"shape":"round"}`)}, nil, Pass, ""},
		"two versions change alike, once":  {two, definition("", "", version("v1alpha1", true, false, small), v1(small)), []string{large}, nil, Block, "schema of v1alpha1"},
		"many fail, few are named":         {was, definition(`"v1"`, "", v1(small)), []string{widget("a", `{"size":11}`), widget("b", `{"size":11}`), widget("c", `{"size":11}`), widget("d", `{"size":11}`), widget("e", `{"size":11}`)}, nil, Block, "and 2 more"},
		"converted, each version is read":  {definition(`"v1"`, `,"conversion":{"strategy":"Webhook"}`, version("v1alpha1", true, false, loose), v1(loose)), definition(`"v1"`, `,"conversion":{"strategy":"Webhook"}`, version("v1alpha1", true, false, small), v1(loose)), []string{large}, nil, Block, "schema of v1alpha1"},
		"new schema that does not compile": {was, definition(`"v1"`, "", v1(`{"type":"array","items":[{"type":"string"}]}`)), []string{red}, nil, Block, "new schema of version v1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &fake{fail: c.fail}
			for _, o := range c.objects {
				r.objects = append(r.objects, obj(t, o))
			}
			got := judge(t, crdSafe, r, &Run{Policy: &Policy{}}, applied(t, c.before, c.after), c.want)
			if c.want > Pass && !strings.Contains(fmt.Sprint(got), c.says) {
				t.Errorf("findings don't say %q: %v", c.says, got)
			}
			if c.want != Pass && c.fail == nil && len(got) != 1 {
				t.Errorf("%d findings, want 1: %v", len(got), got)
			}
		})
	}
}

// What the same call deletes before is not in the way; what is not known blocks.
func TestCRDSafeForecast(t *testing.T) {
	was := definition(`"v1"`, "", version("v1", true, true, loose))
	r := &fake{objects: []*cluster.Object{obj(t, widget("a", `{}`)), obj(t, widget("b", `{}`))}}
	gone := applied(t, was, "")
	a, b := applied(t, widget("a", `{}`), ""), applied(t, widget("b", `{}`), "")
	for name, c := range map[string]struct {
		forecast bool
		earlier  []*effect.Effect
		want     Verdict
	}{
		"all deleted before":  {true, []*effect.Effect{a, b}, Pass},
		"one is left":         {true, []*effect.Effect{a}, Block},
		"live, they are back": {false, []*effect.Effect{a, b}, Block},
	} {
		t.Run(name, func(t *testing.T) {
			judge(t, crdSafe, r, &Run{Policy: &Policy{}, Forecast: c.forecast, Earlier: c.earlier}, gone, c.want)
		})
	}
	blind := *applied(t, was, was)
	blind.Verb, blind.After, blind.Body = effect.Patch, nil, json.RawMessage(`[]`)
	judge(t, crdSafe, r, &Run{Policy: &Policy{}}, &blind, Block)
}
