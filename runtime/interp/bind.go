package interp

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/value"
)

// Params is the frozen value p of run(p): typed parameters as attributes.
type Params struct {
	names   []string
	values  starlark.StringDict
	data    map[string]any
	secrets map[string]*value.Secret
}

var _ starlark.HasAttrs = (*Params)(nil)

// Map is the parameters as plain data for the journal, without the secret ones;
// binding it again, with those, gives equal parameters. Read-only.
func (p *Params) Map() map[string]any { return p.data }

// Secrets are the secret parameters that were given, by name. Read-only.
func (p *Params) Secrets() map[string]*value.Secret { return p.secrets }

// String implements starlark.Value.
func (p *Params) String() string {
	parts := make([]string, len(p.names))
	for i, n := range p.names {
		parts[i] = n + " = " + p.values[n].String()
	}
	return "params(" + strings.Join(parts, ", ") + ")"
}

// Type implements starlark.Value.
func (p *Params) Type() string { return "params" }

// Freeze implements starlark.Value.
func (p *Params) Freeze() {}

// Truth implements starlark.Value.
func (p *Params) Truth() starlark.Bool { return len(p.names) > 0 }

// Hash implements starlark.Value.
func (p *Params) Hash() (uint32, error) { return 0, errors.New("unhashable type: params") }

// Attr gives a parameter; a miss says which there are.
func (p *Params) Attr(name string) (starlark.Value, error) {
	if v, ok := p.values[name]; ok {
		return v, nil
	}
	e := diag.Usagef("", "this runbook declares no parameter %q", name)
	if near := diag.Nearest(name, p.names); near != "" {
		e.Problem += fmt.Sprintf("; did you mean p.%s?", near)
	} else if len(p.names) > 0 {
		e.Problem += "; it has: " + strings.Join(p.names, ", ")
	}
	return nil, e
}

// AttrNames lists the parameters.
func (p *Params) AttrNames() []string {
	names := append([]string(nil), p.names...)
	sort.Strings(names)
	return names
}

// Given are values for parameters, in the order in which one wins over the next.
type Given struct {
	Sets []string          // "name=value", as --set takes them
	Read map[string]string // text by name, read from files or variables; given by Sets too is an error
	File map[string]any    // decoded YAML or JSON
	// Ask asks the operator for a secret that is needed and not given; nil where
	// there is nobody to ask.
	Ask func(p *Param) (string, error)
}

// Bind is BindAll for values that are no secrets, but in file.
func (rb *Runbook) Bind(sets []string, file map[string]any) (*Params, error) {
	return rb.BindAll(Given{Sets: sets, File: file})
}

// BindAll gives the parameters their values; what is not given has its default.
// All errors are reported at once, in one *diag.Error of code Usage, and tell
// nothing of a secret.
func (rb *Runbook) BindAll(g Given) (*Params, error) {
	b := &binding{rb: rb, ask: g.Ask, given: map[string]any{}, text: map[string]bool{}, wrong: map[string]bool{}}
	b.takeFile(g.File)
	b.takeRead(g.Read, b.takeSets(g.Sets))
	out := &Params{values: starlark.StringDict{}, data: map[string]any{}, secrets: map[string]*value.Secret{}}
	for _, p := range rb.Params {
		v := b.value(p)
		if v == nil {
			continue
		}
		v.Freeze()
		out.names = append(out.names, p.Name)
		out.values[p.Name] = v
		if secret, ok := v.(*value.Secret); ok {
			out.secrets[p.Name] = secret
			continue
		}
		data, err := value.ToGo(v)
		if err != nil {
			b.fail(p.Name, "", err)
			continue
		}
		out.data[p.Name] = data
	}
	if err := b.err(); err != nil {
		return nil, err
	}
	return out, nil
}

type binding struct {
	rb    *Runbook
	ask   func(*Param) (string, error)
	given map[string]any
	text  map[string]bool // given as text, to be parsed
	wrong map[string]bool // given, and refused
	errs  []error
}

func (b *binding) fail(name, problem string, err error) {
	b.errs = append(b.errs, &diag.Error{Code: diag.Usage, Subject: "parameter " + name, Problem: problem, Err: err})
}

func (b *binding) err() error {
	switch len(b.errs) {
	case 0:
		return nil
	case 1:
		return b.errs[0]
	}
	return &diag.Error{
		Code: diag.Usage, Subject: "runbook " + b.rb.Name, Problem: fmt.Sprintf("%d parameters are wrong", len(b.errs)),
		Err: &lines{b.errs},
	}
}

// lines shows several errors below one another.
type lines struct{ errs []error }

func (l *lines) Error() string {
	var b strings.Builder
	for _, e := range l.errs {
		b.WriteString("\n  " + e.Error())
	}
	return b.String()
}

func (l *lines) Unwrap() []error { return l.errs }

func (b *binding) names() []string {
	out := make([]string, len(b.rb.Params))
	for i, p := range b.rb.Params {
		out[i] = p.Name
	}
	return out
}

func (b *binding) known(name string) bool {
	names := b.names()
	for _, n := range names {
		if n == name {
			return true
		}
	}
	problem := "is not declared by this runbook"
	if near := diag.Nearest(name, names); near != "" {
		problem += fmt.Sprintf("; did you mean %q?", near)
	} else if len(names) > 0 {
		problem += "; it has: " + strings.Join(names, ", ")
	} else {
		problem += ", which has no parameters"
	}
	b.fail(name, problem, nil)
	return false
}

func (b *binding) takeFile(file map[string]any) {
	keys := make([]string, 0, len(file))
	for k := range file {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		if b.known(k) {
			b.given[k] = file[k]
		}
	}
}

// takeSets takes what the command line itself says, and gives the names.
func (b *binding) takeSets(sets []string) (seen map[string]bool) {
	seen = map[string]bool{}
	for _, s := range sets {
		name, text, ok := strings.Cut(s, "=")
		switch {
		case !ok || name == "":
			b.errs = append(b.errs, &diag.Error{Code: diag.Usage, Subject: fmt.Sprintf("--set %q", s), Problem: "has no value", Expect: "NAME=VALUE"})
		case !b.known(name):
		case seen[name]:
			b.fail(name, "is set twice", nil)
		case b.secret(name):
			seen[name], b.wrong[name] = true, true
			b.errs = append(b.errs, &diag.Error{
				Code: diag.Usage, Subject: "parameter " + name,
				Problem: "is secret, and --set leaves it in the shell's history and in the list of processes", Expect: secretHint(name),
				Next: "regard what was given as known to others",
			})
		default:
			seen[name], b.text[name], b.given[name] = true, true, text
		}
	}
	return seen
}

func (b *binding) takeRead(read map[string]string, seen map[string]bool) {
	for _, name := range slices.Sorted(maps.Keys(read)) {
		switch {
		case !b.known(name):
		case seen[name]:
			b.fail(name, "is set twice", nil)
		default:
			b.text[name], b.given[name] = true, read[name]
		}
	}
}

func (b *binding) secret(name string) bool {
	return slices.ContainsFunc(b.rb.Params, func(p *Param) bool { return p.Name == name && p.Kind == "secret" })
}

func secretHint(name string) string {
	return fmt.Sprintf("--set-file %s=FILE (- for standard input), --set-env %s=VARIABLE, or a terminal to be asked at", name, name)
}

// value is what p is bound to; nil after an error.
func (b *binding) value(p *Param) starlark.Value {
	x, ok := b.given[p.Name]
	switch {
	case b.wrong[p.Name]:
		return nil
	case !ok || x == nil:
		return b.lacking(p)
	}
	v, err := p.convert(x, b.text[p.Name])
	if err != nil {
		b.fail(p.Name, "", err)
		return nil
	}
	return v
}

// lacking is the value of a parameter that is not given.
func (b *binding) lacking(p *Param) starlark.Value {
	switch {
	case p.Required && p.Kind == "secret" && b.ask != nil && len(b.errs) == 0: // nobody is asked in vain
		s, err := b.ask(p)
		if err != nil {
			b.fail(p.Name, "", err)
			return nil
		}
		v, err := p.fromString(s)
		if err != nil {
			b.fail(p.Name, "", err)
			return nil
		}
		return v
	case p.Required:
		e := &diag.Error{Code: diag.Usage, Subject: "parameter " + p.Name, Problem: "is missing", Expect: fmt.Sprintf("--set %s=%s", p.Name, p.hint())}
		if p.Kind == "secret" {
			e.Expect = secretHint(p.Name)
		}
		if p.Doc != "" {
			e.Problem += " (" + p.Doc + ")"
		}
		b.errs = append(b.errs, e)
		return nil
	case p.Default == nil:
		return starlark.None
	}
	return p.Default
}
