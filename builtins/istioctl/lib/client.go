package lib

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"istio.io/istio/pkg/kube"
	"istio.io/istio/pkg/kube/informerfactory"

	"rutter.dev/rutter/runtime/cluster"
)

// DefaultTimeout is how long a precheck or an analysis waits for the cluster to
// say something more, when the caller names no other time. Istio's informers retry
// a refused list for ever; what is long because the mesh is large goes on.
const DefaultTimeout = 60 * time.Second

// mostTimeouts bounds the whole.
const mostTimeouts = 10

// session is Istio's client for one call of this package. Istio's code takes
// no context and leaves its watches running, so the session ends every request
// that it made when it is closed.
type session struct {
	kube.CLIClient
	ctx    context.Context
	cancel context.CancelCauseFunc
	caches *caches // nil until there is a client
	read   atomic.Pointer[cluster.Reader]
	seen   atomic.Pointer[Pods] // what need not be listed

	patience time.Duration
	silence  *time.Timer // ends the session when it fires

	mu   sync.Mutex
	last error // of the last request that failed
}

// newSession makes a client for the cluster behind rc. rc itself is not
// changed; its Transport is honoured. Nothing is written to disk: the client
// is the one that Istio's controllers use, because the one of its command line
// keeps a discovery cache under the home directory.
func newSession(ctx context.Context, rc *rest.Config, revision string, timeout time.Duration) (*session, error) {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	s := &session{}
	s.begin(ctx, timeout)

	cfg, err := s.config(rc)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("istio client: %w", err)
	}
	client, err := kube.NewClient(kube.NewClientConfigForRestConfig(cfg), "")
	if err != nil {
		s.close()
		return nil, fmt.Errorf("istio client: %w", err)
	}
	cli, ok := client.(kube.CLIClient)
	if !ok {
		s.close()
		return nil, fmt.Errorf("istio client: %T is no CLI client", client)
	}
	s.CLIClient = kube.WithRevision(revision)(cli)
	s.caches = &caches{InformerFactory: s.CLIClient.Informers()}
	return s, nil
}

// Informers are the client's, of which the session knows what they hold.
func (s *session) Informers() informerfactory.InformerFactory { return s.caches }

// begin makes the session's context. It ends with the caller's, but is no child
// of it: goroutines that the precheck command leaves behind hold the session as
// long as the process lives, and would hold the caller's run with it.
func (s *session) begin(ctx context.Context, timeout time.Duration) {
	own := cluster.WithAsker(context.Background(), cluster.AskerOf(ctx))
	most := mostTimeouts * timeout // watches of a busy cluster are never silent
	limited, stop := context.WithTimeoutCause(own, most, fmt.Errorf("no result after %s", most))
	s.ctx, s.cancel = context.WithCancelCause(limited)
	context.AfterFunc(s.ctx, stop)
	s.patience = timeout
	s.silence = time.AfterFunc(timeout, func() { s.cancel(fmt.Errorf("nothing was heard for %s", timeout)) })
	context.AfterFunc(s.ctx, func() { s.silence.Stop() })
	unlink := context.AfterFunc(ctx, func() { s.cancel(context.Cause(ctx)) })
	context.AfterFunc(s.ctx, func() { unlink() })
}

// heard begins the wait anew: the cluster has said something.
func (s *session) heard() {
	if s.silence.Stop() {
		s.silence.Reset(s.patience)
	}
}

// close ends the session's requests, and lets go of what they brought.
func (s *session) close() {
	s.cancel(context.Canceled)
	if s.caches != nil {
		go s.caches.empty() // an informer may be resting between two tries
	}
}

// endedEarly is what RunAndWait panics with; see there.
type endedEarly struct{}

// RunAndWait starts the informers for as long as the session lasts, where
// Istio's callers would let them run for ever. When the session ends before
// they have their objects, it panics with endedEarly: the precheck command
// ignores the result and would wait on a channel that nobody closes.
func (s *session) RunAndWait(<-chan struct{}) bool {
	s.Informers().Start(s.ctx.Done())
	crdsKnown := func() bool { return true }
	if w := s.CrdWatcher(); w != nil {
		go w.Run(s.ctx.Done())
		crdsKnown = w.HasSynced
	}
	// The library's own wait looks every 100 ms only.
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	now := make(chan struct{})
	close(now)
	for !crdsKnown() || !s.Informers().WaitForCacheSync(now) {
		select {
		case <-s.ctx.Done():
			panic(endedEarly{})
		case <-tick.C:
		}
	}
	return true
}

// err tells why the session ended before its work was done, or nil.
func (s *session) err() error {
	if s.ctx.Err() == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cause := context.Cause(s.ctx)
	if s.last != nil && !errors.Is(cause, s.last) && !errors.Is(cause, context.Canceled) {
		return fmt.Errorf("%w; the last failed request: %w", cause, s.last)
	}
	return cause
}

func (s *session) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = err
}

// config leads to the cluster behind rc for as long as the session lasts. What
// it holds of rc is let go of then, for the same reason: behind it there may be
// a whole simulated cluster.
func (s *session) config(rc *rest.Config) (*rest.Config, error) {
	url, _, err := rest.DefaultServerUrlFor(rc)
	if err != nil {
		return nil, err
	}
	rt, err := rest.TransportFor(rc)
	if err != nil {
		return nil, err
	}
	d := &detachable{}
	d.next.Store(&rt)
	context.AfterFunc(s.ctx, func() { d.next.Store(nil) })
	cfg := rest.AnonymousClientConfig(rc) // who it is, and by which certificates, the transport knows
	cfg.Host, cfg.TLSClientConfig = url.String(), rest.TLSClientConfig{}
	cfg.Dial, cfg.Proxy = nil, nil
	cfg.Transport = &sessionTransport{s, d}
	if cfg.QPS == 0 {
		// An analysis lists some thirty kinds once; the client-go default of 5
		// requests a second would take longer than the server does.
		cfg.QPS, cfg.Burst = 50, 100
	}
	if cfg.ContentType == "" {
		// As Istio's own defaults: of large lists protobuf is half the work.
		cfg.ContentType, cfg.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	}
	return cfg, nil
}

// detachable is a transport that can be let go of.
type detachable struct {
	next atomic.Pointer[http.RoundTripper]
}

// RoundTrip implements http.RoundTripper.
func (d *detachable) RoundTrip(req *http.Request) (*http.Response, error) {
	next := d.next.Load()
	if next == nil {
		return nil, net.ErrClosed
	}
	return (*next).RoundTrip(req)
}

// sessionTransport ties requests to the session and notices refused lists.
type sessionTransport struct {
	s    *session
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *sessionTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := t.s.ctx.Err(); err != nil {
		return nil, err
	}
	// Not cancelled on return: the body is read later. It ends with the session.
	// Istio's own contexts don't say for whom the session is.
	ctx, cancel := context.WithCancel(cluster.WithAsker(req.Context(), cluster.AskerOf(t.s.ctx)))
	context.AfterFunc(t.s.ctx, cancel)
	resp, err := t.next.RoundTrip(req.WithContext(ctx))
	switch {
	case err != nil:
		cancel()
		t.s.note(fmt.Errorf("%s %s: %w", req.Method, req.URL.Path, err))
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		err := fmt.Errorf("%s %s: %s", req.Method, req.URL.Path, resp.Status)
		t.s.note(err)
		if isInformer(req) {
			t.s.cancel(err) // it would be asked again until the timeout
		}
	case resp.StatusCode < http.StatusBadRequest:
		t.s.heard()
		resp.Body = &heardBody{resp.Body, t.s}
	case req.URL.Query().Has("sendInitialEvents"):
		// A server may refuse a list by watch; an ordinary list follows.
	case resp.StatusCode >= http.StatusBadRequest && resp.StatusCode != http.StatusNotFound:
		t.s.note(fmt.Errorf("%s %s: %s", req.Method, req.URL.Path, resp.Status))
	}
	return resp, err
}

// heardBody tells the session of what comes.
type heardBody struct {
	io.ReadCloser
	s *session
}

// Read implements io.Reader.
func (b *heardBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.s.heard()
	}
	return n, err
}

// isInformer tells a cache's list or watch from a request whose failure
// Istio's code handles.
func isInformer(req *http.Request) bool {
	q := req.URL.Query()
	return req.Method == http.MethodGet && (q.Has("resourceVersion") || q.Has("watch"))
}
