package interp

import (
	"fmt"
	"regexp"
	"strings"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/value"
)

// Param is one declared parameter of a runbook.
type Param struct {
	Name     string // filled in by runbook()
	Kind     string // string, int, bool, duration, version, list, dict, enum, secret
	Doc      string
	Required bool           // no default, and not said to be optional
	Default  starlark.Value // nil when there is none
	Pattern  string         // regular expression that a string or secret must match
	Values   []string       // of an enum
	Min, Max *int64         // of an int

	pattern *regexp.Regexp
}

var _ starlark.Value = (*Param)(nil)

// String implements starlark.Value.
func (p *Param) String() string { return "<param." + p.Kind + ">" }

// Type implements starlark.Value.
func (p *Param) Type() string { return "param" }

// Freeze implements starlark.Value.
func (p *Param) Freeze() {}

// Truth implements starlark.Value.
func (p *Param) Truth() starlark.Bool { return true }

// Hash implements starlark.Value.
func (p *Param) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: param") }

type paramArgs struct {
	Default  starlark.Value `star:"default" doc:"Value when none is given; without one the parameter is required."`
	Required *bool          `star:"required" doc:"False makes a parameter without default optional: it is None then."`
	Doc      string         `star:"doc" doc:"What it is for."`
}

type stringParamArgs struct {
	Default  starlark.Value `star:"default" doc:"Value when none is given; without one the parameter is required."`
	Required *bool          `star:"required" doc:"False makes a parameter without default optional: it is None then."`
	Doc      string         `star:"doc" doc:"What it is for."`
	Pattern  string         `star:"pattern" doc:"Regular expression (RE2) that the value must match."`
}

// secretParamArgs has no default: that would be in the runbook for all to read.
type secretParamArgs struct {
	Required *bool  `star:"required" doc:"False makes the parameter optional: it is None then."`
	Doc      string `star:"doc" doc:"What it is for."`
	Pattern  string `star:"pattern" doc:"Regular expression (RE2) that the value must match."`
}

type intParamArgs struct {
	Default  starlark.Value `star:"default" doc:"Value when none is given; without one the parameter is required."`
	Required *bool          `star:"required" doc:"False makes a parameter without default optional: it is None then."`
	Doc      string         `star:"doc" doc:"What it is for."`
	Min      *int64         `star:"min" doc:"Smallest value."`
	Max      *int64         `star:"max" doc:"Largest value."`
}

type enumParamArgs struct {
	Values   []string       `star:"values,positional" doc:"The allowed values."`
	Default  starlark.Value `star:"default" doc:"Value when none is given; without one the parameter is required."`
	Required *bool          `star:"required" doc:"False makes a parameter without default optional: it is None then."`
	Doc      string         `star:"doc" doc:"What it is for."`
}

func paramBuiltins() []*builtin.Spec {
	out := []*builtin.Spec{
		builtin.NewPure(builtin.PureDef[stringParamArgs]{
			Name: "param.string", Returns: "param", Doc: "A parameter that is a string.",
			Example: `param.string(doc = "Target Istio version", pattern = r"^\d+\.\d+\.\d+$")`,
			Do: func(_ *builtin.Call, a *stringParamArgs) (any, error) {
				return patterned(&Param{Kind: "string", Doc: a.Doc, Pattern: a.Pattern}, a.Default, a.Required)
			},
		}),
		builtin.NewPure(builtin.PureDef[secretParamArgs]{
			Name: "param.secret", Returns: "param",
			Doc: "A parameter that is a secret: the script gets it as <secret>, which does not print, compare or encode, and may put it below data or stringData of a Secret that it applies. " +
				"It is given by --set-file, --set-env or at the terminal, never by --set. The journal keeps a salted digest of it, and a resume asks for it again.",
			Example: `param.secret(doc = "Pull secret, as .dockerconfigjson")`,
			Do: func(_ *builtin.Call, a *secretParamArgs) (any, error) {
				return patterned(&Param{Kind: "secret", Doc: a.Doc, Pattern: a.Pattern}, nil, a.Required)
			},
		}),
		builtin.NewPure(builtin.PureDef[intParamArgs]{
			Name: "param.int", Returns: "param", Doc: "A parameter that is a whole number.",
			Example: `param.int(default = 3, min = 1, doc = "Replicas of the canary")`,
			Do: func(_ *builtin.Call, a *intParamArgs) (any, error) {
				return (&Param{Kind: "int", Doc: a.Doc, Min: a.Min, Max: a.Max}).finish(a.Default, a.Required)
			},
		}),
		builtin.NewPure(builtin.PureDef[enumParamArgs]{
			Name: "param.enum", Returns: "param", Doc: "A parameter that is one of a few strings.",
			Example: `param.enum(["default", "ambient"], default = "default", doc = "Profile")`,
			Do: func(_ *builtin.Call, a *enumParamArgs) (any, error) {
				if len(a.Values) == 0 {
					return nil, diag.Usagef("param.enum", "values: got none, want at least one")
				}
				return (&Param{Kind: "enum", Doc: a.Doc, Values: a.Values}).finish(a.Default, a.Required)
			},
		}),
	}
	for _, k := range []struct{ kind, doc, example string }{
		{"bool", "A parameter that is true or false.", `param.bool(default = False, doc = "Restart gateways too")`},
		{"duration", "A parameter that is a duration such as \"10m\".", `param.duration(default = "10m", doc = "Time between waves")`},
		{"version", "A parameter that is a semantic version; it compares by precedence.", `param.version(doc = "Target Istio version")`},
		{"list", "A parameter that is a list; --set takes a,b,c as strings.", `param.list(default = [], doc = "Namespaces to leave alone")`},
		{"dict", "A parameter that is a dict; --set takes a=true,b=2,c=text: true, false and integers are read as such, all else is a string, as is anything in quotes.", `param.dict(default = {}, doc = "Values to set")`},
	} {
		out = append(out, builtin.NewPure(builtin.PureDef[paramArgs]{
			Name: "param." + k.kind, Returns: "param", Doc: k.doc, Example: k.example,
			Do: func(_ *builtin.Call, a *paramArgs) (any, error) {
				return (&Param{Kind: k.kind, Doc: a.Doc}).finish(a.Default, a.Required)
			},
		}))
	}
	return out
}

func patterned(p *Param, deflt starlark.Value, required *bool) (*Param, error) {
	var err error
	if p.pattern, err = regexp.Compile(p.Pattern); err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: "param." + p.Kind, Problem: "pattern", Err: err}
	}
	return p.finish(deflt, required)
}

// finish settles default and required; a default obeys the parameter's rules.
func (p *Param) finish(deflt starlark.Value, required *bool) (*Param, error) {
	hasDefault := deflt != nil && deflt != starlark.None
	if required != nil && *required && hasDefault {
		return nil, diag.Usagef("param."+p.Kind, "is required and has a default; give one of the two")
	}
	p.Required = !hasDefault && (required == nil || *required)
	if !hasDefault {
		return p, nil
	}
	data, err := toData(deflt)
	if err == nil {
		p.Default, err = p.convert(data, false)
	}
	if err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: "param." + p.Kind, Problem: "default", Err: err}
	}
	return p, nil
}

func toData(v starlark.Value) (any, error) {
	if ver, ok := v.(value.Version); ok {
		return ver.String(), nil
	}
	return value.ToGo(v)
}

// paramsOf reads runbook(params = {…}), in the order written.
func paramsOf(d *starlark.Dict) ([]*Param, error) {
	if d == nil {
		return nil, nil
	}
	var out []*Param
	for _, kv := range d.Items() {
		name, ok := starlark.AsString(kv[0])
		if !ok || !isName(name) {
			return nil, diag.Usagef("runbook", "params: got key %s, want a name such as \"to\"", kv[0])
		}
		decl, ok := kv[1].(*Param)
		if !ok {
			return nil, diag.Usagef("runbook", "params: %s: got %s, want a param such as param.string(doc = …)", name, kv[1].Type())
		}
		p := *decl
		p.Name = name
		out = append(out, &p)
	}
	return out, nil
}

func isName(s string) bool {
	for i, c := range s {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && !strings.HasPrefix(s, "_")
}
