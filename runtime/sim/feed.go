package sim

import (
	"context"
	"io"
	"sync"
	"time"
)

// feed is the body of a watch within the process. Unlike a pipe it knows whether
// its reader has taken all that was written and come back for more, which is how
// the virtual clock knows that a watch has been heard.
type feed struct {
	cancel context.CancelFunc // ends the handler

	mu      sync.Mutex
	data    []byte
	err     error // what the reader gets after data
	waiting bool  // the reader has taken everything and waits
	more    chan struct{}
}

func newFeed(cancel context.CancelFunc) *feed {
	return &feed{cancel: cancel, more: make(chan struct{}, 1)}
}

// Read implements io.Reader, for one reader at a time.
func (f *feed) Read(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.data) == 0 {
		if f.err != nil {
			return 0, f.err
		}
		f.waiting = true
		f.mu.Unlock()
		<-f.more
		f.mu.Lock()
	}
	n := copy(b, f.data)
	f.data = f.data[n:]
	return n, nil
}

// Write implements io.Writer; it never blocks.
func (f *feed) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return 0, f.err
	}
	f.data, f.waiting = append(f.data, b...), false
	f.wake()
	return len(b), nil
}

// end is the last thing that the reader gets: err, or that it was all.
func (f *feed) end(err error) {
	if err == nil {
		err = io.EOF
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
	f.wake()
}

func (f *feed) wake() {
	select {
	case f.more <- struct{}{}:
	default:
	}
}

// Close implements io.Closer: it ends the handler.
func (f *feed) Close() error {
	f.cancel()
	f.end(io.ErrClosedPipe)
	return nil
}

// heard reports whether the reader has taken all there is, or will take no more.
func (f *feed) heard() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err != nil || f.waiting && len(f.data) == 0
}

// patience is how long, in real time, the virtual clock waits for readers of
// watches. One that takes longer is not reading.
const patience = 100 * time.Millisecond

// hearWatches waits until what happened has reached whoever watches, so that it
// does not depend on the machine's speed at which virtual time they learn of it.
func (c *Cluster) hearWatches(ctx context.Context) {
	for began := time.Now(); !c.heard() && ctx.Err() == nil && time.Since(began) < patience; {
		time.Sleep(20 * time.Microsecond)
	}
}

func (c *Cluster) heard() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.watchers {
		if !w.heard() {
			return false
		}
	}
	return true
}
