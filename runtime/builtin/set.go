package builtin

import (
	"fmt"
	"sort"
	"strings"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/diag"
)

// Set is an explicit list of builtins: what a runbook can call. It is
// immutable once built, and safe for concurrent use.
type Set struct {
	specs  []*Spec
	byName map[string]*Spec
	values map[string]starlark.StringDict // by module: further members; "" for globals
}

// NewSet collects specs; two of one name are refused, and so is a global that
// has the name of a module.
func NewSet(specs ...*Spec) (*Set, error) {
	s := &Set{byName: map[string]*Spec{}, values: map[string]starlark.StringDict{}}
	for _, spec := range specs {
		if s.byName[spec.Name] != nil {
			return nil, fmt.Errorf("builtin %s is declared twice", spec.Name)
		}
		s.byName[spec.Name] = spec
		s.specs = append(s.specs, spec)
	}
	for _, spec := range specs {
		if s.byName[spec.Module()] != nil {
			return nil, fmt.Errorf("builtin %s: %s is a builtin and cannot be a module", spec.Name, spec.Module())
		}
	}
	sort.Slice(s.specs, func(i, j int) bool { return s.specs[i].Name < s.specs[j].Name })
	return s, nil
}

// WithValues is s with constants as further members of a module ("" for
// globals). Names that are taken are refused.
func (s *Set) WithValues(module string, members starlark.StringDict) (*Set, error) {
	out := &Set{specs: s.specs, byName: s.byName, values: map[string]starlark.StringDict{}}
	for m, d := range s.values {
		out.values[m] = d
	}
	merged := starlark.StringDict{}
	for k, v := range s.values[module] {
		merged[k] = v
	}
	for k, v := range members {
		full := strings.TrimPrefix(module+"."+k, ".")
		if s.byName[full] != nil || merged[k] != nil {
			return nil, fmt.Errorf("%s is declared twice", full)
		}
		v.Freeze()
		merged[k] = v
	}
	out.values[module] = merged
	return out, nil
}

// Lookup finds a builtin by its full name; nil if there is none.
func (s *Set) Lookup(name string) *Spec { return s.byName[name] }

// All lists the builtins by name.
func (s *Set) All() []*Spec { return s.specs }

// Predeclared is what the names of a script's file block start with: globals
// and modules, all frozen.
func (s *Set) Predeclared() starlark.StringDict {
	out := starlark.StringDict{}
	modules := map[string]*Module{}
	module := func(name string) *Module {
		if modules[name] == nil {
			modules[name] = &Module{name: name, members: starlark.StringDict{}}
			out[name] = modules[name]
		}
		return modules[name]
	}
	for _, spec := range s.specs {
		if m := spec.Module(); m != "" {
			module(m).members[spec.Short()] = spec.Value()
		} else {
			out[spec.Name] = spec.Value()
		}
	}
	for m, members := range s.values {
		for k, v := range members {
			if m == "" {
				out[k] = v
			} else {
				module(m).members[k] = v
			}
		}
	}
	return out
}

// Module is a namespace of builtins: kube, backup, …
type Module struct {
	name    string
	members starlark.StringDict
}

var _ starlark.HasAttrs = (*Module)(nil)

// String implements starlark.Value.
func (m *Module) String() string { return "<module " + m.name + ">" }

// Type implements starlark.Value.
func (m *Module) Type() string { return "module" }

// Freeze implements starlark.Value; a module is always frozen.
func (m *Module) Freeze() {}

// Truth implements starlark.Value.
func (m *Module) Truth() starlark.Bool { return true }

// Hash implements starlark.Value.
func (m *Module) Hash() (uint32, error) { return starlark.String(m.name).Hash() }

// Attr finds a member; a miss says what was meant or what there is.
func (m *Module) Attr(name string) (starlark.Value, error) {
	if v, ok := m.members[name]; ok {
		return v, nil
	}
	names := m.AttrNames()
	e := diag.Usagef(m.name, "has no member %q", name)
	if near := diag.Nearest(name, names); near != "" {
		e.Problem += fmt.Sprintf("; did you mean %s.%s?", m.name, near)
	} else {
		e.Problem += "; it has: " + strings.Join(names, ", ")
	}
	return nil, e
}

// AttrNames lists the members.
func (m *Module) AttrNames() []string { return m.members.Keys() }
