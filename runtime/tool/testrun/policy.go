package testrun

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/policy"
	"rutter.dev/rutter/runtime/value"
)

// policyValue is a policy in a test: what t.run is given, and whose rules can be
// asked about an effect.
type policyValue struct {
	p *policy.Policy
	t *test
}

// String implements starlark.Value.
func (p *policyValue) String() string { return "<policy " + filepath.Base(p.p.Path) + ">" }

// Type implements starlark.Value.
func (p *policyValue) Type() string { return "policy" }

// Freeze implements starlark.Value; a policy is always frozen.
func (p *policyValue) Freeze() {}

// Truth implements starlark.Value.
func (p *policyValue) Truth() starlark.Bool { return true }

// Hash implements starlark.Value.
func (p *policyValue) Hash() (uint32, error) { return 0, errors.New("unhashable type: policy") }

// AttrNames implements starlark.HasAttrs.
func (p *policyValue) AttrNames() []string { return policyMethods().names }

// Attr implements starlark.HasAttrs.
func (p *policyValue) Attr(name string) (starlark.Value, error) {
	return policyMethods().bind(p, "policy", name)
}

var policyMethods = sync.OnceValue(func() *methods {
	return collect(
		declare("policy.judge", "list", "Judges an effect by the rules of the organization alone, and returns what they find: objects with .rule, .verdict and .problem.",
			`p.judge(verb = "apply", after = deployment)`, (*policyValue).judge),
		declare("policy.explain", "string", "Says in words what the policy allows, as rutter policy explain does.",
			`p.explain(at = "2026-12-24T18:00:00Z")`, (*policyValue).explain),
	)
})

type policyArgs struct {
	File string `star:"file,positional" doc:"The policy file."`
}

type judgeArgs struct {
	Verb     string         `star:"verb" default:"apply" doc:"Verb of the effect."`
	Before   starlark.Value `star:"before" doc:"The object as it was: a dict, an object or YAML text; None where there was none."`
	After    starlark.Value `star:"after" doc:"The object as it would be; None for a deletion."`
	Step     string         `star:"step" doc:"Path of the step."`
	Wave     string         `star:"wave" doc:"Wave of a restart."`
	Why      string         `star:"why" doc:"Why the effect is made."`
	Builtin  string         `star:"builtin" default:"kube.apply" doc:"The builtin that makes it."`
	Cluster  string         `star:"cluster" default:"sim" doc:"Name of the cluster."`
	Runbook  string         `star:"runbook" doc:"Name and version of the runbook."`
	From     string         `star:"from_version" doc:"Istio version of the start."`
	To       string         `star:"to_version" doc:"Istio version of the target."`
	Time     string         `star:"time" default:"2026-01-01T00:00:00Z" doc:"The time, in RFC 3339."`
	By       []string       `star:"approved_by" doc:"Who has approved."`
	Rollback bool           `star:"rollback" doc:"Whether the run is being undone."`
}

type explainArgs struct {
	At string `star:"at" default:"2026-01-01T00:00:00Z" doc:"The time, in RFC 3339."`
}

// policy carries out t.policy.
func (t *test) policy(th *starlark.Thread, a *policyArgs) (starlark.Value, error) {
	path := t.beside(a.File)
	rel, err := filepath.Rel(t.file.root, path)
	if err != nil || !filepath.IsLocal(rel) {
		return nil, fmt.Errorf("t.policy: %s lies outside of the root folder", a.File)
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("t.policy: %s: there is no such file", t.suite.relative(path))
	}
	p, err := t.suite.o.Host.ReadPolicy(ctxOf(th), path)
	if err != nil {
		return nil, fmt.Errorf("t.policy: %w", err)
	}
	return &policyValue{p, t}, nil
}

func (p *policyValue) explain(_ *starlark.Thread, a *explainArgs) (starlark.Value, error) {
	at, err := time.Parse(time.RFC3339, a.At)
	if err != nil {
		return nil, fmt.Errorf("policy.explain: at: %q is no time in RFC 3339", a.At)
	}
	return starlark.String(p.p.Explain(at)), nil
}

func (p *policyValue) judge(th *starlark.Thread, a *judgeArgs) (starlark.Value, error) {
	e, err := p.effect(a)
	if err != nil {
		return nil, fmt.Errorf("policy.judge: %w", err)
	}
	now, err := time.Parse(time.RFC3339, a.Time)
	if err != nil {
		return nil, fmt.Errorf("policy.judge: time: %q is no time in RFC 3339", a.Time)
	}
	run := &gate.Run{
		ID: runID, From: a.From, To: a.To, Facts: &effect.Facts{}, Policy: &p.p.Policy, Runbook: a.Runbook,
		Context: a.Cluster, Step: a.Step, Rollback: a.Rollback, Now: now, Forecast: true,
	}
	for _, by := range a.By {
		run.Facts.Approvals = append(run.Facts.Approvals, effect.Approval{By: by})
	}
	var out []starlark.Value
	if p.p.Organization != nil {
		for _, f := range p.p.Organization.Judge(ctxOf(th), run, e) {
			out = append(out, starlarkstruct.FromStringDict(starlarkstruct.Default, starlark.StringDict{
				"rule": starlark.String(f.Rule), "verdict": starlark.String(f.Verdict.String()), "problem": starlark.String(f.Problem),
			}))
		}
	}
	return starlark.NewList(out), nil
}

// effect is the effect that a test describes.
func (p *policyValue) effect(a *judgeArgs) (*effect.Effect, error) {
	before, err := p.object(a.Before)
	if err != nil {
		return nil, fmt.Errorf("before: %w", err)
	}
	after, err := p.object(a.After)
	if err != nil {
		return nil, fmt.Errorf("after: %w", err)
	}
	e := &effect.Effect{Verb: effect.Verb(a.Verb), Before: before, After: after, Absent: before == nil, Wave: a.Wave, Why: a.Why, Builtin: a.Builtin}
	switch {
	case after != nil:
		e.Ref = cluster.RefOf(after)
		if e.Body, err = json.Marshal(after.Object); err != nil {
			return nil, err
		}
	case before != nil:
		e.Ref = cluster.RefOf(before)
	default:
		return nil, errors.New("an effect has an object before or after it")
	}
	e.Class = effect.Classify(e)
	return e, nil
}

func (p *policyValue) object(v starlark.Value) (*cluster.Object, error) {
	objs, err := p.t.objects(v)
	switch {
	case err != nil:
		return nil, err
	case len(objs) > 1:
		return nil, fmt.Errorf("got %d objects, want one", len(objs))
	case len(objs) == 0:
		return nil, nil
	}
	return objs[0], nil
}

// policyOf is what an argument gives as a policy; nil for none.
func policyOf(v starlark.Value) (*gate.Policy, error) {
	switch v := v.(type) {
	case nil, starlark.NoneType:
		return nil, nil
	case *policyValue:
		return &v.p.Policy, nil
	case *starlark.Dict:
		x, err := value.ToGo(v)
		if err != nil {
			return nil, err
		}
		b, err := json.Marshal(x)
		if err != nil {
			return nil, err
		}
		p, err := policy.Parse("policy", string(b))
		if err != nil {
			return nil, err
		}
		return &p.Policy, nil
	}
	return nil, fmt.Errorf("got %s, want a policy of t.policy() or a dict", v.Type())
}
