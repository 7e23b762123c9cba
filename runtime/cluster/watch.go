package cluster

import (
	"context"
	"errors"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// pagedList is a list that also gives the resourceVersion from which to watch.
type pagedList struct {
	c   *Client
	res Resource
	o   ListOptions
}

func (l pagedList) run(ctx context.Context, each func(*Object)) (string, error) {
	opts := metav1.ListOptions{FieldSelector: l.o.Fields, Limit: defaultPage}
	for {
		p, err := l.c.listPage(ctx, l.res, l.o, opts)
		if _, expired := expiredToken(err); expired && opts.Continue != "" {
			opts.Continue = ""
			continue
		}
		if err != nil {
			return "", err
		}
		for i := range p.items {
			each(&p.items[i])
		}
		if p.next == "" {
			return p.rv, nil
		}
		opts.Continue = p.next
	}
}

// watch keeps every group's state by list and watch, and asks done after each change.
func (w *waiter) watch(ctx context.Context, timeout time.Duration) error {
	wctx, cancel := context.WithTimeoutCause(ctx, timeout, errWaitOver)
	defer cancel()
	w.until = w.c.clock.Now().Add(timeout)
	changed := make(chan struct{}, 1)
	failed := make(chan error, len(w.groups))
	ended := make(chan struct{}, len(w.groups))
	for _, g := range w.groups {
		go func() {
			defer func() { ended <- struct{}{} }()
			if err := w.follow(wctx, g, changed); err != nil {
				failed <- err
			}
		}()
	}
	err := w.consume(wctx, changed, failed)
	cancel()
	for range w.groups { // no watch outlives the call
		<-ended
	}
	if errors.Is(err, errWaitOver) {
		return w.timedOut(timeout)
	}
	return err
}

var errWaitOver = errors.New("the wait is over")

// consume runs done on the caller's goroutine. It is first asked when every
// group has been read once.
func (w *waiter) consume(ctx context.Context, changed <-chan struct{}, failed <-chan error) error {
	if len(w.groups) == 0 {
		ok, err := w.done(nil)
		if ok || err != nil {
			return err
		}
	}
	for hushes := 0; ; {
		select {
		case <-w.quiet():
			// One that waits for an answer may wait for time to pass, too.
			if hushes++; w.busy() && hushes < hushesMost {
				continue
			}
			hushes = 0
			if err := w.pass(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-failed:
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		case <-changed:
			if !w.complete() {
				continue
			}
			if ok, err := w.done(w.snapshot()); ok || err != nil {
				return err
			}
		}
	}
}

// complete reports whether every group has been read.
func (w *waiter) complete() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.groups {
		if !g.read {
			return false
		}
	}
	return true
}

func (w *waiter) signal(g *waitGroup, changed chan<- struct{}) {
	w.mu.Lock()
	g.read = true
	w.mu.Unlock()
	select {
	case changed <- struct{}{}:
	default: // one is pending; it will see this state
	}
}

// follow keeps one group up to date until ctx ends. It returns only errors that
// waiting does not cure.
func (w *waiter) follow(ctx context.Context, g *waitGroup, changed chan<- struct{}) error {
	for backoff := pollFirst; ctx.Err() == nil; {
		rv, err := w.list(ctx, g)
		switch {
		case err != nil && fatal(err):
			return err
		case err != nil:
			backoff = w.rest(ctx, g, backoff)
			continue
		}
		w.signal(g, changed)
		if rv != "" && w.stream(ctx, g, rv, changed) {
			backoff = pollFirst
			continue
		}
		backoff = w.rest(ctx, g, backoff)
	}
	return nil
}

// rest sleeps and returns the next, longer pause.
func (w *waiter) rest(ctx context.Context, g *waitGroup, d time.Duration) time.Duration {
	if g.passed != nil {
		for due := w.c.clock.Now().Add(d); w.c.clock.Now().Before(due); {
			g.resting.Store(true)
			select {
			case <-g.passed:
				g.resting.Store(false)
			case <-ctx.Done():
				return d
			}
		}
	} else if err := w.c.clock.Sleep(ctx, d); err != nil {
		return d // ctx ended; the loop sees that
	}
	return min(d*2, backoffMax)
}

// stream watches from rv until the watch ends or a resync is due. It reports
// whether the watch worked at all, so that a refused one is not hammered.
func (w *waiter) stream(ctx context.Context, g *waitGroup, rv string, changed chan<- struct{}) bool {
	res, err := w.c.ResourceFor(ctx, g.gvk)
	if err != nil {
		return false
	}
	sctx, cancel := context.WithTimeout(ctx, resync)
	defer cancel()
	ns := g.namespace
	if !res.Namespaced {
		ns = ""
	}
	ws, err := w.c.dyn.Resource(res.GVR).Namespace(ns).Watch(sctx, metav1.ListOptions{
		FieldSelector: g.fields(), ResourceVersion: rv, AllowWatchBookmarks: true,
	})
	if err != nil {
		return false
	}
	defer ws.Stop()
	worked := false
	due := w.c.clock.Now().Add(resync)
	defer g.resting.Store(false)
	for {
		g.resting.Store(true)
		select {
		case <-g.passed:
			if !w.c.clock.Now().Before(due) {
				return true
			}
		case <-sctx.Done():
			return true
		case ev, open := <-ws.ResultChan():
			g.resting.Store(false)
			if !open || ev.Type == watch.Error {
				return worked
			}
			worked = true
			w.event(g, ev, changed)
		}
	}
}

func (w *waiter) event(g *waitGroup, ev watch.Event, changed chan<- struct{}) {
	o, ok := ev.Object.(*Object)
	if !ok || ev.Type == watch.Bookmark {
		return
	}
	if _, want := g.index[o.GetName()]; !want {
		return
	}
	now := o
	if ev.Type == watch.Deleted {
		now = nil
	}
	w.set(g, o.GetName(), now)
	w.signal(g, changed)
}

// hush is how long, in real time, watches have to be quiet before virtual time
// passes. An event that takes longer is seen a virtual second later.
const hush = time.Millisecond

// hushesMost is how many of them are waited for somebody who is busy.
const hushesMost = 100

// quiet fires when virtual time shall pass; on a real clock never.
func (w *waiter) quiet() <-chan time.Time {
	if !w.c.clock.Virtual() {
		return nil
	}
	return time.After(hush)
}

// busy reports whether somebody who follows a group has something to do still: to
// list it, to begin a watch, to take what a watch said.
func (w *waiter) busy() bool {
	return slices.ContainsFunc(w.groups, func(g *waitGroup) bool { return !g.resting.Load() })
}

// pass lets virtual time pass: nothing else does so while watches are waited for.
func (w *waiter) pass(ctx context.Context) error {
	left := w.until.Sub(w.c.clock.Now())
	if left <= 0 {
		return errWaitOver
	}
	if err := w.c.clock.Sleep(ctx, min(pollFirst, left)); err != nil {
		return err
	}
	for _, g := range w.groups {
		select {
		case g.passed <- struct{}{}:
		default: // it has not seen the last one yet
		}
	}
	return nil
}
