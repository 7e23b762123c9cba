package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"

	"k8s.io/client-go/rest"
)

// Config is a client configuration whose transport is the cluster itself: no
// socket, no throttling. Each call makes an independent one.
func (c *Cluster) Config() *rest.Config {
	return &rest.Config{
		Host: "http://sim.invalid", QPS: -1, UserAgent: rest.DefaultKubernetesUserAgent(),
		Transport: transport{c: c}, ContentConfig: rest.ContentConfig{ContentType: "application/json"},
	}
}

// transport calls the handler. A plain request runs on the caller's goroutine;
// a stream gets its own and ends with the request's context or its body.
type transport struct {
	c    *Cluster
	user *User // who the client is; nil to go by what it says
}

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if r.Body == nil {
		r = r.Clone(ctx)
		r.Body = http.NoBody
	}
	defer r.Body.Close() //nolint:errcheck // a request body has nothing to report
	if t.user != nil {
		r = r.WithContext(withUser(ctx, t.user))
		ctx = r.Context()
	}
	if q := r.URL.Query(); q.Get("watch") == "true" || q.Get("watch") == "1" {
		return t.stream(ctx, r)
	}
	w := &buffered{header: http.Header{}}
	if err := t.serve(w, r); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return w.response(r), nil
}

// serve runs the handler and turns an aborted request into its error.
func (t transport) serve(w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case abort:
			err = p.transportError()
		default:
			panic(p)
		}
	}()
	t.c.serveHTTP(w, r)
	return nil
}

// transportError is what a client of a real socket would see.
func (a abort) transportError() error {
	if errors.Is(a.err, errTimeout) {
		return &net.OpError{Op: "read", Net: "tcp", Err: timeoutError{}}
	}
	if errors.Is(a.err, errRefused) {
		return &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("%w", syscall.ECONNREFUSED)}
	}
	return &net.OpError{Op: "read", Net: "tcp", Err: fmt.Errorf("%w", syscall.ECONNRESET)}
}

type timeoutError struct{}

// Error implements error.
func (timeoutError) Error() string { return "i/o timeout (simulated)" }

// Timeout implements net.Error.
func (timeoutError) Timeout() bool { return true }

// Temporary implements net.Error.
func (timeoutError) Temporary() bool { return true }

// Is makes the error that of an expired deadline.
func (timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// buffered keeps a whole answer.
type buffered struct {
	header http.Header
	code   int
	body   []byte
}

func (b *buffered) Header() http.Header { return b.header }
func (b *buffered) WriteHeader(code int) {
	if b.code == 0 {
		b.code = code
	}
}

func (b *buffered) Write(p []byte) (int, error) {
	b.WriteHeader(http.StatusOK)
	b.body = append(b.body, p...)
	return len(p), nil
}

// give takes p as the whole body without copying it; p must never change.
func (b *buffered) give(p []byte) { b.body = p }

func (b *buffered) response(r *http.Request) *http.Response {
	b.WriteHeader(http.StatusOK)
	return &http.Response{
		Status: strconv.Itoa(b.code) + " " + http.StatusText(b.code), StatusCode: b.code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: b.header, Body: io.NopCloser(bytes.NewReader(b.body)), ContentLength: int64(len(b.body)), Request: r,
	}
}

// streamed is the writer of a stream: the answer begins with the first flush.
type streamed struct {
	header http.Header
	feed   *feed
	once   sync.Once
	code   int
	begun  chan struct{}
}

func (s *streamed) Header() http.Header { return s.header }
func (s *streamed) WriteHeader(code int) {
	s.once.Do(func() {
		s.code = code
		close(s.begun)
	})
}

func (s *streamed) Write(p []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	return s.feed.Write(p)
}
func (s *streamed) Flush() { s.WriteHeader(http.StatusOK) }

func (t transport) stream(ctx context.Context, r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &streamed{header: http.Header{}, feed: newFeed(cancel), begun: make(chan struct{})}
	failed := make(chan error, 1)
	req := r.Clone(ctx)
	req.Body = http.NoBody // a watch has no body, and the caller closes its own
	context.AfterFunc(ctx, func() { w.feed.end(context.Canceled) })
	go func() {
		defer cancel()
		err := t.serve(w, req)
		if err != nil {
			failed <- err
		}
		w.WriteHeader(http.StatusOK)
		w.feed.end(err)
	}()
	<-w.begun
	select {
	case err := <-failed:
		return nil, err
	default:
	}
	return &http.Response{
		Status: strconv.Itoa(w.code) + " " + http.StatusText(w.code), StatusCode: w.code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: w.feed, ContentLength: -1, Request: r,
	}, nil
}
