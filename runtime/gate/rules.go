package gate

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
)

// Match reports whether the effective request of e is within the rules.
func (r Rules) Match(e *effect.Effect) bool {
	kind := e.Ref.Kind
	if e.Ref.Group != "" {
		kind += "." + e.Ref.Group
	}
	return oneOf(r.Namespaces, e.Ref.Namespace) && (oneOf(r.Kinds, kind) || oneOf(r.Kinds, e.Ref.Kind)) && oneOf(r.Verbs, string(e.Verb))
}

func oneOf(patterns []string, s string) bool {
	if len(patterns) == 0 {
		return true
	}
	for _, p := range patterns {
		if ok, err := path.Match(strings.ToLower(p), strings.ToLower(s)); err == nil && ok {
			return true
		}
	}
	return false
}

// String is how a finding names the rules.
func (r Rules) String() string {
	var parts []string
	for _, f := range []struct {
		name string
		list []string
	}{{"namespaces", r.Namespaces}, {"kinds", r.Kinds}, {"verbs", r.Verbs}} {
		if len(f.list) > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", f.name, strings.Join(f.list, ", ")))
		}
	}
	if len(parts) == 0 {
		return "anything"
	}
	return strings.Join(parts, "; ")
}

// ReadPolicy reads an organization's policy file. Unknown keys are errors.
func ReadPolicy(file string) (*Policy, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: file, Problem: "cannot read the policy", Err: err}
	}
	p := &Policy{}
	if err := yaml.UnmarshalStrict(b, p); err != nil {
		return nil, &diag.Error{
			Code: diag.Usage, Subject: file, Problem: "not a valid policy", Err: err,
			Expect: "the keys allow, deny, singleReplicaLeave, maxWave, protectedContexts",
		}
	}
	if err := p.validate(); err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: file, Problem: "not a valid policy", Err: err}
	}
	return p, nil
}

// validate refuses what would never match, and so silently allow what its
// author meant to deny.
func (p *Policy) validate() error {
	var patterns []string
	for _, r := range slices.Concat(p.Allow, p.Deny) {
		patterns = slices.Concat(patterns, r.Namespaces, r.Kinds, r.Verbs)
		for _, v := range r.Verbs {
			if !slices.ContainsFunc(effect.Verbs(), func(known effect.Verb) bool { return oneOf([]string{v}, string(known)) }) {
				return fmt.Errorf("verb %q matches nothing; the verbs are %v", v, effect.Verbs())
			}
		}
	}
	for _, pat := range append(patterns, p.Leave...) {
		if _, err := path.Match(pat, ""); err != nil {
			return fmt.Errorf("pattern %q: %w", pat, err)
		}
	}
	for _, l := range p.Leave {
		if strings.Count(l, "/") != 1 {
			return fmt.Errorf("singleReplicaLeave: %q is no namespace/name", l)
		}
	}
	if p.MaxWave < 0 {
		return fmt.Errorf("maxWave is %d, want at least 0 (no bound)", p.MaxWave)
	}
	return nil
}
