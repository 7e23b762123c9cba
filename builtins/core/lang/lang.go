// Package lang holds the builtins that are language rather than cluster: json,
// yaml, semver, re, time and struct. All but time.now are pure.
package lang

import (
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	startime "go.starlark.net/lib/time"

	"rutter.dev/rutter/runtime/builtin"
)

// Builtins lists the declarations.
func Builtins() []*builtin.Spec {
	var all []*builtin.Spec
	for _, part := range [][]*builtin.Spec{jsonBuiltins(), yamlBuiltins(), semverBuiltins(), reBuiltins(), timeBuiltins()} {
		all = append(all, part...)
	}
	return all
}

// Values are the constants by module: struct, and the units of time.
func Values() map[string]starlark.StringDict {
	units := starlark.StringDict{}
	for _, name := range []string{"millisecond", "second", "minute", "hour"} {
		units[name] = startime.Module.Members[name]
	}
	return map[string]starlark.StringDict{
		"":     {"struct": starlark.NewBuiltin("struct", starlarkstruct.Make)},
		"time": units,
	}
}

// AddTo is s with the constants of Values.
func AddTo(s *builtin.Set) (*builtin.Set, error) {
	for module, members := range Values() {
		var err error
		if s, err = s.WithValues(module, members); err != nil {
			return nil, err
		}
	}
	return s, nil
}
