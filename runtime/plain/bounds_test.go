package plain

import (
	"strings"
	"testing"
)

func TestBounds(t *testing.T) {
	for _, c := range []struct{ name, doc, err string }{
		{"plain", "a: [1, 2]\n", ""},
		{"anchor", "a: &a {x: 1}\nb: *a\nc: *a\n", ""},
		{"glob", "a: \"*.example.com\"\nb: x&y\n", ""},
		{"grows", "a: &a \"" + strings.Repeat("x", 1000) + "\"\nb: [" + strings.Repeat("*a,", 100) + "]\n", "once its aliases are written out"},
		{"itself", "a: &a\n  b: *a\n", "an alias of itself"},
		{"twice", "a: 1\na: 2\n", "already set"},
	} {
		_, err := Written.JSON([]byte(c.doc))
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.err)
		}
	}
	if err := (Bounds{Bytes: 4, Marks: 10}).Check([]byte("12345")); err == nil {
		t.Error("five bytes are within four")
	}
	if err := (Bounds{Bytes: 100, Marks: 2}).Check([]byte("a\nb\nc\n")); err == nil {
		t.Error("three lines are within two")
	}
}

func FuzzJSON(f *testing.F) {
	for _, s := range []string{"a: &a [1]\nb: [*a, *a]", "a: &a [*a]", "&x x: *x", "- - - -", "? [1]\n: 2", "<<: *a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b := Bounds{Bytes: 1 << 16, Marks: 1000}
		j, err := b.JSON([]byte(text))
		if err == nil && len(j) > 20*len(text)+8192 { // escapes lengthen too
			t.Errorf("%d bytes became %d", len(text), len(j))
		}
	})
}
