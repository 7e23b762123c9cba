package builtin

import (
	"sync/atomic"

	"go.starlark.net/starlark"
)

// ActivityKey is the key of the thread-local under which the interpreter puts
// the thread's *Activity.
const ActivityKey = "rutter.activity"

// Activity tells who watches a thread whether it is the script that takes its
// time, or the host on its behalf: a host waits for clusters and for people, a
// script never waits. It is safe for concurrent use.
type Activity struct {
	beats atomic.Uint64
	state atomic.Int32
}

// The states of an Activity.
const (
	script int32 = iota
	host
	left
)

// Beat is a sign of life.
func (a *Activity) Beat() { a.beats.Add(1) }

// Beats counts the signs of life, and says whether the host is at work.
func (a *Activity) Beats() (n uint64, busy bool) { return a.beats.Load(), a.state.Load() == host }

// Leave gives the thread up, unless the host is at work on it: nobody waits for
// its end any more, and it never gets to the host again.
func (a *Activity) Leave() bool { return a.state.CompareAndSwap(script, left) }

// to enters a state and gives the way back. On a thread that was given up it
// does not return: what comes next would be the host's, with records in the
// journal and requests.
func (a *Activity) to(state int32) (back func()) {
	was := a.state.Load()
	if was == left || !a.state.CompareAndSwap(was, state) {
		select {}
	}
	a.Beat()
	return func() {
		if !a.state.CompareAndSwap(state, was) {
			select {}
		}
		a.Beat()
	}
}

func activityOf(t *starlark.Thread) *Activity {
	if a, ok := t.Local(ActivityKey).(*Activity); ok {
		return a
	}
	return &Activity{}
}

// CallScript is how the host calls a function that a script gave it. It does not
// return on a thread that was given up.
func CallScript(t *starlark.Thread, fn starlark.Callable, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	back := activityOf(t).to(script)
	v, err := starlark.Call(t, fn, args, kwargs)
	back()
	return v, err
}

// HostFunc is a function of the host that scripts can be given: it may take its
// time, as declared builtins that are not pure may.
func HostFunc(name string, fn func(t *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error)) *starlark.Builtin {
	return starlark.NewBuiltin(name, func(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		defer activityOf(t).to(host)()
		return fn(t, args, kwargs)
	})
}
