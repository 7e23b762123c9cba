package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// ServeOptions say how a cluster is served over a socket.
type ServeOptions struct {
	// Tick is how often virtual time is moved up to the time that has passed;
	// zero means 100 ms.
	Tick time.Duration
	// Speed is how many virtual seconds pass in a real one; zero means 1.
	Speed float64
}

// Serve answers HTTP on the listener until ctx ends, and lets virtual time
// pass with real time meanwhile. It closes the listener.
func (c *Cluster) Serve(ctx context.Context, l net.Listener, o ServeOptions) error {
	if o.Tick <= 0 {
		o.Tick = 100 * time.Millisecond
	}
	if o.Speed <= 0 {
		o.Speed = 1
	}
	c.speed.set(o.Speed)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler: recoverAborts(c.Handler()), ReadHeaderTimeout: 10 * time.Second, ConnState: c.conns.follow,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.tick(ctx, o)
		// Watches end with ctx; what is in flight gets a moment to finish.
		stop, done := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer done()
		if err := srv.Shutdown(stop); err != nil {
			_ = srv.Close() // the moment is over
		}
	}()
	err := srv.Serve(l)
	cancel()
	<-ended
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (c *Cluster) tick(ctx context.Context, o ServeOptions) {
	t := time.NewTicker(o.Tick)
	defer t.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			c.pass(time.Duration(float64(now.Sub(last)) * c.speed.get()))
			last = now
		}
	}
}

// clockEvery is how often the clock of an idle served cluster goes to the log.
const clockEvery = 10 * time.Second

// pass is Advance for the steady passing of time: it does not write each step
// to the log.
func (c *Cluster) pass(d time.Duration) {
	c.lock()
	defer c.unlock()
	before := c.now.Truncate(clockEvery)
	c.advance(d)
	if !c.now.Truncate(clockEvery).Equal(before) {
		c.persistClock()
	}
}

// recoverAborts breaks the connection of a request that a fault ended without
// an answer.
func recoverAborts(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch p := recover().(type) {
			case nil:
			case abort:
				if errors.Is(p.err, errTimeout) {
					http.Error(w, "simulated timeout", http.StatusGatewayTimeout)
					return
				}
				panic(http.ErrAbortHandler)
			default:
				panic(p)
			}
		}()
		h.ServeHTTP(w, r)
	})
}

// Kubeconfig is a kubeconfig for a cluster served at addr (host:port).
func (c *Cluster) Kubeconfig(addr string) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: sim
  cluster:
    server: http://%s
users:
- name: sim
  user: {}
contexts:
- name: sim
  context:
    cluster: sim
    user: sim
current-context: sim
`, addr)
}
