package builtin

import (
	"fmt"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/value"
)

// function is a Spec as a Starlark value.
type function struct{ spec *Spec }

var _ starlark.Callable = (*function)(nil)

func (f *function) Name() string          { return f.spec.Name }
func (f *function) String() string        { return "<built-in function " + f.spec.Name + ">" }
func (f *function) Type() string          { return "builtin_function_or_method" }
func (f *function) Freeze()               {}
func (f *function) Truth() starlark.Bool  { return true }
func (f *function) Hash() (uint32, error) { return starlark.String(f.spec.Name).Hash() }

func (f *function) CallInternal(t *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	if f.spec.Class == Pure {
		return callPure(f.spec, t, args, kwargs)
	}
	return callHost(t, f.spec.Name, args, kwargs)
}

// SpecOf is the declaration behind a value that Spec.Value gave.
func SpecOf(v starlark.Value) (*Spec, bool) {
	f, ok := v.(*function)
	if !ok {
		return nil, false
	}
	return f.spec, true
}

func callPure(s *Spec, t *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (out starlark.Value, err error) {
	defer recovered(s.Name, &err)
	activityOf(t).Beat()
	a, err := s.Unpack(args, kwargs)
	if err != nil {
		return nil, err
	}
	h, _ := t.Local(HostKey).(Host)
	v, err := s.Do(&Call{Ctx: threadContext(t), Pos: CallerPos(t), Thread: t, Host: h}, a)
	if err != nil {
		return nil, err
	}
	return value.FromGo(v)
}

// recovered turns a panic in a builtin into an error while starlark's stack
// still stands, so that it gets a source line.
func recovered(name string, err *error) {
	if p := recover(); p != nil {
		*err = &diag.Error{Subject: name, Problem: fmt.Sprintf("failed inside: %v (a defect of rutter, or a value too large)", p)}
	}
}

func callHost(t *starlark.Thread, name string, args starlark.Tuple, kwargs []starlark.Tuple) (v starlark.Value, err error) {
	defer recovered(name, &err)
	defer activityOf(t).to(host)()
	h, _ := t.Local(HostKey).(Host)
	if h == nil {
		return nil, &diag.Error{
			Code: diag.Usage, Subject: name, Problem: "may not be called while a module loads",
			Expect: "a call from run(p), or from a function that it calls",
		}
	}
	return h.Call(t, name, args, kwargs)
}

// CallerPos is where the script calls the builtin that is running on t; the
// zero Pos when no script does.
func CallerPos(t *starlark.Thread) diag.Pos {
	for depth := range t.CallStackDepth() {
		p := t.CallFrame(depth).Pos
		if p.Line > 0 {
			return diag.Pos{File: p.Filename(), Line: int(p.Line), Col: int(p.Col)}
		}
	}
	return diag.Pos{}
}

var _ starlark.Callable = (*Bound)(nil)

// Name implements starlark.Callable; it is the builtin's full name.
func (b *Bound) Name() string { return b.Builtin }

// String implements starlark.Value.
func (b *Bound) String() string { return "<bound method " + b.Builtin + ">" }

// Type implements starlark.Value.
func (b *Bound) Type() string { return "bound_method" }

// Freeze implements starlark.Value.
func (b *Bound) Freeze() { b.Recv.Freeze() }

// Truth implements starlark.Value.
func (b *Bound) Truth() starlark.Bool { return true }

// Hash implements starlark.Value.
func (b *Bound) Hash() (uint32, error) {
	return 0, fmt.Errorf("unhashable type: bound method %s", b.Builtin)
}

// CallInternal calls the builtin through the thread's Host, the receiver first.
func (b *Bound) CallInternal(t *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	all := make(starlark.Tuple, 0, len(args)+1)
	return callHost(t, b.Builtin, append(append(all, b.Recv), args...), kwargs)
}
