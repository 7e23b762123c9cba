package lock

import (
	"context"
	"sync"
	"time"

	"rutter.dev/rutter/runtime/env"
)

// stamp is a moment on both of a machine's clocks.
type stamp struct {
	wall time.Time // with Go's monotonic reading, where the clock has one
	mono time.Duration
}

// monotonic is what a clock may tell apart from Now: time that passes although
// the wall clock is set. Without it the reading within Now counts.
type monotonic interface{ Monotonic() time.Duration }

func stampOf(c env.Clock) stamp {
	s := stamp{wall: c.Now()}
	if m, ok := c.(monotonic); ok {
		s.mono = m.Monotonic()
	}
	return s
}

// since is the longer of what the two clocks say has passed.
func (s stamp) since(c env.Clock) time.Duration {
	now := stampOf(c)
	return max(now.wall.Sub(s.wall), now.wall.Round(0).Sub(s.wall.Round(0)), now.mono-s.mono)
}

// keep renews until the returned function is called: in the background, or on
// a Clock of this package while time passes on it.
func (l *Lock) keep() (stop func()) {
	if c, ok := l.o.Clock.(*Clock); ok {
		return c.every(Interval, l.renewIdly)
	}
	if l.o.Clock.Virtual() {
		return func() {} // before each mutation is often enough
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for l.o.Clock.Sleep(ctx, Interval) == nil {
			l.renewIdly(ctx)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// renewIdly renews. What goes wrong other than a loss is tried again at the
// next time: what counts is the deadline, before a mutation.
func (l *Lock) renewIdly(ctx context.Context) {
	if l.Lost() == nil {
		_ = l.renew(ctx)
	}
}

// Clock is a virtual clock on which something happens while time passes: a
// virtual clock's Sleep does not block, so there is no background.
type Clock struct {
	env.Clock
	mu    sync.Mutex
	due   time.Time
	step  time.Duration
	f     func(context.Context)
	gen   int
	inner bool // f is running
}

// NewClock wraps a virtual clock.
func NewClock(c env.Clock) *Clock { return &Clock{Clock: c} }

func (c *Clock) every(d time.Duration, f func(context.Context)) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen++
	gen := c.gen
	c.due, c.step, c.f = c.Now().Add(d), d, f
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.gen == gen {
			c.f = nil
		}
	}
}

// next is what is due by end, and when. Nothing is while it is being done.
func (c *Clock) next(end time.Time) (time.Time, func(context.Context)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.f == nil || c.inner || c.due.After(end) {
		return time.Time{}, nil
	}
	c.inner = true
	return c.due, c.f
}

func (c *Clock) did() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inner, c.due = false, c.Now().Add(c.step)
}

// Sleep implements env.Clock.
func (c *Clock) Sleep(ctx context.Context, d time.Duration) error {
	end := c.Now().Add(d)
	for {
		due, f := c.next(end)
		if f == nil {
			return c.Clock.Sleep(ctx, end.Sub(c.Now()))
		}
		err := c.Clock.Sleep(ctx, max(0, due.Sub(c.Now())))
		if err == nil {
			f(ctx)
		}
		c.did()
		if err != nil {
			return err
		}
	}
}
