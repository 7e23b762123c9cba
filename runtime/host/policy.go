package host

import (
	"context"
	"slices"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/policy"
)

// ruleModules are the modules that the organization's rules have: functions of
// their arguments alone. There is no kube, no clock and nothing that a run
// records.
var ruleModules = []string{"json", "yaml", "semver", "re"}

// RuleNames are the names that the organization's rules have beside Starlark's
// own.
func (h *Host) RuleNames() starlark.StringDict {
	out := starlark.StringDict{}
	for name, v := range h.Builtins.Predeclared() {
		if slices.Contains(ruleModules, name) {
			out[name] = v
		}
	}
	return out
}

// ReadPolicy reads an organization's policy file with its rules.
func (h *Host) ReadPolicy(ctx context.Context, file string) (*policy.Policy, error) {
	return policy.Read(ctx, file, policy.Options{Predeclared: h.RuleNames(), Stdlib: h.Stdlib, Limits: h.Limits})
}
