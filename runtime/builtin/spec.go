package builtin

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/effect"
)

// ReadDef declares a builtin that looks at the cluster or the host. Do's result
// goes through value.FromGo.
type ReadDef[A any] struct {
	Name, Doc, Example, Returns string
	Do                          func(c *Call, a *A) (any, error)
}

// PureDef declares a builtin that computes.
type PureDef[A any] struct {
	Name, Doc, Example, Returns string
	Do                          func(c *Call, a *A) (any, error)
}

// WriteDef declares a builtin that makes effects.
type WriteDef[A any] struct {
	Name, Doc, Example, Returns string
	// Effects are the classes of effects that it can make; the gates follow.
	Effects []effect.Class
	// Plan forecasts the call; it never writes.
	Plan func(c *Call, a *A) (*effect.Plan, error)
	// Drive submits the effects; nil submits those of the plan one after the
	// other and returns None.
	Drive func(c *Call, s effect.Submitter, a *A, p *effect.Plan) (any, error)
}

// ControlDef declares a builtin that steers the run through c.Host.
type ControlDef[A any] struct {
	Name, Doc, Example, Returns string
	Do                          func(c *Call, a *A) (starlark.Value, error)
}

// Spec is one declared builtin. It is immutable.
type Spec struct {
	Name    string // full: "kube.get", "step"
	Doc     string // the first sentence stands alone in lists
	Example string // runnable Starlark
	Returns string // type of the result, for docs and stubs
	Class   Class
	Args    []ArgDoc
	Effects []effect.Class

	args    *argPlan
	do      func(c *Call, a any) (any, error)
	plan    func(c *Call, a any) (*effect.Plan, error)
	drive   func(c *Call, s effect.Submitter, a any, p *effect.Plan) (any, error)
	argType reflect.Type
	retired *Retirement
}

// Retirement says that a builtin will not be kept.
type Retirement struct {
	Since int    // the language level (api) from which on it is deprecated
	Use   string // the full name of the builtin that takes its place, with the same arguments
}

// Retire gives a copy of the declaration that is deprecated: it goes on working, runs
// warn of it, and rutter fix puts the other one in its place.
func (s *Spec) Retire(r Retirement) *Spec {
	out := *s
	out.retired = &r
	return &out
}

// Retired is what Retire said; nil for a builtin that is kept.
func (s *Spec) Retired() *Retirement { return s.retired }

// NewRead declares a Read builtin. Like its siblings it panics on an invalid
// declaration, which is a mistake in the program.
func NewRead[A any](d ReadDef[A]) *Spec {
	s := newSpec[A](d.Name, d.Doc, d.Example, d.Returns, Read)
	require(s, d.Do != nil, "Do")
	s.do = func(c *Call, a any) (any, error) { return d.Do(c, a.(*A)) }
	return s
}

// NewPure declares a Pure builtin.
func NewPure[A any](d PureDef[A]) *Spec {
	s := newSpec[A](d.Name, d.Doc, d.Example, d.Returns, Pure)
	require(s, d.Do != nil, "Do")
	s.do = func(c *Call, a any) (any, error) { return d.Do(c, a.(*A)) }
	return s
}

// NewControl declares a Control builtin.
func NewControl[A any](d ControlDef[A]) *Spec {
	s := newSpec[A](d.Name, d.Doc, d.Example, d.Returns, Control)
	require(s, d.Do != nil, "Do")
	s.do = func(c *Call, a any) (any, error) { return d.Do(c, a.(*A)) }
	return s
}

// NewWrite declares a Write builtin.
func NewWrite[A any](d WriteDef[A]) *Spec {
	s := newSpec[A](d.Name, d.Doc, d.Example, d.Returns, Write)
	require(s, d.Plan != nil, "Plan")
	require(s, len(d.Effects) > 0, "Effects")
	s.Effects = d.Effects
	s.plan = func(c *Call, a any) (*effect.Plan, error) { return d.Plan(c, a.(*A)) }
	s.drive = func(c *Call, sub effect.Submitter, a any, p *effect.Plan) (any, error) {
		if d.Drive != nil {
			return d.Drive(c, sub, a.(*A), p)
		}
		for _, e := range p.Effects {
			if _, err := sub.Submit(c.Ctx, e); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}
	return s
}

func newSpec[A any](name, doc, example, returns string, class Class) *Spec {
	s := &Spec{Name: name, Doc: strings.TrimSpace(doc), Example: strings.TrimSpace(example), Returns: returns, Class: class}
	require(s, validName(name), "a Name of one or two identifiers")
	require(s, s.Doc != "", "Doc")
	require(s, s.Example != "", "Example")
	plan, err := planArgs(name, reflect.TypeFor[A]())
	if err != nil {
		panic(fmt.Sprintf("builtin %s: %v", name, err))
	}
	s.args, s.Args, s.argType = plan, plan.docs(), reflect.TypeFor[A]()
	if s.Returns == "" {
		s.Returns = "None"
	}
	return s
}

func require(s *Spec, ok bool, what string) {
	if !ok {
		panic(fmt.Sprintf("builtin %s: a %s declaration needs %s", s.Name, s.Class, what))
	}
}

func validName(name string) bool {
	parts := strings.Split(name, ".")
	if len(parts) > 2 {
		return false
	}
	for _, p := range parts {
		for i, c := range p {
			if c != '_' && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
				return false
			}
		}
		if p == "" {
			return false
		}
	}
	return true
}

// Module is the part of the name before the dot, "" for a global.
func (s *Spec) Module() string {
	if m, _, ok := strings.Cut(s.Name, "."); ok {
		return m
	}
	return ""
}

// Short is the name within its module.
func (s *Spec) Short() string { return s.Name[strings.LastIndex(s.Name, ".")+1:] }

// Summary is the first sentence of Doc.
func (s *Spec) Summary() string {
	first, _, _ := strings.Cut(s.Doc, "\n")
	if i := strings.Index(first, ". "); i >= 0 {
		first = first[:i+1]
	}
	return first
}

// Unpack turns the arguments of a call into a new *A. Errors name the builtin
// and the argument, and say what was expected.
func (s *Spec) Unpack(args starlark.Tuple, kwargs []starlark.Tuple) (any, error) {
	p := reflect.New(s.argType)
	if err := s.args.unpack(s.Name, p.Elem(), args, kwargs); err != nil {
		return nil, err
	}
	return p.Interface(), nil
}

// Do runs a Read, Pure or Control builtin with what Unpack gave.
func (s *Spec) Do(c *Call, a any) (any, error) {
	if s.do == nil {
		return nil, fmt.Errorf("%s makes effects: it is planned and driven, never done", s.Name)
	}
	return s.do(c, a)
}

// PlanCall forecasts a Write builtin's effects, each marked with the builtin's name.
func (s *Spec) PlanCall(c *Call, a any) (*effect.Plan, error) {
	if s.plan == nil {
		return nil, fmt.Errorf("%s makes no effects: it has no plan", s.Name)
	}
	p, err := s.plan(c, a)
	if err != nil {
		return nil, err
	}
	if p == nil {
		p = &effect.Plan{}
	}
	for _, e := range p.Effects {
		if e.Builtin == "" {
			e.Builtin = s.Name
		}
	}
	return p, nil
}

// DriveCall makes a Write builtin's effects through sub.
func (s *Spec) DriveCall(c *Call, sub effect.Submitter, a any, p *effect.Plan) (any, error) {
	if s.drive == nil {
		return nil, fmt.Errorf("%s makes no effects: it cannot be driven", s.Name)
	}
	return s.drive(c, sub, a, p)
}

// Value is the builtin as scripts see it. A Pure one runs at once; every other
// class goes through the thread's Host, and is refused where there is none
// (while a module loads).
func (s *Spec) Value() starlark.Callable { return &function{s} }

// ContextKey is the thread-local under which the thread's context.Context is
// put, for Pure builtins called without a Host.
const ContextKey = "rutter.context"

func threadContext(t *starlark.Thread) context.Context {
	if ctx, ok := t.Local(ContextKey).(context.Context); ok {
		return ctx
	}
	return context.Background()
}

// Declares reports whether a Write builtin declared that it makes effects of
// class c.
func (s *Spec) Declares(c effect.Class) bool { return slices.Contains(s.Effects, c) }
