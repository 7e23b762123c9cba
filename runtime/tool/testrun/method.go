package testrun

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
)

// method is a method of t or of a cluster: declared as builtins are, so that
// it unpacks, documents and fails like one, but called on a receiver.
type method struct {
	spec *builtin.Spec
	call func(recv any, th *starlark.Thread, args any) (starlark.Value, error)
}

// declare makes a method of receivers of type R with arguments of type A.
func declare[R, A any](name, returns, doc, example string, do func(recv R, th *starlark.Thread, a *A) (starlark.Value, error)) method {
	spec := builtin.NewPure(builtin.PureDef[A]{
		Name: name, Doc: doc, Example: example, Returns: returns,
		// Only the arguments of the declaration are used; the call needs its receiver.
		Do: func(*builtin.Call, *A) (any, error) { return nil, fmt.Errorf("%s: needs a receiver", name) },
	})
	return method{spec, func(recv any, th *starlark.Thread, args any) (starlark.Value, error) {
		return do(recv.(R), th, args.(*A))
	}}
}

// methods finds a type's methods by their short names.
type methods struct {
	byName map[string]method
	names  []string
}

func collect(all ...method) *methods {
	m := &methods{byName: map[string]method{}}
	for _, x := range all {
		m.byName[x.spec.Short()] = x
		m.names = append(m.names, x.spec.Short())
	}
	slices.Sort(m.names)
	return m
}

// bind gives the method as a value; a miss says what may have been meant.
func (m *methods) bind(recv any, typ, name string) (starlark.Value, error) {
	x, ok := m.byName[name]
	if !ok {
		e := diag.Usagef(typ, "has no method %q", name)
		if near := diag.Nearest(name, m.names); near != "" {
			e.Problem += fmt.Sprintf("; did you mean %s?", near)
		} else {
			e.Problem += "; it has: " + strings.Join(m.names, ", ")
		}
		return nil, e
	}
	return builtin.HostFunc(x.spec.Name, func(th *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		a, err := x.spec.Unpack(args, kwargs)
		if err != nil {
			return nil, err
		}
		return x.call(recv, th, a)
	}), nil
}

// Docs declares every method of a test's values, for reference documentation.
// They cannot be called through these declarations.
func Docs() []*builtin.Spec {
	var out []*builtin.Spec
	for _, m := range []*methods{testMethods(), clusterMethods(), policyMethods()} {
		for _, n := range m.names {
			out = append(out, m.byName[n].spec)
		}
	}
	return out
}

// The tables are made when they are first needed: reflection over the argument
// structs is not for free.
var (
	testMethods    = sync.OnceValue(makeTestMethods)
	clusterMethods = sync.OnceValue(makeClusterMethods)
)

// outside is the builtin.Host of a test's own thread: there is no run there.
type outside struct{ t *test }

// Call implements builtin.Host.
func (outside) Call(_ *starlark.Thread, name string, _ starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	return nil, &diag.Error{
		Subject: name, Problem: "is for runbooks; a test is not a run",
		Expect: "t.run(…) of a runbook that calls it, or a method of t.cluster(…)",
	}
}

// Step implements builtin.Host.
func (o outside) Step(th *starlark.Thread, _ builtin.StepCall) (starlark.Value, error) {
	return o.Call(th, "step", nil, nil)
}

// Approve implements builtin.Host.
func (o outside) Approve(th *starlark.Thread, _ string, _ []string) (starlark.Value, error) {
	return o.Call(th, "approve", nil, nil)
}

// Attempt implements builtin.Host.
func (o outside) Attempt(th *starlark.Thread, _ starlark.Callable, _ starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	return o.Call(th, "attempt", nil, nil)
}

// Log implements builtin.Host.
func (o outside) Log(_ *starlark.Thread, message string) { o.t.output = append(o.t.output, message) }

func ctxOf(th *starlark.Thread) context.Context {
	if ctx, ok := th.Local(builtin.ContextKey).(context.Context); ok {
		return ctx
	}
	return context.Background()
}
