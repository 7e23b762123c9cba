package knowledge

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/Masterminds/semver/v3"

	"rutter.dev/rutter/runtime/diag"
)

const good = `istio: "1.32"
kubernetes: {min: "1.33", max: "1.37"}
sources: [https://example.com/supported]
notes:
  - id: istio-1.32-a
    title: A
    severity: removed
    changes: >
      what
      changes
    do: what to do
    class: detector
    reason: why
    affects: [istiod]
    sources: [https://example.com/a]
    detect:
      - {in: istiod, says: sets A, all: [{env: A}]}
`

func TestParse(t *testing.T) {
	edit := func(old, repl string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in the example", old)
		}
		return strings.Replace(good, old, repl, 1)
	}
	detect := func(d string) string { return edit("{in: istiod, says: sets A, all: [{env: A}]}", d) }
	for name, c := range map[string]struct {
		text string
		line int
		want string
	}{
		"empty":                {"", 0, "holds no release"},
		"no YAML":              {"istio: [", 1, "did not find"},
		"a list":               {"- a", 1, "cannot unmarshal"},
		"an unknown key":       {edit("reason: why", "reasn: why"), 13, `unknown key "reasn"; did you mean reason?`},
		"another type":         {edit("affects: [istiod]", "affects: {a: b}"), 14, "cannot unmarshal"},
		"a version as number":  {edit(`istio: "1.32"`, "istio: 1.320.1"), 1, "is no minor version"},
		"no range":             {edit(`min: "1.33"`, `min: "1.38"`), 1, "is no range"},
		"a range of 2.x":       {edit(`max: "1.37"`, `max: "2.1"`), 1, "is no range"},
		"no sources of it":     {edit("sources: [https://example.com/supported]\n", ""), 1, "no sources"},
		"an id of another":     {edit("id: istio-1.32-a", "id: istio-1.31-a"), 5, "want istio-1.32-"},
		"no id":                {edit("id: istio-1.32-a", "id: ''"), 5, "without an id"},
		"no title":             {edit("title: A", "title: ' '"), 5, "title is missing"},
		"no source":            {edit("sources: [https://example.com/a]", "sources: []"), 5, "sources and affects"},
		"an unknown severity":  {edit("severity: removed", "severity: bad"), 5, `severity "bad"`},
		"an unknown class":     {edit("class: detector", "class: auto"), 5, `class "auto"`},
		"manual and detected":  {edit("class: detector", "class: manual"), 5, "a note of class detector has detect"},
		"twice":                {good + strings.Split(good, "notes:\n")[1], 18, "is there twice"},
		"a release twice":      {good + "---\n" + good, 19, "istio 1.32 is there twice"},
		"an alias":             {edit("affects: [istiod]", "affects: &a [istiod]") + "---\nistio: *a\n", 0, ""},
		"no subject":           {detect("{says: x}"), 5, "has no in"},
		"an unknown subject":   {detect("{in: pilot, says: x}"), 5, `"pilot" is no kind`},
		"nothing to say":       {detect("{in: istiod}"), 5, "has no says"},
		"a bad pattern":        {detect("{in: Service, says: x, names: ['[']}"), 5, "pattern"},
		"no field":             {detect("{in: Service, says: x, all: [{is: [a]}]}"), 5, "neither field, env nor any"},
		"both":                 {detect("{in: istiod, says: x, all: [{env: A, field: b}]}"), 5, "goes without field"},
		"two tests":            {detect("{in: Service, says: x, all: [{field: a, is: [b], matches: c}]}"), 5, "exclude one another"},
		"a bad expression":     {detect("{in: Service, says: x, all: [{field: a, matches: '('}]}"), 5, "matches"},
		"no version":           {detect("{in: Service, says: x, all: [{field: a, older: x}]}"), 5, "is no version"},
		"a bad path":           {detect("{in: Service, says: x, all: [{field: 'a['}]}"), 5, "is not closed"},
		"any with more":        {detect("{in: Service, says: x, all: [{field: a, any: [{field: b}]}]}"), 5, "stands alone"},
		"with within with":     {detect("{in: Service, says: x, with: [{in: Secret, with: [{in: Pod}]}]}"), 5, "has neither with nor shared"},
		"half a join":          {detect("{in: Service, says: x, with: [{in: Secret, mine: a}]}"), 5, "go together"},
		"an empty note":        {edit("notes:\n", "notes:\n  -\n"), 5, "an empty note"},
		"an empty detection":   {detect(""), 5, "an empty detection"},
		"a field twice":        {fields + strings.TrimPrefix(fields, "removedFields:\n"), 3, "values.old is there twice"},
		"a field of no minor":  {strings.Replace(fields, `"1.32"`, `"1.32.1"`, 1), 2, "since: "},
		"a field of nowhere":   {strings.Replace(fields, "sources: [x]", "sources: []", 1), 2, "path, instead or sources"},
		"no field at all":      {"removedFields:\n  -\n", 2, "an empty field"},
		"skew without sources": {"skew: {inPlace: 1, byRevision: 2}", 1, "skew needs"},
		"nested too deep":      {detect("{in: Service, says: x, all: [" + strings.Repeat("{field: a, all: [", 12) + "{field: b}" + strings.Repeat("]}", 12) + "]}"), 5, "nested more"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse("own.yaml", []byte(c.text))
			if c.want == "" {
				if err == nil {
					t.Fatal("taken")
				}
				return
			}
			var d *diag.Error
			if !errors.As(err, &d) || d.Code != diag.Usage || !strings.Contains(d.Problem, c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if d.Pos.File != "own.yaml" || d.Pos.Line != c.line {
				t.Errorf("at %s, want line %d: %v", d.Pos, c.line, err)
			}
		})
	}
	b, err := parse("own.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if n := b.releases[0].Notes[0]; n.Istio != "1.32" || n.Changes != "what changes" || n.Pos.Line != 5 {
		t.Errorf("%+v", n)
	}
}

const fields = "removedFields:\n  - {path: values.old, since: \"1.32\", instead: values.new, sources: [x]}\n"

// Fields that are gone are data like the rest: a file corrects them and adds more.
func TestRemovedFields(t *testing.T) {
	b := base(t)
	in := func(b *Base, version string) map[string]string {
		out := map[string]string{}
		for _, f := range b.RemovedIn(semver.MustParse(version)) {
			out[f.Path] = f.Since + ": " + f.Instead
		}
		return out
	}
	if got := in(b, "1.31.0"); len(got) != 14 || got["components.citadel"] != "1.6: istiod is the CA: components.pilot" {
		t.Errorf("got %v", got)
	}
	if got := in(b, "1.7.0"); len(got) != 6 {
		t.Errorf("in 1.7: %v", got)
	}
	o, err := Load(b, "own.yaml", []byte(fields+"  - {path: components.citadel, since: \"1.5\", instead: ours, sources: [x]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := in(o, "1.31.0"); len(got) != 14 || got["components.citadel"] != "1.5: ours" {
		t.Errorf("overridden: %v", got)
	}
	if got := in(o, "1.32.0-beta.1"); len(got) != 15 || got["values.old"] != "1.32: values.new" {
		t.Errorf("in 1.32: %v", got)
	}
	if len(b.RemovedFields()) != 14 || len(o.Releases()) != len(b.Releases()) || o.Skew().InPlace != b.Skew().InPlace {
		t.Error("the base was changed, or lost something")
	}
}

// A file may bring a minor version that this rutter does not know, and replace
// what it does.
func TestLoad(t *testing.T) {
	b := base(t)
	o, err := Load(b, "own.yaml", []byte(good+`---
istio: "1.31"
notes:
  - id: istio-1.31-upstream-span
    title: Ours
    severity: notice
    changes: a
    do: b
    class: irrelevant
    reason: c
    affects: [d]
    sources: [e]
---
skew: {inPlace: 2, byRevision: 3, sources: [x]}
`))
	if err != nil {
		t.Fatal(err)
	}
	v := semver.MustParse
	if r := o.Release(v("1.32.0")); r == nil || r.Kubernetes != (Range{33, 37}) {
		t.Errorf("1.32: %+v", r)
	}
	if r := o.Release(v("1.31.0")); r.Kubernetes != (Range{32, 36}) {
		t.Errorf("the range of 1.31 is %s", r.Kubernetes)
	}
	if o.Skew().InPlace != 2 {
		t.Errorf("skew %+v", o.Skew())
	}
	if n, err := o.Note("istio-1.31-upstream-span"); err != nil || n.Title != "Ours" {
		t.Errorf("%+v, %v", n, err)
	}
	if n, err := b.Note("istio-1.31-upstream-span"); err != nil || n.Title == "Ours" || b.Release(v("1.32.0")) != nil || b.Skew().InPlace != 1 {
		t.Errorf("what it was laid over changed: %+v, %v", n, err)
	}
	if _, err := o.Note("istio-1.32-b"); err == nil || !strings.Contains(err.Error(), "did you mean istio-1.32-a?") {
		t.Errorf("got %v", err)
	}
}

func TestBetween(t *testing.T) {
	b := base(t)
	minors := func(from, to string) []string {
		var out []string
		for _, n := range b.Between(semver.MustParse(from), semver.MustParse(to)) {
			if !slices.Contains(out, n.Istio) {
				out = append(out, n.Istio)
			}
		}
		return out
	}
	for _, c := range []struct {
		from, to string
		want     []string
	}{
		{"1.30.3", "1.31.0", []string{"1.31"}},
		{"1.29.6", "1.31.0", []string{"1.30", "1.31"}},
		{"1.31.0", "1.31.4", nil},
		{"1.31.0", "1.30.0", nil},
		{"1.19.0", "1.21.0", []string{"1.20", "1.21"}},
	} {
		if got := minors(c.from, c.to); !slices.Equal(got, c.want) {
			t.Errorf("%s to %s: %v, want %v", c.from, c.to, got, c.want)
		}
	}
	if got := b.Unknown(semver.MustParse("1.30.3"), semver.MustParse("1.33.0")); !slices.Equal(got, []string{"1.32", "1.33"}) {
		t.Errorf("unknown: %v", got)
	}
	if got := b.Unknown(semver.MustParse("1.31.0"), semver.MustParse("2.0.0")); !slices.Equal(got, []string{"2.0"}) {
		t.Errorf("unknown: %v", got)
	}
	if got := b.Unknown(semver.MustParse("1.31.0"), semver.MustParse("1.31.1")); got != nil {
		t.Errorf("unknown: %v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(good)
	f.Add("skew: {inPlace: 1, byRevision: 2, sources: [a]}")
	f.Add(fields)
	f.Add("istio: \"1.1\"\nnotes: &a [*a]\n")
	f.Fuzz(func(t *testing.T, text string) {
		b, err := parse("f", []byte(text))
		if err != nil {
			var d *diag.Error
			if !errors.As(err, &d) || d.Pos.File != "f" {
				t.Fatalf("no diag.Error with a position: %v", err)
			}
			return
		}
		for _, r := range b.releases {
			for _, n := range r.Notes {
				if err := n.check(); err != nil {
					t.Fatalf("taken, and then refused: %v", err)
				}
			}
		}
	})
}
