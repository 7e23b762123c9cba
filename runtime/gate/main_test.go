package gate

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"

	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/lock"
)

// judged is what the tables of this package made each gate say.
var judged = map[Code]map[Verdict]bool{}

// Every verdict that a gate's page promises, and its silence, is in some table.
// It is looked at once all tests of the package have run.
func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if code == 0 && flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.fuzz").Value.String() == "" {
		for _, g := range All() {
			p, _ := PageOf(g.Code)
			for _, v := range append([]Outcome{{Verdict: Pass}}, p.Verdicts...) {
				if !judged[g.Code][v.Verdict] {
					fmt.Fprintf(os.Stderr, "no table makes %s say %s\n", g.Code, v.Verdict)
					code = 1
				}
			}
		}
	}
	os.Exit(code)
}

// ruling is an Organization that always finds the same.
type ruling struct{ verdict Verdict }

func (r ruling) Judge(context.Context, *Run, *effect.Effect) []Finding {
	if r.verdict == Pass {
		return nil
	}
	return []Finding{{Verdict: r.verdict, Problem: "no", Rule: "r"}}
}

// What rules in Starlark find, and what of a rule that fails, is in runtime/policy.
func TestOrganizationRules(t *testing.T) {
	for name, c := range map[string]struct {
		rules Organization
		want  Verdict
	}{
		"no rules":       {nil, Pass},
		"nothing to say": {ruling{Pass}, Pass},
		"a rule warn_…":  {ruling{Warn}, Warn},
		"a rule ask_…":   {ruling{Ask}, Ask},
		"a rule deny_…":  {ruling{Block}, Block},
	} {
		t.Run(name, func(t *testing.T) {
			judge(t, organization, &fake{}, &Run{Policy: &Policy{Organization: c.rules}}, applied(t, "", configMap), c.want)
		})
	}
}

// fenced is a Fence as it is known.
type fenced struct{ err error }

func (f fenced) Check(context.Context) error { return f.err }
func (f fenced) Lost() error                 { return f.err }

func TestLockHeld(t *testing.T) {
	for name, c := range map[string]struct {
		fence Fence
		want  Verdict
	}{
		"nobody else can reach it": {nil, Pass},
		"held":                     {fenced{}, Pass},
		"lost":                     {fenced{lock.ErrLost}, Block},
		"could not be renewed":     {fenced{errors.New("no answer")}, Block},
	} {
		t.Run(name, func(t *testing.T) {
			judge(t, lockHeld, &fake{}, &Run{ID: "r", Fence: c.fence, Policy: &Policy{}}, applied(t, "", configMap), c.want)
		})
	}
}
