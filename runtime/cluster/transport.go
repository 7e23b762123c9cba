package cluster

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"rutter.dev/rutter/runtime/env"
)

// Retries of reads. Writes have none.
const (
	readAttempts   = 5
	maxRetryAfter  = 10 * time.Second
	readRetryPause = 500 * time.Millisecond
	// A server that has answered before and refuses connections now is being
	// restarted, or its address handed over: half a minute in all.
	refusedAttempts = 8
	maxRefusedPause = 8 * time.Second
)

// exchange records how far one request came, so that a failure can be told as
// "never sent" or as "sent, not answered". It travels in the request's context.
type exchange struct {
	mu      sync.Mutex
	begun   bool // it got a slot and was handed to the network
	netHTTP bool // net/http's own transport is below us: its trace tells what was sent
	sent    bool // bytes of the request may have left
	status  int  // of the answer; 0 if none came
	cause   error
}

type exchangeKey struct{}

// withExchange gives ctx a fresh record.
func withExchange(ctx context.Context) (context.Context, *exchange) {
	x := &exchange{}
	return context.WithValue(ctx, exchangeKey{}, x), x
}

func (x *exchange) mark(f func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f()
}

// trace follows the request through net/http. Headers count as sent as soon as
// net/http begins to write them: that errs on the side of "may have happened".
func (x *exchange) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn:          func(string) { x.mark(func() { x.netHTTP = true }) },
		WroteHeaderField: func(string, []string) { x.mark(func() { x.sent = true }) },
		WroteHeaders:     func() { x.mark(func() { x.sent = true }) },
	}
}

// neverSent reports whether it is certain that no byte of the request left.
func (x *exchange) neverSent(err error) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.begun {
		return true // it ended while waiting for a slot, or before
	}
	if x.sent || x.status != 0 {
		return false
	}
	if x.netHTTP {
		return true
	}
	// Another round tripper (in memory, a proxy): trust only a failure to dial.
	var op *net.OpError
	var dns *net.DNSError
	return errors.As(err, &dns) || errors.As(err, &op) && op.Op == "dial"
}

// transport is the round tripper between client-go and the network. It holds
// the rules of this package about sending (FACTS §2):
//
//   - a request that may change something goes out once: net/http is given a
//     body that it cannot rewind (it would resend an HTTP/2 request after GOAWAY
//     or REFUSED_STREAM), client-go sees no Retry-After (it would resend any
//     429 or 5xx that has one), and no redirect is followed;
//   - reads are retried here, on the given clock, so that a virtual one does
//     not wait; where nobody listens, only if somebody did before (a wrong
//     address is said at once), and then dry-runs, too;
//   - no more than cap(slots) requests are in flight; watches hold no slot.
type transport struct {
	next  http.RoundTripper
	slots chan struct{}
	clock env.Clock
	met   atomic.Bool // the server has answered
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	switch {
	case isRead(req.Method):
		return t.read(req)
	case isDryRun(req):
		return t.rehearse(req)
	}
	return t.once(req)
}

// isDryRun reports whether a request changes nothing, whatever its method.
func isDryRun(req *http.Request) bool {
	q := req.URL.Query()["dryRun"]
	return len(q) == 1 && q[0] == "All"
}

// rehearse sends a dry-run, again where a server that was there does not listen.
func (t *transport) rehearse(req *http.Request) (*http.Response, error) {
	for attempt := 1; ; attempt++ {
		resp, err := t.once(req)
		r := t.again(resp, err, attempt)
		if !r.refused || attempt >= r.attempts || req.GetBody == nil {
			return resp, err
		}
		if serr := t.clock.Sleep(req.Context(), r.pause); serr != nil {
			return nil, serr
		}
		body, berr := req.GetBody()
		if berr != nil {
			return nil, berr
		}
		get := req.GetBody
		req = req.Clone(req.Context())
		req.Body, req.GetBody = body, get
	}
}

func isRead(method string) bool {
	return method == "" || method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// once sends a request that may change something, at most once.
func (t *transport) once(req *http.Request) (*http.Response, error) {
	x, _ := req.Context().Value(exchangeKey{}).(*exchange)
	if x == nil {
		x = &exchange{}
	}
	out := req.Clone(httptrace.WithClientTrace(req.Context(), x.trace()))
	out.GetBody = nil
	out.Header.Del("Idempotency-Key") // net/http resends what carries one
	out.Header.Del("X-Idempotency-Key")
	if out.Body == nil || out.Body == http.NoBody {
		out.Body, out.ContentLength = io.NopCloser(strings.NewReader("")), 0
	}
	out.Body = &sentBody{ReadCloser: out.Body, x: x}
	resp, err := t.send(out, func() { x.mark(func() { x.begun = true }) })
	if err != nil {
		x.mark(func() { x.cause = err })
		return nil, err
	}
	x.mark(func() { x.status = resp.StatusCode })
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500 {
		resp.Header.Del("Retry-After")
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		resp.Header.Del("Location")
	}
	return resp, nil
}

// read sends a read, again where the server asks for that (Retry-After), the
// connection broke, or a server that was there is not.
func (t *transport) read(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	for attempt := 1; ; attempt++ {
		resp, err := t.send(req, func() {})
		r := t.again(resp, err, attempt)
		if attempt >= r.attempts || ctx.Err() != nil {
			if resp != nil && r.attempts > 0 {
				resp.Header.Del("Retry-After") // client-go would begin once more
			}
			if err != nil && r.attempts > 0 && !r.refused {
				err = &brokenRead{err}
			}
			return resp, err
		}
		if resp != nil {
			_, derr := io.CopyN(io.Discard, resp.Body, 64<<10)
			if cerr := resp.Body.Close(); cerr != nil || derr != nil && !errors.Is(derr, io.EOF) {
				r.pause = max(r.pause, readRetryPause) // the connection is gone too: nothing lost, ask again
			}
		}
		if err := t.clock.Sleep(ctx, r.pause); err != nil {
			return nil, err
		}
	}
}

// retry is how an attempt of a read goes on: not at all where attempts is 0.
type retry struct {
	attempts int // in all
	pause    time.Duration
	refused  bool // nobody listened
}

// again says whether a read deserves another attempt, and after how long.
func (t *transport) again(resp *http.Response, err error, attempt int) retry {
	switch {
	case err != nil && connectionBroke(err):
		return retry{attempts: readAttempts, pause: readRetryPause}
	case err != nil && errors.Is(err, syscall.ECONNREFUSED) && t.met.Load():
		return retry{attempts: refusedAttempts, pause: min(readRetryPause<<(attempt-1), maxRefusedPause), refused: true}
	case err != nil:
		return retry{}
	}
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < 500 {
		return retry{}
	}
	s, perr := strconv.Atoi(resp.Header.Get("Retry-After"))
	if perr != nil {
		return retry{}
	}
	return retry{attempts: readAttempts, pause: min(time.Duration(s)*time.Second, maxRetryAfter)}
}

// connectionBroke reports whether err is a connection that ended under the
// request, and not a refusal to connect or a cancelled context.
func connectionBroke(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return false
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return true
	}
	s := err.Error()
	return strings.Contains(s, "connection reset") || strings.Contains(s, "GOAWAY") ||
		strings.Contains(s, "broken connection") || strings.Contains(s, "http2: client connection lost")
}

// brokenRead hides a broken connection from client-go, which would start ten
// more attempts on the machine's clock; by here the read has had its own.
type brokenRead struct{ cause error }

// Error implements error. client-go recognises broken connections by their text.
func (e *brokenRead) Error() string {
	return "no answer after " + strconv.Itoa(readAttempts) + " attempts: " + strings.NewReplacer(
		"connection reset by peer", "connection reset", "GOAWAY", "go-away",
		"use of closed network connection", "connection closed").Replace(e.cause.Error())
}

// send takes a slot and passes the request on; the slot is free again when the
// answer's body is closed. begin is called when the request has its slot.
func (t *transport) send(req *http.Request, begin func()) (resp *http.Response, err error) {
	if isWatch(req) {
		return t.next.RoundTrip(req)
	}
	defer func() {
		if err == nil {
			t.met.Store(true)
		}
	}()
	select {
	case t.slots <- struct{}{}:
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	release := sync.OnceFunc(func() { <-t.slots })
	begin()
	resp, err = t.next.RoundTrip(req)
	if err != nil || resp.Body == nil || resp.StatusCode == http.StatusSwitchingProtocols {
		release()
		return resp, err
	}
	resp.Body = &slotBody{ReadCloser: resp.Body, release: release}
	return resp, nil
}

func isWatch(req *http.Request) bool {
	q := req.URL.RawQuery
	if !strings.Contains(q, "watch=") && !strings.Contains(q, "follow=") {
		return false
	}
	v := req.URL.Query()
	return v.Get("watch") == "true" || v.Get("watch") == "1" || v.Get("follow") == "true"
}

// sentBody notes that its request's body was read: it may have left.
type sentBody struct {
	io.ReadCloser
	x *exchange
}

// Read implements io.Reader.
func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.x.mark(func() { b.x.sent = b.x.sent || !b.x.netHTTP })
	}
	return n, err
}

// slotBody frees a slot when it is closed.
type slotBody struct {
	io.ReadCloser
	release func()
}

// Close implements io.Closer.
func (b *slotBody) Close() error {
	defer b.release()
	return b.ReadCloser.Close()
}
