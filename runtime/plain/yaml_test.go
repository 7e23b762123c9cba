package plain_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"go.yaml.in/yaml/v2"

	"rutter.dev/rutter/runtime/plain"
)

// pieces are what text is made of that YAML writes in one way or another.
var pieces = []string{
	"a", "yes", "no", "~", "null", "true", "1", "0x1f", "1.5", ".5", "-", "- ", "+1", "1e3", "12:30", "2026-01-02", "2026-01-02T03:04:05Z", "0b1", "1_000", "<<", "=",
	" ", "  ", "\n", "\n\n", "\t", "\r", "\x00", "\x1b", "\x1f", "\x7f", ":", ": ", " #", "#", "'", "\"", "\\", "?", "? ", "---", "...", "[", "]", "{", "}", ",", "&", "*", "!", "|", ">", "%", "@", "`",
	"word", "another word", "some words that are long enough for lines to be folded where they have spaces", "x-kubernetes-validations", "é", "\u2028", "\u00a0", "\ufeff", "日本", "\xff",
	"https://istio.io/docs/reference/config/networking/destination-rule.html", "v1.2.3", "10m",
}

type generator struct{ *rand.Rand }

func (g generator) text() string {
	var b strings.Builder
	for range g.IntN(6) {
		b.WriteString(pieces[g.IntN(len(pieces))])
		if g.IntN(3) == 0 {
			b.WriteByte(' ')
		}
	}
	if g.IntN(40) == 0 {
		return strings.Repeat(b.String(), 30)
	}
	return b.String()
}

func (g generator) value(depth int) any {
	switch n := g.IntN(12); {
	case n < 2 && depth > 0:
		m := map[string]any{}
		for range g.IntN(5) {
			m[g.text()] = g.value(depth - 1)
		}
		return m
	case n < 4 && depth > 0:
		l := []any{}
		for range g.IntN(4) {
			l = append(l, g.value(depth-1))
		}
		return l
	case n == 4:
		return nil
	case n == 5:
		return g.IntN(2) == 0
	case n == 6:
		return g.Int64() - g.Int64()
	case n == 7:
		return g.NormFloat64() * 1e10
	case n == 8:
		return int32(7) // which is no JSON
	}
	return g.text()
}

func wantYAML(t *testing.T, name string, v any) {
	t.Helper()
	want, err := yaml.Marshal(map[string]any{name: v})
	if err != nil {
		t.Fatal(err)
	}
	got, err := plain.AppendYAML([]byte("# before\n"), name, v)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != "# before\n"+string(want) {
		t.Fatalf("%q: %#v\ngot\n%s\nwant\n%s", name, v, got[9:], want)
	}
}

// What it writes is what the general encoder writes.
func TestAppendYAMLIsTheGeneralEncoders(t *testing.T) {
	for _, a := range pieces {
		wantYAML(t, "x", a)
		wantYAML(t, a, "x")
		for _, b := range pieces {
			wantYAML(t, "x", a+b)
			wantYAML(t, "x", a+" "+b)
			wantYAML(t, a+b, []any{b + a, map[string]any{a: b, b: []any{[]any{a}}}})
		}
	}
	g := generator{rand.New(rand.NewPCG(1, 2))}
	for range 20000 {
		wantYAML(t, g.text(), g.value(5))
	}
}

func FuzzAppendYAML(f *testing.F) {
	for _, p := range pieces {
		f.Add("name", p, uint8(3))
	}
	f.Fuzz(func(t *testing.T, name, text string, depth uint8) {
		if !utf8.ValidString(name) || !utf8.ValidString(text) {
			t.Skip("the general encoder has no order for such names")
		}
		var v any = text
		for i := range depth % 24 {
			if i%3 == 0 {
				v = []any{v, text}
				continue
			}
			v = map[string]any{name: v, text: text, "a10": text, "a9": nil}
		}
		wantYAML(t, name, v)
	})
}

func TestAppendYAMLAtAnyDepth(t *testing.T) {
	var v any = pieces[0]
	for i := range 60 {
		v = map[string]any{"list": []any{v, []any{v}}[:1+i%2], "text": strings.Join(pieces[i%7:], " "), "long": strings.Repeat("word ", 40) + "end"}
		if i%2 == 1 && i > 8 { // doubled each time
			v = map[string]any{"one": "x", "text": strings.Repeat("some words, ", 30), "deep": v.(map[string]any)["list"].([]any)[0]}
		}
		wantYAML(t, "x", v)
	}
}
