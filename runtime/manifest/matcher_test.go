package manifest

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/pmezard/go-difflib/difflib"
)

// A diff is what the general matcher makes of it.
func TestUnifiedIsTheGeneralMatchers(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		words := 1 + r.IntN(12)*r.IntN(60)
		line := func() string { return strings.Repeat("x", r.IntN(words+1)) + "\n" }
		var a, b []string
		for range r.IntN(30) * r.IntN(20) {
			l := line()
			switch r.IntN(12) {
			case 0:
				a = append(a, l)
			case 1:
				b = append(b, l)
			case 2:
				a, b = append(a, l), append(b, line())
			default:
				a, b = append(a, l), append(b, l)
			}
		}
		if slices.Equal(a, b) { // what is equal has no diff
			b = append(b, "more\n")
		}
		for _, context := range []int{1, 3} {
			want, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{A: a, B: b, Context: context})
			if err != nil {
				t.Fatal(err)
			}
			if got := unified(a, b, context, 0); got != want {
				t.Fatalf("context %d: got\n%s\nwant\n%s", context, got, want)
			}
		}
	}
}

func TestUnifiedCountsFromWhereItsTextBegins(t *testing.T) {
	got := unified([]string{"a\n", "b\n"}, []string{"a\n", "c\n", "d\n"}, 3, 10)
	if want := "@@ -11,2 +11,3 @@\n a\n-b\n+c\n+d\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := unified(nil, []string{"a\n"}, 3, 0); got != "@@ -0,0 +1 @@\n+a\n" {
		t.Errorf("of nothing: got %q", got)
	}
}
