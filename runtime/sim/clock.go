package sim

import (
	"context"
	"time"

	"rutter.dev/rutter/runtime/env"
)

// Clock is the cluster's virtual clock: Sleep moves the cluster forward.
func (c *Cluster) Clock() env.Clock { return clusterClock{c} }

type clusterClock struct{ c *Cluster }

// Now implements env.Clock.
func (k clusterClock) Now() time.Time {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	return k.c.now
}

// Virtual implements env.Clock.
func (clusterClock) Virtual() bool { return true }

// Sleep implements env.Clock. Whoever watches within the process has heard of all
// that happened before time passes.
func (k clusterClock) Sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	k.c.hearWatches(ctx)
	k.c.Advance(d)
	return nil
}

// Advance moves virtual time d forward; whatever is due in between happens at
// its own instant, in order.
func (c *Cluster) Advance(d time.Duration) {
	c.lock()
	defer c.unlock()
	c.advance(d)
	c.persistClock()
}

func (c *Cluster) advance(d time.Duration) {
	if d < 0 {
		d = 0
	}
	began, end := c.now, c.now.Add(d)
	c.settle()
	for {
		at, ok := c.sched.next()
		if !ok || at.After(end) {
			break
		}
		if at.After(c.now) {
			c.now = at
		}
		c.sched.release(c.now)
		c.settle()
	}
	c.now = end
	c.up()
	if !began.Truncate(bookmarkEvery).Equal(end.Truncate(bookmarkEvery)) {
		for w := range c.watchers {
			w.offerBookmark(c.st.rv)
		}
	}
}

// bookmarkEvery is how often watches that want bookmarks get one.
const bookmarkEvery = time.Minute

// Settle lets the controllers run at the present instant until nothing is left
// to do. Every request does so by itself.
func (c *Cluster) Settle() {
	c.lock()
	defer c.unlock()
	c.settle()
}
