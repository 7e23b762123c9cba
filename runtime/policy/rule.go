package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/interp"
)

// prefixes are how the name of a rule begins, by the verdict of what it finds.
var prefixes = []struct {
	prefix  string
	verdict gate.Verdict
}{{"deny_", gate.Block}, {"ask_", gate.Ask}, {"warn_", gate.Warn}}

// DefaultSteps bounds one call of a rule, which is made for every effect: a
// million steps are some ten milliseconds.
const DefaultSteps = 1_000_000

// maxProblem bounds what a rule says, in bytes.
const maxProblem = 2000

// rule is one function of a rule file.
type rule struct {
	name    string
	verdict gate.Verdict
	fn      *starlark.Function
	module  *interp.Loaded
}

// organization are all rules of a policy.
type organization struct {
	rules  []rule
	limits interp.Limits
}

var _ gate.Organization = (*organization)(nil)

// rulesOf finds the rules of a file, in the order of its lines. One without
// any is a mistake: a name that was mistyped would judge nothing.
func rulesOf(m *interp.Loaded) ([]rule, error) {
	var out []rule
	for name, v := range m.Globals {
		fn, ok := v.(*starlark.Function)
		if !ok {
			continue
		}
		for _, p := range prefixes {
			if !strings.HasPrefix(name, p.prefix) {
				continue
			}
			if fn.NumParams() != 2 || fn.HasVarargs() || fn.HasKwargs() || fn.NumKwonlyParams() > 0 {
				return nil, &diag.Error{
					Code: diag.Usage, Pos: posOf(fn), Problem: fmt.Sprintf("rule %s takes %d parameters", name, fn.NumParams()),
					Expect: "two: def " + name + "(effect, facts):",
				}
			}
			out = append(out, rule{name, p.verdict, fn, m})
		}
	}
	if len(out) == 0 {
		return nil, &diag.Error{
			Code: diag.Usage, Pos: diag.Pos{File: m.Entry.Label[2:]}, Problem: "defines no rule",
			Expect: "functions def deny_…(effect, facts), ask_… or warn_…",
		}
	}
	slices.SortFunc(out, func(a, b rule) int { return int(a.fn.Position().Line) - int(b.fn.Position().Line) })
	return out, nil
}

func posOf(fn *starlark.Function) diag.Pos {
	p := fn.Position()
	return diag.Pos{File: p.Filename(), Line: int(p.Line), Col: int(p.Col)}
}

// Judge implements gate.Organization: every rule sees the effect, and each that
// says something is a finding. A rule that fails blocks: what is not known is
// not safe.
func (o *organization) Judge(ctx context.Context, run *gate.Run, e *effect.Effect) []gate.Finding {
	about, facts := effectValue(run, e), factsValue(run, e)
	var out []gate.Finding
	for _, r := range o.rules {
		problem, err := o.call(ctx, r, about, facts)
		switch {
		case err != nil:
			out = append(out, gate.Finding{
				Verdict: gate.Block, Rule: r.name, Problem: e.Redact(fmt.Sprintf("rule %s failed: %s", r.name, oneLine(err.Error()))),
				Expect: "a rule that answers; what is not known is not safe", Next: "mend the rule: rutter policy check, rutter test",
			})
		case problem != "":
			out = append(out, gate.Finding{
				Verdict: r.verdict, Rule: r.name, Problem: e.Redact(problem),
				Expect: "what rule " + r.name + " of the organization lets pass",
			})
		}
	}
	return out
}

// oneLine is text as it can stand in a finding.
func oneLine(s string) string { return event.CleanLine(s) }

// call is what a rule says of an effect; "" where it has nothing to say.
func (o *organization) call(ctx context.Context, r rule, about, facts starlark.Value) (string, error) {
	limits := o.limits
	if limits.Steps == 0 || limits.Steps > DefaultSteps {
		limits.Steps = DefaultSteps
	}
	v, err := r.module.Call(ctx, r.fn, starlark.Tuple{about, facts}, interp.ExecOptions{Limits: limits}, nil)
	if err != nil {
		return "", unframed(err)
	}
	pos := posOf(r.fn)
	switch v := v.(type) {
	case starlark.NoneType:
		return "", nil
	case starlark.String:
		if len(v) > maxProblem {
			return "", &diag.Error{Pos: pos, Problem: fmt.Sprintf("returned a text of %d bytes", len(v)), Expect: fmt.Sprintf("at most %d", maxProblem)}
		}
		return oneLine(strings.TrimSpace(string(v))), nil
	}
	return "", &diag.Error{Pos: pos, Problem: "returned a " + v.Type(), Expect: "a string that says what is wrong, or None"}
}

// unframed leaves the place and the problem of an error, without its source and
// the frames around it.
func unframed(err error) error {
	var d *diag.Error
	if !errors.As(err, &d) {
		return err
	}
	return &diag.Error{Pos: d.Pos, Problem: d.Problem, Expect: d.Expect, Err: d.Err}
}
