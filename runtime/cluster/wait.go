package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Pace of waiting.
const (
	pollFirst  = time.Second
	pollMost   = 5 * time.Second
	resync     = 30 * time.Second // a list even if the watch says nothing
	backoffMax = 10 * time.Second
	getAtMost  = 4 // refs of one resource and namespace read one by one when polling
)

// TimeoutError is the ErrTimeout of WaitFor, with what was seen last.
type TimeoutError struct {
	After time.Duration
	Last  []string // one line per ref that was not ready, at most maxLast of them
	More  int      // how many lines were left out
}

const maxLast = 5

// Error implements error.
func (e *TimeoutError) Error() string {
	s := fmt.Sprintf("timed out after %s", e.After)
	if len(e.Last) > 0 {
		s += ": " + strings.Join(e.Last, "; ")
	}
	if e.More > 0 {
		s += fmt.Sprintf("; and %d more", e.More)
	}
	return s
}

// Is makes a TimeoutError match ErrTimeout.
func (e *TimeoutError) Is(target error) bool { return target == ErrTimeout }

// WaitFor implements Reader. A timeout of zero or less looks once. A kind that
// the server does not know (yet) counts as an absent object.
func (c *Client) WaitFor(ctx context.Context, refs []Ref, timeout time.Duration, done func(now []*Object) (bool, error)) error {
	w := newWaiter(c, refs, done)
	switch {
	case timeout <= 0:
		return w.poll(ctx, timeout)
	case c.clock.Virtual() && !c.watches:
		return w.poll(unrecorded(ctx), timeout)
	}
	return w.watch(ctx, timeout)
}

// waiter holds the present state of the refs, grouped so that each group is one
// list or one watch.
type waiter struct {
	c      *Client
	refs   []Ref
	done   func([]*Object) (bool, error)
	groups []*waitGroup
	until  time.Time // of a watch

	mu  sync.Mutex
	now []*Object
}

// waitGroup is the refs of one kind in one namespace.
type waitGroup struct {
	gvk       schema.GroupVersionKind
	namespace string
	index     map[string][]int // name → positions in refs
	read      bool             // at least once; under waiter.mu
	meant     bool             // its list and watch are in the request log
	passed    chan struct{}    // virtual time has passed; nil on a real clock
	resting   atomic.Bool      // who follows it has nothing to do until something happens
}

func newWaiter(c *Client, refs []Ref, done func([]*Object) (bool, error)) *waiter {
	w := &waiter{c: c, refs: refs, done: done, now: make([]*Object, len(refs))}
	type key struct {
		gvk schema.GroupVersionKind
		ns  string
	}
	by := map[key]*waitGroup{}
	for i, r := range refs {
		k := key{r.GVK(), r.Namespace}
		g := by[k]
		if g == nil {
			g = &waitGroup{gvk: k.gvk, namespace: k.ns, index: map[string][]int{}}
			if c.clock.Virtual() {
				g.passed = make(chan struct{}, 1)
			}
			by[k] = g
			w.groups = append(w.groups, g)
		}
		g.index[r.Name] = append(g.index[r.Name], i)
	}
	return w
}

// fields is the selector that narrows a group of one object.
func (g *waitGroup) fields() string {
	if len(g.index) != 1 {
		return ""
	}
	for n := range g.index {
		return "metadata.name=" + n
	}
	return ""
}

// set stores the object of one name; nil means absent.
func (w *waiter) set(g *waitGroup, name string, o *Object) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range g.index[name] {
		w.now[i] = o
	}
}

// replace stores a whole list: names that are not in it are absent.
func (w *waiter) replace(g *waitGroup, got map[string]*Object) {
	for name := range g.index {
		w.set(g, name, got[name])
	}
}

func (w *waiter) snapshot() []*Object {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*Object(nil), w.now...)
}

// poll reads, asks done, and lets the clock pass.
func (w *waiter) poll(ctx context.Context, timeout time.Duration) error {
	deadline := w.c.clock.Now().Add(timeout)
	for pause := pollFirst; ; pause = min(pause*3/2, pollMost) {
		for _, g := range w.groups {
			if timeout > 0 {
				w.meant(ctx, g)
			}
			if err := w.readGroup(ctx, g); err != nil && (fatal(err) || ctx.Err() != nil || timeout <= 0) {
				return err
			}
		}
		if ok, err := w.done(w.snapshot()); ok || err != nil {
			return err
		}
		left := deadline.Sub(w.c.clock.Now())
		if left <= 0 {
			return w.timedOut(timeout)
		}
		if err := w.c.clock.Sleep(ctx, min(pause, left)); err != nil {
			return err
		}
	}
}

// readGroup brings one group's state up to date.
func (w *waiter) readGroup(ctx context.Context, g *waitGroup) error {
	if len(g.index) <= getAtMost {
		for name := range g.index {
			o, err := w.c.Get(ctx, Ref{Group: g.gvk.Group, Version: g.gvk.Version, Kind: g.gvk.Kind, Namespace: g.namespace, Name: name})
			if err != nil && !absent(err) {
				return err
			}
			w.set(g, name, o)
		}
		return nil
	}
	_, err := w.list(ctx, g)
	return err
}

// list reads a group by a list and returns its resourceVersion, "" if the kind
// is not known.
func (w *waiter) list(ctx context.Context, g *waitGroup) (string, error) {
	res, err := w.c.ResourceFor(ctx, g.gvk)
	if err != nil {
		if absent(err) {
			w.replace(g, nil)
			return "", nil
		}
		return "", err
	}
	got := map[string]*Object{}
	l := pagedList{c: w.c, res: res, o: ListOptions{Namespace: g.namespace, Fields: g.fields()}}
	rv, err := l.run(ctx, func(o *Object) {
		if _, want := g.index[o.GetName()]; want {
			got[o.GetName()] = o
		}
	})
	if err != nil {
		return "", err
	}
	w.replace(g, got)
	return rv, nil
}

// absent: what is missing may yet come.
func absent(err error) bool { return errors.Is(err, ErrNotFound) || errors.Is(err, ErrNoKind) }

// fatal errors do not pass by waiting.
func fatal(err error) bool { return errors.Is(err, ErrDenied) || errors.Is(err, ErrInvalid) }

// timedOut says what was seen last of the refs that were not ready.
func (w *waiter) timedOut(after time.Duration) error {
	e := &TimeoutError{After: after}
	now := w.snapshot()
	note := func(line string) {
		if len(e.Last) == maxLast {
			e.More++
			return
		}
		e.Last = append(e.Last, line)
	}
	for i, o := range now {
		if ready, _, why := Ready(o); !ready {
			note(w.refs[i].String() + ": " + why)
		}
	}
	if len(e.Last) == 0 { // all ready, but not what was waited for
		for i, o := range now {
			_, _, why := Ready(o)
			note(w.refs[i].String() + ": " + why)
		}
	}
	return e
}
