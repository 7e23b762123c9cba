package fix

import (
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/deps"
)

// library is a small one, whose sources say what will not be kept.
var library = map[string]string{
	"@stdlib//a.star": `
def fresh(to, size = 1, since = []):
    """Does it."""

def old(to, size = 1):
    """Did it.

    Args:
      to: the target.

    Deprecated since 1.3.0: use fresh.
    """

def other(to, size = 2):
    """Did it.

    Deprecated: use fresh.
    """

def away(to): "Deprecated: use there of //b.star."

def nowhere(to): "Deprecated: use gone of //b.star."

def gone():
    """Deprecated:
      since everybody has a policy,
      write one.

    Returns:
      nothing.
    """

def roll(size = 1, batch = None, speed = None, *rest, **more):
    """Restarts. Deprecated names: none; deprecated: no.

    Args:
      size: how many.
      batch: deprecated since 1.2.0:
        use size.
      speed: Deprecated: there is one speed.
      *rest: more.
    Returns:
      nothing.
    """

def plain(deprecated): "Says nothing."
`,
	"@stdlib//b.star":      "def there(to): pass\n",
	"@stdlib//broken.star": "def f(: \"Deprecated: use g.\"\n",
	"//lib/own.star":       "def ours():\n    \"Deprecated: use mine.\"\ndef mine(): pass\n",
}

func read(label string) (string, bool) { src, ok := library[label]; return src, ok }

func TestMarks(t *testing.T) {
	for _, tc := range []struct {
		name, src, want string
		says            []string // "left " before those that are not rewritten
	}{
		{
			"a new name", "load(\"@stdlib//a.star\", \"old\", \"fresh\")\nold(to = 1)\n", "load(\"@stdlib//a.star\", old = \"fresh\", \"fresh\")\nold(to = 1)\n",
			[]string{"x.star:1:26: old of @stdlib//a.star is deprecated since 1.3.0; use fresh"},
		},
		{"a new name that is free", "load(\"@stdlib//a.star\", \"old\")\nstep(\"x\", old, to = 1)\n", "load(\"@stdlib//a.star\", \"fresh\")\nstep(\"x\", fresh, to = 1)\n", []string{"use fresh"}},
		{"another default", "load(\"@stdlib//a.star\", \"other\")\n", "", []string{"left x.star:1:26: other of @stdlib//a.star is deprecated; use fresh, which is called in another way"}},
		{"another file", "load(\"@stdlib//a.star\", \"away\")\naway(1)\n", "load(\"@stdlib//b.star\", \"there\")\nthere(1)\n", []string{"use there of @stdlib//b.star"}},
		{"another file without it", "load(\"@stdlib//a.star\", \"nowhere\")\n", "", []string{"left x.star:1:26: nowhere of @stdlib//a.star is deprecated; use gone of //b.star, which"}},
		{"in words", "load(\"@stdlib//a.star\", \"gone\")\n", "", []string{"left x.star:1:26: gone of @stdlib//a.star is deprecated; since everybody has a policy, write one"}},
		{
			"arguments", "load(\"@stdlib//a.star\", \"roll\")\nroll(batch = 1, speed = 2)\nstep(\"x\", roll, batch = 3)\n", "load(\"@stdlib//a.star\", \"roll\")\nroll(size = 1, speed = 2)\nstep(\"x\", roll, size = 3)\n",
			[]string{"x.star:2:6: argument batch of roll is deprecated since 1.2.0; use size", "left x.star:2:17: argument speed of roll is deprecated; there is one speed", "x.star:3:17"},
		},
		{
			"arguments by their place", "load(\"@stdlib//a.star\", \"roll\")\nroll(1, 2)\nstep(\"x\", roll, 1, 2)\nattempt(roll, 1, 2)\nroll(1)\nroll(*[1, 2])\nroll(1, size = 2)\n", "",
			[]string{"left x.star:2:9: argument batch of roll, given by its place, is deprecated since 1.2.0; use size", "left x.star:3:20", "left x.star:4:18"},
		},
		{"both arguments", "load(\"@stdlib//a.star\", \"roll\")\nroll(size = 1, batch = 1)\n", "", []string{"left x.star:2:16: argument batch of roll is deprecated"}},
		{"one's own", "load(\"//lib/own.star\", \"ours\")\nours()\n", "load(\"//lib/own.star\", \"mine\")\nmine()\n", []string{"x.star:1:25: ours of //lib/own.star is deprecated; use mine"}},
		{"nothing marked", "load(\"@stdlib//a.star\", \"plain\", \"fresh\")\nplain(deprecated = 1)\nload(\"@stdlib//broken.star\", \"f\")\nload(\"@stdlib//none.star\", \"f\")\n", "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			found, got, err := Source("//x.star", tc.src, Rules{API: 1, Read: read})
			if err != nil {
				t.Fatal(err)
			}
			if tc.want == "" {
				tc.want = tc.src
			}
			if got != tc.want {
				t.Errorf("got\n%swant\n%s", got, tc.want)
			}
			if len(found) != len(tc.says) {
				t.Fatalf("found %v, want %d", found, len(tc.says))
			}
			for i, f := range found {
				want, left := strings.CutPrefix(tc.says[i], "left ")
				if !strings.Contains(f.String(), want) || f.Rewritten == left {
					t.Errorf("got %s (rewritten %v), want %s", f, f.Rewritten, tc.says[i])
				}
			}
		})
	}
}

// What a module's rutter.mod.star says of a name counts, and is said once.
func TestMarkedTwice(t *testing.T) {
	rules := Rules{API: 1, Read: read, Dependencies: []deps.Deprecation{{Library: "@stdlib", File: "a.star", Name: "old", Note: "ask ops"}}}
	found, got, err := Source("//x.star", "load(\"@stdlib//a.star\", \"old\")\n", rules)
	if err != nil || len(found) != 1 || found[0].Instead != "ask ops" || !strings.Contains(got, `"old"`) {
		t.Errorf("found %v in %s: %v", found, got, err)
	}
}

func FuzzMarks(f *testing.F) {
	for _, src := range library {
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src string) {
		for _, d := range marks("@l//x.star", func(string) (string, bool) { return src, true }) {
			if d.Name == "" || d.Use == "" && d.Moved != "" {
				t.Errorf("%+v", d)
			}
		}
	})
}
