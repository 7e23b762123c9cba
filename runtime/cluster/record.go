package cluster

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Asked is one request as it went to the API server, for a log of requests
// (ClientOptions.Record). A read that was retried is one request.
type Asked struct {
	Request *http.Request // its body, if there was one, is in Body
	Body    []byte        // of what is not a read
	Status  int           // of the answer; 0 if none came, or if it was only meant
	Meant   bool          // it was not sent: see WaitFor on a virtual clock
	By      Asker
}

// Asker says for whom a request is made. It travels in the request's context.
type Asker struct {
	Step string // path of the step; "" outside of every step
	By   string // builtin or gate within it; "" for the host itself
}

type (
	askerKey     struct{}
	unrecordedAt struct{}
)

// WithAsker marks the requests of ctx as made for a.
func WithAsker(ctx context.Context, a Asker) context.Context {
	return context.WithValue(ctx, askerKey{}, a)
}

// AskerOf is for whom the requests of ctx are made.
func AskerOf(ctx context.Context) Asker {
	a, _ := ctx.Value(askerKey{}).(Asker)
	return a
}

// unrecorded keeps the requests of ctx out of the log.
func unrecorded(ctx context.Context) context.Context {
	return context.WithValue(ctx, unrecordedAt{}, true)
}

// recorder tells record of every request that goes through it.
type recorder struct {
	next   http.RoundTripper
	record func(Asked)
}

// RoundTrip implements http.RoundTripper.
func (t recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if ctx.Value(unrecordedAt{}) != nil {
		return t.next.RoundTrip(req)
	}
	a := Asked{Request: req, By: AskerOf(ctx)}
	if !isRead(req.Method) && req.Body != nil {
		body, err := io.ReadAll(req.Body)
		if cerr := req.Body.Close(); err != nil || cerr != nil {
			return nil, fmt.Errorf("request log: body of %s %s: %w", req.Method, req.URL.Path, cmp.Or(err, cerr))
		}
		out := req.Clone(ctx)
		out.Body = io.NopCloser(bytes.NewReader(body))
		a.Body, req = body, out
	}
	resp, err := t.next.RoundTrip(req)
	if resp != nil {
		a.Status = resp.StatusCode
	}
	t.record(a)
	return resp, err
}

// meant records the list and the watch by which a wait on a real clock follows
// a group, where on a virtual one it polls: a log of requests made in a
// simulated cluster must hold what a real one will be asked.
func (w *waiter) meant(ctx context.Context, g *waitGroup) {
	record := w.c.record
	if record == nil || g.meant {
		return
	}
	res, err := w.c.ResourceFor(ctx, g.gvk)
	if err != nil {
		return // not known yet: a wait finds nothing to list or watch either
	}
	g.meant = true
	ns := g.namespace
	if !res.Namespaced {
		ns = ""
	}
	path := root(res.GVR.GroupVersion())
	if ns != "" {
		path = append(path, "namespaces", ns)
	}
	path = append(path, res.GVR.Resource)
	for _, watching := range []bool{false, true} {
		q := url.Values{}
		if f := g.fields(); f != "" {
			q.Set("fieldSelector", f)
		}
		if watching {
			q.Set("watch", "true")
		}
		record(Asked{
			Request: &http.Request{Method: http.MethodGet, Header: w.c.identity(), URL: &url.URL{Path: strings.Join(path, "/"), RawQuery: q.Encode()}},
			Meant:   true, By: AskerOf(ctx),
		})
	}
}

// identity is what the requests of this client say of whom they are made for.
func (c *Client) identity() http.Header {
	h := http.Header{}
	as := c.config.Impersonate
	if as.UserName != "" {
		h.Set("Impersonate-User", as.UserName)
	}
	for _, g := range as.Groups {
		h.Add("Impersonate-Group", g)
	}
	return h
}
