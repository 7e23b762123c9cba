package effect

import (
	"reflect"
	"testing"

	"sigs.k8s.io/yaml"

	"rutter.dev/rutter/runtime/cluster"
)

func thing(t *testing.T, text string) *cluster.Object {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	o := &cluster.Object{}
	head := `{"apiVersion":"v1","kind":"Thing","metadata":{"name":"a"}`
	if string(raw) == "{}" || string(raw) == "null" {
		head += "}"
	} else {
		head += "," + string(raw[1:])
	}
	if err := o.UnmarshalJSON([]byte(head)); err != nil {
		t.Fatalf("%v in %s", err, head)
	}
	return o
}

func TestDeltaAndPatched(t *testing.T) {
	before := thing(t, "a: 1\nb: {c: x, d: y}\nl: [1, 2]\ngone: true")
	after := thing(t, "a: 2\nb: {c: x, e: z}\nl: [1, 2, 3]")
	d := Delta(before, after)
	if got := Patched(before, d).Object; !reflect.DeepEqual(got, after.Object) {
		t.Errorf("got %v, want %v", got, after.Object)
	}
	if d := Delta(before, before.DeepCopy()); len(d) != 0 {
		t.Errorf("of nothing: %v", d)
	}
}

func TestRevert(t *testing.T) {
	for name, c := range map[string]struct {
		before, after, live, want string
		foreign                   []string
		overwritten               string
	}{
		"as it was made":           {"a: 1", "a: 2\nb: 1", "a: 2\nb: 1", "a: 1", nil, ""},
		"already as it was":        {"a: 1", "a: 2", "a: 1", "a: 1", nil, ""},
		"others changed another":   {"m: {a: 1}", "m: {a: 2, b: 1}", "m: {a: 2, b: 1, c: 5}", "m: {a: 1, c: 5}", nil, ""},
		"others changed the same":  {"m: {a: 1}", "m: {a: 2}", "m: {a: 3}", "m: {a: 3}", []string{"m.a"}, "m: {a: 1}"},
		"others deleted the same":  {"m: {a: 1, b: 1}", "m: {a: 2, b: 1}", "m: {b: 1}", "m: {b: 1}", []string{"m.a"}, "m: {a: 1, b: 1}"},
		"the run deleted it":       {"a: 1\nb: 2", "a: 1", "a: 1", "a: 1\nb: 2", nil, ""},
		"others put it back":       {"a: 1\nb: 2", "a: 1", "a: 1\nb: 3", "a: 1\nb: 3", []string{"b"}, "a: 1\nb: 2"},
		"a map that the run added": {"a: 1", "a: 1\nm: {x: 1}", "a: 1\nm: {x: 1, y: 2}", "a: 1\nm: {y: 2}", nil, ""},
		"and nobody else used":     {"a: 1", "a: 1\nm: {x: 1}", "a: 1\nm: {x: 1}", "a: 1", nil, ""},
		"named items": {
			"c: [{name: x, v: 1}, {name: w, v: 1}]", "c: [{name: x, v: 2}, {name: z, v: 1}]",
			"c: [{name: side, v: 9}, {name: x, v: 2}, {name: z, v: 1}]",
			"c: [{name: x, v: 1}, {name: w, v: 1}, {name: side, v: 9}]", nil, "",
		},
		"another order only": {
			"c: [{name: x}, {name: w}]", "c: [{name: w}, {name: x}]", "c: [{name: w}, {name: x}, {name: z}]",
			"c: [{name: x}, {name: w}, {name: z}]", nil, "",
		},
		"plain lists are wholes": {"l: [1]", "l: [1, 2]", "l: [1, 2, 3]", "l: [1, 2, 3]", []string{"l"}, "l: [1]"},
		"keys with dots": {
			"metadata: {name: a}", "metadata: {name: a, annotations: {x.io/y: '1'}}", "metadata: {name: a, annotations: {x.io/y: '2'}}",
			"metadata: {name: a, annotations: {x.io/y: '2'}}",
			[]string{"metadata.annotations[x.io/y]"},
			"metadata: {name: a}",
		},
	} {
		t.Run(name, func(t *testing.T) {
			before, after, live := thing(t, c.before), thing(t, c.after), thing(t, c.live)
			got, foreign := Revert(live, before, after, false)
			if want := thing(t, c.want); !reflect.DeepEqual(got.Object, want.Object) {
				t.Errorf("got %v, want %v", got.Object, want.Object)
			}
			var fields []string
			for _, f := range foreign {
				fields = append(fields, f.Field)
			}
			if !reflect.DeepEqual(fields, c.foreign) {
				t.Errorf("foreign: %v, want %v", fields, c.foreign)
			}
			if c.overwritten == "" {
				return
			}
			got, _ = Revert(live, before, after, true)
			if want := thing(t, c.overwritten); !reflect.DeepEqual(got.Object, want.Object) {
				t.Errorf("overwritten: got %v, want %v", got.Object, want.Object)
			}
		})
	}
}

func TestDiffering(t *testing.T) {
	a := thing(t, "m: {x: 1, w: 1}\nc: [{name: i, v: 1}]\nl: [1]\nsame: 1")
	b := thing(t, "m: {x: 2}\nc: [{name: i, v: 2}]\nl: [2]\nsame: 1")
	if got, want := Differing(a, b), []string{"c[i].v", "l", "m.w", "m.x"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := Differing(a, a); len(got) > 0 {
		t.Errorf("of the same: %v", got)
	}
}
