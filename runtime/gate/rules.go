package gate

import (
	"path"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

// Match reports whether the effective request of e is within the rules.
func (r Rules) Match(e *effect.Effect) bool {
	return oneOf(r.Namespaces, e.Ref.Namespace) && kindIn(r.Kinds, e.Ref) && oneOf(r.Verbs, string(e.Verb))
}

// kindIn matches a kind with or without its group.
func kindIn(patterns []string, ref cluster.Ref) bool {
	kind := ref.Kind
	if ref.Group != "" {
		kind += "." + ref.Group
	}
	return oneOf(patterns, kind) || oneOf(patterns, ref.Kind)
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
			names := slices.Clone(f.list)
			for i, n := range names {
				if n == "" {
					names[i] = `""`
				}
			}
			parts = append(parts, f.name+" "+strings.Join(names, ", "))
		}
	}
	if len(parts) == 0 {
		return "anything"
	}
	return strings.Join(parts, "; ")
}
