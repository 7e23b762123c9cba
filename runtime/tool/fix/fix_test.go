package fix

import (
	"strings"
	"testing"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/deps"
	"rutter.dev/rutter/runtime/diag"
)

type none struct{}

func pure(name string) *builtin.Spec {
	return builtin.NewPure(builtin.PureDef[none]{Name: name, Doc: "x", Example: "x", Do: func(*builtin.Call, *none) (any, error) { return starlark.None, nil }})
}

func rules() Rules {
	return Rules{
		API: 1,
		Dependencies: []deps.Deprecation{
			{Library: "@ops", File: "a.star", Name: "old", Use: "fresh", Since: "1.3.0"},
			{Library: "@ops", File: "a.star", Name: "gone", Note: "nothing takes its place"},
			{Library: "@ops", File: "a.star", Name: "away", Moved: "b.star"},
			{Library: "@ops", File: "a.star", Name: "both", Use: "new_both", Moved: "b.star"},
			{Library: "@ops", File: "a.star", Name: "roll", Arg: "batch", Use: "size"},
			{Library: "@ops", File: "file.star", Moved: "lib/file.star", Since: "1.1.0"},
		},
		Builtins: []*builtin.Spec{pure("kube.old").Retire(builtin.Retirement{Since: 2, Use: "kube.fresh"}), pure("shout").Retire(builtin.Retirement{Since: 2, Use: "log"}), pure("kube.get")},
	}
}

func TestSource(t *testing.T) {
	for _, tc := range []struct {
		name, src, want string
		says            []string
	}{
		{
			"a new name", "load(\"@ops//a.star\", \"old\")\nx = old(old = 1).old\ny = [old for _ in range(2)]\n", "load(\"@ops//a.star\", \"fresh\")\nx = fresh(old = 1).old\ny = [fresh for _ in range(2)]\n",
			[]string{"x.star:1:23: old of @ops//a.star is deprecated since 1.3.0; use fresh"},
		},
		{"a new name that is taken", "load('@ops//a.star', 'old')\nfresh = old\n", "load('@ops//a.star', old = \"fresh\")\nfresh = old\n", []string{"use fresh"}},
		{"a new name where the old one is bound again", "load(\"@ops//a.star\", \"old\")\ndef f(old):\n    return old\nx = f(old)\n", "load(\"@ops//a.star\", old = \"fresh\")\ndef f(old):\n    return old\nx = f(old)\n", []string{"use fresh"}},
		{"an alias", "load(\"@ops//a.star\", \"ä\", mine = \"old\")\nx = mine\n", "load(\"@ops//a.star\", \"ä\", mine = \"fresh\")\nx = mine\n", []string{"use fresh"}},
		{"an alias that is the new name", "load(\"@ops//a.star\", fresh = \"old\")\nx = fresh\n", "load(\"@ops//a.star\", \"fresh\")\nx = fresh\n", []string{"use fresh"}},
		{"nothing instead", "load(\"@ops//a.star\", \"gone\")\n", "load(\"@ops//a.star\", \"gone\")\n", []string{"gone of @ops//a.star is deprecated; nothing takes its place"}},
		{"another file, alone", "load(\"@ops//a.star\", \"away\")\nx = away\n", "load(\"@ops//b.star\", \"away\")\nx = away\n", []string{"use away of @ops//b.star"}},
		{"another file, among others", "load(\"@ops//a.star\", \"kept\", \"both\", \"more\")\nx = both\n", "load(\"@ops//b.star\", \"new_both\")\nload(\"@ops//a.star\", \"kept\", \"more\")\nx = new_both\n", []string{"use new_both of @ops//b.star"}},
		{"a file that moved", "load(\n    \"@ops//file.star\",\n    \"x\",\n)\n", "load(\n    \"@ops//lib/file.star\",\n    \"x\",\n)\n", []string{"x.star:2:5: @ops//file.star is deprecated since 1.1.0; use @ops//lib/file.star"}},
		{
			"an argument", "load(\"@ops//a.star\", r = \"roll\")\ndef run(p):\n    r(batch = 1)\n    step(\"x\", r, batch = 2)\n    other(batch = 3)\n",
			"load(\"@ops//a.star\", r = \"roll\")\ndef run(p):\n    r(size = 1)\n    step(\"x\", r, size = 2)\n    other(batch = 3)\n",
			[]string{"x.star:3:7: argument batch of roll is deprecated; use size", "x.star:4:18"},
		},
		{
			"builtins", "def run(p):\n    step(\"ä\", kube.old, kube.get)\n    shout(kube.old())\n", "def run(p):\n    step(\"ä\", kube.fresh, kube.get)\n    log(kube.fresh())\n",
			[]string{"x.star:2:15: kube.old is deprecated since api 2; use kube.fresh", "shout is deprecated", "kube.old"},
		},
		{"a builtin's name of one's own", "def shout():\n    pass\nshout()\n", "def shout():\n    pass\nshout()\n", nil},
		{"another library's", "load(\"@other//a.star\", \"old\")\nload(\"//a.star\", \"gone\")\n", "load(\"@other//a.star\", \"old\")\nload(\"//a.star\", \"gone\")\n", nil},
		{"no language level", "runbook(name = \"x\", version = \"1.0.0\")\n", "runbook(name = \"x\", version = \"1.0.0\", api = 1)\n", []string{"x.star:1:8: the runbook names no language level; say api = 1"}},
		{"no language level, in lines", "runbook(\n    name = \"x\",\n    version = \"1.0.0\",  # ours\n)\n", "runbook(\n    name = \"x\",\n    version = \"1.0.0\",\n    api = 1,  # ours\n)\n", []string{"names no language level"}},
		{"a language level", "runbook(name = \"x\", version = \"1.0.0\", api = 1)\n", "runbook(name = \"x\", version = \"1.0.0\", api = 1)\n", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			found, got, err := Source("//x.star", tc.src, rules())
			if err != nil {
				t.Fatal(err)
			}
			if got != tc.want {
				t.Errorf("got\n%swant\n%s", got, tc.want)
			}
			if len(found) != len(tc.says) {
				t.Fatalf("found %v, want %d", found, len(tc.says))
			}
			for i, f := range found {
				if !strings.Contains(f.String(), tc.says[i]) {
					t.Errorf("got %s, want %s", f, tc.says[i])
				}
				if f.Rewritten != (f.Instead != "nothing takes its place") {
					t.Errorf("%s: rewritten %v", f, f.Rewritten)
				}
			}
			// What was rewritten has nothing more to rewrite.
			if _, again, err := Source("//x.star", got, rules()); err != nil || again != got {
				t.Errorf("a second time: %v\n%s", err, again)
			}
		})
	}
	if _, _, err := Source("//x.star", "x = (", rules()); diag.ExitCode(err) != diag.Usage || !strings.HasPrefix(err.Error(), "x.star:1:6") {
		t.Errorf("got %v", err)
	}
}

func FuzzSource(f *testing.F) {
	f.Add("load(\"@ops//a.star\", \"kept\", \"both\", old = \"away\")\nrunbook(name = \"x\", version = \"1.0.0\")\nx = both(kube.old, batch = old)\n")
	f.Add("load('@ops//file.star', 'old',)\n# ü\nshout()\n")
	f.Fuzz(func(t *testing.T, src string) {
		_, got, err := Source("//x.star", src, rules())
		if err != nil {
			return
		}
		if _, _, err := Source("//x.star", got, rules()); err != nil {
			t.Errorf("%q became %q: %v", src, got, err)
		}
	})
}
