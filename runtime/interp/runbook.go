package interp

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode"

	"github.com/Masterminds/semver/v3"
	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/value"
)

// API is the language level of this rutter; runbook(api = …) must not exceed it.
const API = 1

// Runbook is a loaded runbook. It is immutable and frozen.
type Runbook struct {
	Name     string
	Version  string
	API      int
	Requires string // a range of versions of rutter; "" for any
	Upgrades Upgrades
	Params   []*Param
	Scope    gate.Rules         // what it declared; zero means everything
	Doc      string             // the module's docstring
	Run      *starlark.Function // def run(p)
	// Deprecated says what to use in its place; "" while it is kept.
	Deprecated string
	// OnFailure is what happens when a run failed and no step says otherwise:
	// "stop", "rollback", "ask", or "" for stop.
	OnFailure string

	*Loaded
}

// Loaded is a module with everything that it loads, executed and frozen.
type Loaded struct {
	Bundle  *loader.Bundle
	Globals starlark.StringDict // of the entry module
	Entry   *loader.Module

	modules map[string]starlark.StringDict // globals by label
	sources *sources
	names   []string // predeclared
}

// Upgrades is the pair of version ranges that a runbook is for.
type Upgrades struct {
	Text     string // "1.30.x -> 1.31.x"; "" for any pair
	from, to *semver.Constraints
}

// ParseUpgrades reads "FROM -> TO", both being semver ranges ("1.30.x",
// ">=1.29 <1.31"). "" allows any pair.
func ParseUpgrades(s string) (Upgrades, error) {
	if s == "" {
		return Upgrades{}, nil
	}
	from, to, ok := strings.Cut(s, "->")
	if !ok {
		return Upgrades{}, fmt.Errorf("got %q, want \"FROM -> TO\" such as \"1.30.x -> 1.31.x\"", s)
	}
	u := Upgrades{Text: s}
	var err error
	if u.from, err = semver.NewConstraint(strings.TrimSpace(from)); err != nil {
		return Upgrades{}, fmt.Errorf("got %q as versions to upgrade from, want a range such as \"1.30.x\"", strings.TrimSpace(from))
	}
	if u.to, err = semver.NewConstraint(strings.TrimSpace(to)); err != nil {
		return Upgrades{}, fmt.Errorf("got %q as versions to upgrade to, want a range such as \"1.31.x\"", strings.TrimSpace(to))
	}
	return u, nil
}

// Allow says whether the runbook is for this pair; "" skips a side that is not
// known. The error is a usage error that names the range.
func (u Upgrades) Allow(from, to string) error {
	if u.Text == "" {
		return nil
	}
	for _, side := range []struct {
		word, version string
		c             *semver.Constraints
	}{{"from", from, u.from}, {"to", to, u.to}} {
		if side.version == "" {
			continue
		}
		v, err := value.ParseVersion(side.version)
		if err != nil {
			return &diag.Error{Code: diag.Usage, Subject: "version to upgrade " + side.word, Err: err}
		}
		// A pre-release belongs to the line that it precedes.
		core := *v.Semver()
		if core, err = core.SetPrerelease(""); err != nil {
			return fmt.Errorf("version %s: %w", side.version, err)
		}
		if !side.c.Check(&core) {
			return &diag.Error{
				Code: diag.Usage, Problem: fmt.Sprintf("is not for an upgrade %s %s", side.word, side.version),
				Expect: u.Text, Next: "rutter runbooks",
			}
		}
	}
	return nil
}

// draft is where runbook() leaves what it declares while the entry loads.
type draft struct{ rb *Runbook }

const draftKey = "rutter.draft"

type runbookArgs struct {
	Name       string              `star:"name,required" doc:"Name of the runbook, in plans, journals and reports."`
	Version    value.Version       `star:"version,required" doc:"Version of the runbook itself."`
	API        int                 `star:"api" default:"1" doc:"Language level that it was written for."`
	Requires   string              `star:"requires" doc:"Range of versions of rutter that it runs with, such as >=1.2; any other is refused."`
	Deprecated string              `star:"deprecated" doc:"What to use in its place, once it will not be kept: whoever runs it is told."`
	Upgrades   string              `star:"upgrades" doc:"Pair of Istio version ranges that it is for; the host refuses any other."`
	Params     *starlark.Dict      `star:"params" doc:"Parameters by name, each a param.* value."`
	Scope      map[string][]string `star:"scope" doc:"What it may change: lists of namespaces, kinds (Deployment.apps) and verbs."`
	OnFailure  string              `star:"on_failure" doc:"What happens when a run failed: stop (default), rollback, or ask. A step's own on_failure comes first."`
}

// Builtins are runbook() and param.*: the declarations of a module.
func Builtins() []*builtin.Spec {
	return append([]*builtin.Spec{builtin.NewPure(builtin.PureDef[runbookArgs]{
		Name: "runbook", Returns: "None",
		Doc: "Declares the runbook. It is called once, at the top level of the file that is run, which also defines run(p).",
		Example: `runbook(
    name = "istio-inplace",
    version = "1.0.0",
    upgrades = "1.30.x -> 1.31.x",
    params = {"to": param.string(doc = "Target Istio version")},
)

def run(p):
    log("upgrading to " + p.to)`,
		Do: declareRunbook,
	})}, paramBuiltins()...)
}

func declareRunbook(c *builtin.Call, a *runbookArgs) (any, error) {
	d, _ := c.Thread.Local(draftKey).(*draft)
	switch {
	case d == nil && Loading(c.Thread):
		return nil, diag.Usagef("runbook", "was called in a module that is loaded; it belongs at the top level of the file that is run")
	case d == nil:
		return nil, diag.Usagef("runbook", "was called while the runbook runs; it belongs at the top level of the file")
	case d.rb != nil:
		return nil, diag.Usagef("runbook", "was called twice; a file declares one runbook")
	case a.API < 1 || a.API > API:
		return nil, &diag.Error{
			Code: diag.Usage, Subject: "runbook", Problem: fmt.Sprintf("api: this rutter knows language levels up to %d, got %d", API, a.API),
			Next: "use a newer rutter",
		}
	}
	if !slices.Contains([]string{"", "stop", "rollback", "ask"}, a.OnFailure) {
		return nil, diag.Usagef("runbook", "on_failure is %q, want stop, rollback or ask", a.OnFailure)
	}
	if a.Name == "" || len(a.Name) > maxRunbookName || strings.ContainsFunc(a.Name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return nil, diag.Usagef("runbook", "name is %.100q, want printable characters, at most %d bytes of them", a.Name, maxRunbookName)
	}
	if a.Requires != "" {
		if _, err := semver.NewConstraint(a.Requires); err != nil {
			return nil, &diag.Error{Code: diag.Usage, Subject: "runbook", Problem: fmt.Sprintf("requires is %.100q", a.Requires), Expect: `a range of versions of rutter, such as ">=1.2"`}
		}
	}
	up, err := ParseUpgrades(a.Upgrades)
	if err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: "runbook", Problem: "upgrades", Err: err}
	}
	if strings.ContainsFunc(a.Deprecated, func(r rune) bool { return !unicode.IsPrint(r) }) || len(a.Deprecated) > maxRunbookName {
		return nil, diag.Usagef("runbook", "deprecated is %.100q, want printable characters, at most %d bytes of them", a.Deprecated, maxRunbookName)
	}
	scope, err := scopeOf(a.Scope)
	if err != nil {
		return nil, err
	}
	rb := &Runbook{Name: a.Name, Version: a.Version.String(), API: a.API, Requires: a.Requires, Deprecated: a.Deprecated, Upgrades: up, Scope: scope, OnFailure: a.OnFailure}
	if rb.Params, err = paramsOf(a.Params); err != nil {
		return nil, err
	}
	d.rb = rb
	return nil, nil
}

// maxRunbookName bounds the name that every view of a run begins with.
const maxRunbookName = 200

func scopeOf(m map[string][]string) (gate.Rules, error) {
	var r gate.Rules
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		switch k {
		case "namespaces":
			r.Namespaces = m[k]
		case "kinds":
			r.Kinds = m[k]
		case "verbs":
			r.Verbs = m[k]
		default:
			e := diag.Usagef("runbook", "scope: unknown key %q", k)
			if near := diag.Nearest(k, []string{"namespaces", "kinds", "verbs"}); near != "" {
				e.Problem += fmt.Sprintf("; did you mean %q?", near)
			}
			e.Expect = "namespaces, kinds, verbs"
			return r, e
		}
	}
	return r, nil
}

// Load loads the entry file of l as a runbook. Errors are *diag.Errors of code
// Usage, with source line and caret.
func Load(ctx context.Context, l *loader.Loader, predeclared starlark.StringDict, limits Limits) (*Runbook, error) {
	d := &draft{}
	m, err := loadModule(ctx, l, predeclared, limits, d, nil)
	if err != nil {
		return nil, err
	}
	name := loader.Filename(m.Entry.Label)
	if d.rb == nil {
		return nil, &diag.Error{
			Code: diag.Usage, Pos: diag.Pos{File: name}, Problem: "does not declare a runbook",
			Expect: "runbook(name = …, version = …) at its top level",
		}
	}
	rb := d.rb
	rb.Loaded, rb.Doc = m, m.Entry.Doc
	if rb.Run, err = runFunction(m, name); err != nil {
		return nil, err
	}
	return rb, nil
}

func runFunction(m *Loaded, name string) (*starlark.Function, error) {
	v, ok := m.Globals["run"]
	if !ok {
		return nil, &diag.Error{Code: diag.Usage, Pos: diag.Pos{File: name}, Problem: "defines no function run", Expect: "def run(p):"}
	}
	fn, ok := v.(*starlark.Function)
	if !ok {
		return nil, &diag.Error{Code: diag.Usage, Pos: diag.Pos{File: name}, Problem: "run is a " + v.Type(), Expect: "def run(p):"}
	}
	if fn.NumParams() != 1 || fn.HasKwargs() || fn.HasVarargs() || fn.NumKwonlyParams() > 0 {
		p := fn.Position()
		e := &diag.Error{
			Code: diag.Usage, Pos: diag.Pos{File: p.Filename(), Line: int(p.Line), Col: int(p.Col)},
			Problem: fmt.Sprintf("run takes %d parameters", fn.NumParams()), Expect: "one, the runbook's parameters: def run(p):",
		}
		e.Source = m.sources.excerpt(e.Pos)
		return nil, e
	}
	return fn, nil
}

// LoadModule loads the entry file of l without asking for a runbook in it (a
// test file, say). Such a file cannot call runbook().
func LoadModule(ctx context.Context, l *loader.Loader, predeclared starlark.StringDict, limits Limits, print PrintFunc) (*Loaded, error) {
	return loadModule(ctx, l, predeclared, limits, nil, print)
}

func loadModule(ctx context.Context, l *loader.Loader, predeclared starlark.StringDict, limits Limits, d *draft, print PrintFunc) (*Loaded, error) {
	names := Universe()
	for k, v := range predeclared {
		names[k] = v
	}
	graph, err := l.Collect(names)
	if err != nil {
		return nil, renderSource(err, writable(names))
	}
	m := &Loaded{
		Bundle: graph.Bundle, Entry: graph.Entry, modules: map[string]starlark.StringDict{},
		sources: newSources(graph.Bundle), names: writable(names),
	}
	limits = limits.or(DefaultLoadSteps)
	for _, mod := range graph.Order {
		if err := m.execute(ctx, mod, names, limits, d, print); err != nil {
			out := m.Render(err)
			out.Code = diag.Usage
			return nil, out
		}
	}
	m.Globals = m.modules[graph.Entry.Label]
	return m, nil
}

// writable lists the names that a script can write.
func writable(names starlark.StringDict) []string {
	return slices.DeleteFunc(names.Keys(), func(n string) bool { return !isName(n) && !strings.HasPrefix(n, "_") })
}

func (m *Loaded) execute(ctx context.Context, mod *loader.Module, names starlark.StringDict, limits Limits, d *draft, print PrintFunc) error {
	t, release := newThread(ctx, "load "+loader.Filename(mod.Label), true, limits, print)
	defer release()
	t.Load = func(_ *starlark.Thread, module string) (starlark.StringDict, error) {
		label, err := loader.Resolve(mod.Label, module)
		if err != nil {
			return nil, err
		}
		return m.modules[label], nil
	}
	if d != nil && mod == m.Entry {
		t.SetLocal(draftKey, d)
	}
	globals := make(chan starlark.StringDict, 1)
	_, err := call(t, func() (starlark.Value, error) {
		got, err := mod.Program.Init(t, names)
		got.Freeze()
		loader.Hide(got)
		globals <- got
		return nil, err
	})
	select {
	case m.modules[mod.Label] = <-globals:
	default: // the module was given up
	}
	return err
}

// ExecOptions are those of a run thread.
type ExecOptions struct {
	Limits Limits
	Print  PrintFunc
}

// Exec calls run(p) on a new run thread, which prepare is given first. The
// error is a *diag.Error with source line, caret and script frames; typed
// errors within stay reachable by errors.As.
func (rb *Runbook) Exec(ctx context.Context, p *Params, o ExecOptions, prepare func(*starlark.Thread)) error {
	_, err := rb.Call(ctx, rb.Run, starlark.Tuple{p}, o, prepare)
	return err
}

// Call calls a function of the module on a new run thread.
func (m *Loaded) Call(ctx context.Context, fn starlark.Callable, args starlark.Tuple, o ExecOptions, prepare func(*starlark.Thread)) (starlark.Value, error) {
	t, release := newThread(ctx, "run", false, o.Limits.or(DefaultSteps), o.Print)
	defer release()
	if prepare != nil {
		prepare(t)
	}
	v, err := call(t, func() (starlark.Value, error) { return starlark.Call(t, fn, args, nil) })
	if err != nil {
		return nil, m.Render(err)
	}
	return v, nil
}
