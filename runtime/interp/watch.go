package interp

import (
	"errors"
	"runtime"
	"runtime/metrics"
	"time"

	"go.starlark.net/starlark"
)

// How a thread is watched, in real time whatever clock the run has: what is
// bounded is this process. All but look is in time that the process computes.
const (
	look  = 5 * time.Millisecond   // between two looks
	grace = 2 * time.Second        // for a script that was told to stop and is in one operation
	short = 100 * time.Millisecond // the same while it takes more memory than it may
)

// errGone is the error of a thread whose goroutine ended without a word.
var errGone = errors.New("the interpreter's goroutine ended")

// watched runs fn, which runs on t, on a goroutine of its own and returns what it
// returns. A script that takes more memory than it may, or does not get on, is
// told to stop, which it does before its next step. Where there is no next step
// (one operation of the interpreter goes on and on, and can't be stopped) the
// thread is given up: watched returns why, so that the run is sealed in order,
// and whatever the goroutine still does has no effect. It takes its time and
// memory until the process ends.
func watched(t *starlark.Thread, fn func() (starlark.Value, error)) (starlark.Value, error) {
	type result struct {
		v   starlark.Value
		err error
	}
	done := make(chan result, 1)
	w := newWatch(t) // before t runs: its keys are its own from then on
	go func() {
		r := result{err: errGone}
		defer func() { done <- r }()
		r.v, r.err = recovered(t, fn)
	}()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case r := <-done:
			return r.v, r.err
		case now := <-tick.C:
			if !w.over(now) {
				continue
			}
			select {
			case r := <-done: // it has just ended by itself
				return r.v, r.err
			default:
			}
			if !w.g.activity.Leave() {
				continue
			}
			gone := &starlark.EvalError{Msg: "one operation went on", CallStack: stackOf(t)}
			if len(gone.CallStack) > 0 {
				return nil, gone
			}
			select { // it moves after all, and so it ends, and says where
			case r := <-done:
				if r.err != nil {
					return nil, r.err
				}
			case <-time.After(short):
			}
			return nil, gone
		}
	}
}

// watch is what the watcher of a thread remembers between two looks. Times are
// those of cpuTime.
type watch struct {
	t     *starlark.Thread
	g     *guard
	heap  heap
	beats uint64
	since time.Duration // of the last sign of life
	told  time.Duration // when it was seen that the thread is to stop; 0: not yet
	// collected is closed when garbage has been; nil where nobody collects.
	collected chan struct{}
}

func newWatch(t *starlark.Thread) *watch {
	g := guardOf(t)
	return &watch{t: t, g: g, since: cpuTime(time.Now()), heap: newHeap()}
}

// over tells the thread to stop where it is beyond its limits, and reports
// whether it must be given up.
func (w *watch) over(at time.Time) bool {
	full := w.full()
	now := cpuTime(at)
	beats, host := w.g.activity.Beats()
	if host || beats != w.beats {
		w.beats, w.since = beats, now
	}
	if full {
		w.g.exhaust(w.t, "MiB of memory", w.g.limits.Memory>>20)
	}
	if now-w.since > w.g.limits.Stall {
		w.g.exhaust(w.t, "seconds in one operation", uint64(w.g.limits.Stall/time.Second)) // #nosec G115 -- a positive duration
		return true
	}
	if w.g.stopped() == nil {
		return false
	}
	if w.told == 0 {
		w.told = now
	}
	wait := grace
	if full {
		wait = short
	}
	return !host && now-w.told > wait && now-w.since > wait
}

// full reports whether the process takes more memory than it may, garbage not
// counted: that is collected first, unless there is half as much again, since a
// few operations can double what there is while garbage is being collected.
func (w *watch) full() bool {
	limit := w.g.limits.Memory
	if limit == 0 {
		return false
	}
	n := w.heap.bytes()
	if n <= limit {
		return false
	}
	if n > muchOf(limit) || w.told != 0 {
		return true
	}
	if w.collected == nil {
		done := make(chan struct{})
		w.collected = done
		go func() {
			runtime.GC()
			close(done)
		}()
		return false
	}
	select {
	case <-w.collected:
		w.collected = nil
		return w.heap.bytes() > limit
	default:
		return false
	}
}

// muchOf is how much may be taken by garbage together with what is in use.
func muchOf(limit uint64) uint64 { return limit + limit/2 }

// heap reads how much memory the process takes.
type heap []metrics.Sample

func newHeap() heap {
	return heap{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
}

func (h heap) bytes() uint64 {
	metrics.Read(h)
	return h[0].Value.Uint64() + h[1].Value.Uint64()
}

// stackOf is the call stack of a thread that is in one operation. Nothing
// synchronizes with the thread, which does not move: should it do so after all,
// the position is lost, no more.
func stackOf(t *starlark.Thread) (stack starlark.CallStack) {
	defer func() {
		if recover() != nil {
			stack = nil
		}
	}()
	return t.CallStack()
}
