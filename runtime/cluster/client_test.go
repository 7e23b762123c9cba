package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"rutter.dev/rutter/runtime/env"
)

// fakeServer answers discovery of pods, namespaces and deployments, and leaves
// the rest to handle.
func fakeServer(t *testing.T, handle http.HandlerFunc) *httptest.Server {
	t.Helper()
	return fakeServerOf(t, `{"major":"1","minor":"34+","gitVersion":"v1.34.1-eks"}`, handle)
}

func fakeServerOf(t *testing.T, version string, handle http.HandlerFunc) *httptest.Server {
	t.Helper()
	docs := map[string]string{
		"/api":     `{"kind":"APIVersions","versions":["v1"]}`,
		"/apis":    `{"kind":"APIGroupList","apiVersion":"v1","groups":[{"name":"apps","versions":[{"groupVersion":"apps/v1","version":"v1"}],"preferredVersion":{"groupVersion":"apps/v1","version":"v1"}}]}`,
		"/version": version,
		"/api/v1": `{"kind":"APIResourceList","groupVersion":"v1","resources":[
			{"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":["get","list","watch"],"shortNames":["po"]},
			{"name":"namespaces","singularName":"namespace","namespaced":false,"kind":"Namespace","verbs":["get","list"],"shortNames":["ns"]}]}`,
		"/apis/apps/v1": `{"kind":"APIResourceList","groupVersion":"apps/v1","resources":[
			{"name":"deployments","singularName":"deployment","namespaced":true,"kind":"Deployment","verbs":["get","list","patch"],"shortNames":["deploy"]}]}`,
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if d, ok := docs[r.URL.Path]; ok {
			fmt.Fprint(w, d)
			return
		}
		handle(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv
}

func client(t *testing.T, url string, o ClientOptions) *Client {
	t.Helper()
	c, err := New(&rest.Config{Host: url}, "test", env.SystemClock{}, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func answer(w http.ResponseWriter, code int, reason, message, details string) {
	w.WriteHeader(code)
	if details == "" {
		details = `{"name":"web","kind":"deployments"}`
	}
	fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"reason":%q,"message":%q,"details":%s}`, code, reason, message, details)
}

var web = Ref{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "shop", Name: "web"}

func webObject() *Object {
	return &Object{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": map[string]any{"name": "web", "namespace": "shop"},
	}}
}

func writes(c *Client) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"apply":   func(ctx context.Context) error { _, err := c.Apply(ctx, webObject(), ApplyOptions{}); return err },
		"create":  func(ctx context.Context) error { _, err := c.Create(ctx, webObject(), WriteOptions{}); return err },
		"replace": func(ctx context.Context) error { _, err := c.Replace(ctx, webObject(), WriteOptions{}); return err },
		"patch": func(ctx context.Context) error {
			_, err := c.Patch(ctx, web, types.MergePatchType, []byte(`{}`), WriteOptions{})
			return err
		},
		"delete": func(ctx context.Context) error { return c.Delete(ctx, web, WriteOptions{}) },
		"evict": func(ctx context.Context) error {
			return c.Evict(ctx, Ref{Version: "v1", Kind: "Pod", Namespace: "shop", Name: "web"}, WriteOptions{})
		},
	}
}

func TestWritesAreSentOnce(t *testing.T) {
	for _, code := range []int{429, 500, 503, 504} {
		var sent atomic.Int32
		srv := fakeServer(t, func(w http.ResponseWriter, _ *http.Request) {
			sent.Add(1)
			w.Header().Set("Retry-After", "0")
			answer(w, code, "", "come back later", "")
		})
		want := ErrUnknown
		if code == 429 {
			want = ErrThrottled
		}
		for name, do := range writes(client(t, srv.URL, ClientOptions{})) {
			sent.Store(0)
			if err := do(t.Context()); !errors.Is(err, want) {
				t.Errorf("%s answered %d: got %v, want %v", name, code, err, want)
			}
			if n := sent.Load(); n != 1 {
				t.Errorf("%s answered %d: sent %d times, want once", name, code, n)
			}
		}
	}
}

func TestWritesFollowNoRedirect(t *testing.T) {
	var sent atomic.Int32
	srv := fakeServer(t, func(w http.ResponseWriter, r *http.Request) {
		sent.Add(1)
		w.Header().Set("Location", r.URL.Path+"/again")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	for name, do := range writes(client(t, srv.URL, ClientOptions{})) {
		sent.Store(0)
		if err := do(t.Context()); err == nil || sent.Load() != 1 {
			t.Errorf("%s redirected: sent %d times, error %v; want once and an error", name, sent.Load(), err)
		}
	}
}

// TestBrokenConnection: the connection ends before, or in the middle of, the answer.
func TestBrokenConnection(t *testing.T) {
	for _, partial := range []string{"", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"kind\":"} {
		var sent atomic.Int32
		srv := fakeServer(t, func(w http.ResponseWriter, _ *http.Request) {
			sent.Add(1)
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := conn.Write([]byte(partial)); err != nil {
				t.Error(err)
			}
			if err := conn.(*net.TCPConn).SetLinger(0); err != nil { // close with a reset
				t.Error(err)
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		})
		for name, do := range writes(client(t, srv.URL, ClientOptions{})) {
			sent.Store(0)
			err := do(t.Context())
			if !errors.Is(err, ErrUnknown) || sent.Load() != 1 {
				t.Errorf("%s, connection reset after %q: sent %d times, got %v; want once and ErrUnknown", name, partial, sent.Load(), err)
			}
		}
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	srv := fakeServer(t, func(http.ResponseWriter, *http.Request) {})
	c := client(t, srv.URL, ClientOptions{})
	if _, err := c.ResourceFor(t.Context(), web.GVK()); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	gone := client(t, "http://"+addr, ClientOptions{})
	gone.api.gen, gone.api.byKind = 1, c.api.byKind // discovery was read before the server went
	for name, do := range writes(gone) {
		err := do(t.Context())
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), addr) {
			t.Errorf("%s: got %v, want ErrUnreachable with %s", name, err, addr)
		}
	}
	if _, err := gone.Get(t.Context(), web); !errors.Is(err, ErrUnreachable) {
		t.Errorf("get: got %v, want ErrUnreachable", err)
	}
}

func TestCancelAfterSending(t *testing.T) {
	arrived := make(chan struct{})
	release := make(chan struct{})
	srv := fakeServer(t, func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-release
	})
	defer close(release)
	c := client(t, srv.URL, ClientOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	_, err := c.Apply(ctx, webObject(), ApplyOptions{})
	if !errors.Is(err, ErrUnknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want ErrUnknown and context.Canceled", err)
	}
	// While it waits for a slot, nothing is sent either.
	full := &transport{next: http.DefaultTransport, slots: make(chan struct{}), clock: env.SystemClock{}}
	xctx, x := withExchange(ctx)
	req, err := http.NewRequestWithContext(xctx, http.MethodDelete, srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := full.RoundTrip(req); err == nil || !x.neverSent(err) {
		t.Errorf("waiting for a slot: %v, %v", resp, err)
	}
	_, err = c.Apply(ctx, webObject(), ApplyOptions{})
	if errors.Is(err, ErrUnknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: got %v, want context.Canceled alone", err)
	}
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	const limit, calls = 3, 12
	var now, most atomic.Int32
	var arrived atomic.Int32
	full := make(chan struct{})
	srv := fakeServer(t, func(w http.ResponseWriter, _ *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if arrived.Add(1) == limit {
			close(full)
		}
		select { // the first ones stay until as many as are allowed are there
		case <-full:
		case <-t.Context().Done():
		}
		if err := json.NewEncoder(w).Encode(webObject().Object); err != nil {
			t.Error(err)
		}
	})
	c := client(t, srv.URL, ClientOptions{MaxInFlight: limit})
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() {
			if _, err := c.Get(t.Context(), web); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() != limit {
		t.Errorf("%d requests at once, want %d", most.Load(), limit)
	}
}

func TestReadsAreRetried(t *testing.T) {
	var sent atomic.Int32
	srv := fakeServer(t, func(w http.ResponseWriter, _ *http.Request) {
		if sent.Add(1) < 3 {
			w.Header().Set("Retry-After", "0")
			answer(w, 429, "TooManyRequests", "slow down", "")
			return
		}
		fmt.Fprint(w, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"}}`)
	})
	if _, err := client(t, srv.URL, ClientOptions{}).Get(t.Context(), web); err != nil || sent.Load() != 3 {
		t.Errorf("sent %d times, %v; want 3 and no error", sent.Load(), err)
	}
}

func TestErrorsBySentinel(t *testing.T) {
	cases := []struct {
		code            int
		reason, message string
		details         string
		want            error
	}{
		{404, "NotFound", "not found", "", ErrNotFound},
		{404, "NotFound", "the server could not find the requested resource", "{}", ErrNoKind},
		{409, "AlreadyExists", "exists", "", ErrExists},
		{409, "Conflict", "stale", "", ErrConflict},
		{403, "Forbidden", "no", "", ErrDenied},
		{401, "Unauthorized", "who", "", ErrDenied},
		{422, "Invalid", "bad", "", ErrInvalid},
		{400, "BadRequest", "bad", "", ErrInvalid},
		{500, "InternalError", `Internal error occurred: failed calling webhook "x"`, "", ErrDenied},
		{500, "InternalError", "etcdserver: request timed out", "", ErrUnknown},
	}
	for _, tc := range cases {
		srv := fakeServer(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, tc.code, tc.reason, tc.message, tc.details) })
		_, err := client(t, srv.URL, ClientOptions{}).Apply(t.Context(), webObject(), ApplyOptions{})
		if !errors.Is(err, tc.want) {
			t.Errorf("%d %s %q: got %v, want %v", tc.code, tc.reason, tc.message, err, tc.want)
		}
		if !strings.HasPrefix(err.Error(), "deployment.apps/web in shop: ") {
			t.Errorf("%d: %q does not begin with the object", tc.code, err)
		}
	}
}

func TestFieldConflict(t *testing.T) {
	srv := fakeServer(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 409, "Conflict", "Apply failed with 1 conflict", `{"causes":[{"reason":"FieldManagerConflict","message":"conflict with \"helm\" using apps/v1","field":".spec.replicas"}]}`)
	})
	_, err := client(t, srv.URL, ClientOptions{}).Apply(t.Context(), webObject(), ApplyOptions{})
	var ce *ConflictError
	if !errors.As(err, &ce) || !errors.Is(err, ErrConflict) || len(ce.Fields) != 1 || ce.Fields[0].Manager != "helm" || ce.Fields[0].Field != ".spec.replicas" {
		t.Errorf("got %#v", err)
	}
}

func TestEvictionRefusedForBudget(t *testing.T) {
	srv := fakeServer(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/pods/web/eviction") {
			t.Errorf("path %s", r.URL.Path)
		}
		w.Header().Set("Retry-After", "0")
		answer(w, 429, "TooManyRequests", "Cannot evict pod", `{"causes":[{"reason":"DisruptionBudget","message":"needs 2"}]}`)
	})
	err := writes(client(t, srv.URL, ClientOptions{}))["evict"](t.Context())
	if !errors.Is(err, ErrDisruption) || errors.Is(err, ErrThrottled) {
		t.Errorf("got %v, want ErrDisruption", err)
	}
}

func TestListPagesAndExpiredToken(t *testing.T) {
	item := func(n int) string { return fmt.Sprintf(`{"metadata":{"name":"p%d","namespace":"shop"}}`, n) }
	list := func(cont string, items ...string) string {
		return fmt.Sprintf(`{"apiVersion":"v1","kind":"PodList","metadata":{"resourceVersion":"7","continue":%q},"items":[%s]}`, cont, strings.Join(items, ","))
	}
	for _, token := range []string{"fresh", ""} {
		srv := fakeServer(t, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Query().Get("continue") {
			case "":
				fmt.Fprint(w, list("old", item(1), item(2)))
			case "old":
				w.WriteHeader(410)
				fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":410,"reason":"Expired","message":"too old","metadata":{"continue":%q}}`, token)
			case "fresh":
				fmt.Fprint(w, list("", item(2), item(3)))
			}
		})
		c := client(t, srv.URL, ClientOptions{})
		res, err := c.Resolve(t.Context(), "po")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		err = c.List(t.Context(), res, ListOptions{PageSize: 2}, func(o *Object) error {
			got = append(got, o.GetName())
			return nil
		})
		if token == "" {
			if err == nil || strings.Join(got, ",") != "p1,p2" {
				t.Errorf("always expired: got %v, %v; want p1,p2 once and an error", got, err)
			}
			continue
		}
		if err != nil || strings.Join(got, ",") != "p1,p2,p3" {
			t.Errorf("got %v, %v", got, err)
		}
	}
}

func TestResolve(t *testing.T) {
	c := client(t, fakeServer(t, http.NotFound).URL, ClientOptions{})
	for _, name := range []string{"deploy", "deployment", "deployments", "Deployment", "deployments.apps", "deploy.apps", "deployments.v1.apps"} {
		r, err := c.Resolve(t.Context(), name)
		if err != nil || r.String() != "deployments.apps" || !r.Namespaced {
			t.Errorf("%s: got %v, %v", name, r, err)
		}
	}
	_, err := c.Resolve(t.Context(), "deploymnet")
	if !errors.Is(err, ErrNoKind) || !strings.Contains(err.Error(), `did you mean "deployment"?`) {
		t.Errorf("got %v", err)
	}
	v, err := c.Version(t.Context())
	if err != nil || v.Major != 1 || v.Minor != 34 {
		t.Errorf("version: %v, %v", v, err)
	}
}

func TestReadOnlyConfig(t *testing.T) {
	var sent atomic.Int32
	srv := fakeServer(t, func(w http.ResponseWriter, r *http.Request) {
		sent.Add(1)
		fmt.Fprint(w, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"status":{"allowed":true}}`)
	})
	c, err := New(client(t, srv.URL, ClientOptions{}).ReadOnlyConfig(), "guarded", env.SystemClock{}, ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, do := range writes(c) {
		var ro *ReadOnlyError
		if err := do(t.Context()); !errors.As(err, &ro) || !errors.Is(err, ErrDenied) {
			t.Errorf("%s: got %v, want ReadOnlyError", name, err)
		}
	}
	if sent.Load() != 0 {
		t.Errorf("%d writes reached the server", sent.Load())
	}
	_, e1 := c.Get(t.Context(), web)
	_, e2 := c.DryRunApply(t.Context(), webObject(), ApplyOptions{})
	e3 := c.DryRunDelete(t.Context(), web, WriteOptions{})
	_, e4 := c.CanI(t.Context(), Access{Verb: "get", Resource: "pods"})
	if err := errors.Join(e1, e2, e3, e4); err != nil {
		t.Error(err)
	}
}

// Of a DELETE with a body the API server reads the body, not the query.
func TestReadOnlyDelete(t *testing.T) {
	for name, c := range map[string]struct {
		query, body string
		sent        bool
	}{
		"dry-run by query":                   {"?dryRun=All", "", true},
		"dry-run by body":                    {"", `{"dryRun":["All"]}`, true},
		"dry-run by both":                    {"?dryRun=All", `{"dryRun":["All"]}`, true},
		"the query says so and the body not": {"?dryRun=All", `{"propagationPolicy":"Background"}`, false},
		"a body that can't be read":          {"?dryRun=All", "k8s\x00", false},
		"twice":                              {"?dryRun=All&dryRun=All", "", false},
		"no dry-run":                         {"", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			sent := false
			g := readOnly{next: roundTrip(func(r *http.Request) (*http.Response, error) {
				sent = true
				return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
			})}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, "https://k/api/v1/namespaces/a/pods/b"+c.query, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := g.RoundTrip(req)
			if err == nil {
				_ = resp.Body.Close() // nothing in it
			}
			if sent != c.sent || (err == nil) != c.sent {
				t.Errorf("sent %v, error %v", sent, err)
			}
		})
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestWaitForWatches waits with a single slot: the watch holds none.
func TestWaitForWatches(t *testing.T) {
	events := make(chan string, 1)
	srv := fakeServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") != "" {
			w.(http.Flusher).Flush()
			select {
			case e := <-events:
				fmt.Fprint(w, e)
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			case <-r.Context().Done():
			}
			return
		}
		if got := r.URL.Query().Get("fieldSelector"); got != "metadata.name=web" {
			t.Errorf("field selector %q", got)
		}
		fmt.Fprint(w, `{"apiVersion":"apps/v1","kind":"DeploymentList","metadata":{"resourceVersion":"5"},"items":[]}`)
	})
	c := client(t, srv.URL, ClientOptions{MaxInFlight: 1})
	calls := 0
	err := c.WaitFor(t.Context(), []Ref{web}, time.Minute, func(now []*Object) (bool, error) {
		if calls++; calls == 1 {
			events <- `{"type":"ADDED","object":{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"shop"}}}` + "\n"
		}
		return now[0] != nil, nil
	})
	if err != nil || calls != 2 {
		t.Errorf("%v after %d calls", err, calls)
	}
	err = c.WaitFor(t.Context(), []Ref{web}, time.Millisecond, func([]*Object) (bool, error) { return false, nil })
	if !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), "deployment.apps/web in shop: does not exist") {
		t.Errorf("got %v", err)
	}
}

// A server that denies having the core group, or any other, is not believed.
func TestDiscoveryOfHalfAServer(t *testing.T) {
	for _, gone := range []string{"/api", "/apis"} {
		t.Run(gone, func(t *testing.T) {
			whole := fakeServer(t, func(w http.ResponseWriter, _ *http.Request) {
				answer(w, 404, "NotFound", "the server could not find the requested resource", "")
			})
			half := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == gone {
					http.NotFound(w, r)
					return
				}
				whole.Config.Handler.ServeHTTP(w, r)
			}))
			t.Cleanup(half.Close)
			c := client(t, half.URL, ClientOptions{})
			_, all := c.Resources(t.Context())
			_, one := c.Resolve(t.Context(), "deployments")
			_, kind := c.ResourceFor(t.Context(), web.GVK())
			for what, err := range map[string]error{"resources": all, "name": one, "kind": kind} {
				if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "under "+gone+",") {
					t.Errorf("%s: %v", what, err)
				}
			}
			c = client(t, whole.URL, ClientOptions{})
			if r, err := c.Resources(t.Context()); err != nil || len(r) != 3 {
				t.Errorf("the whole server: %v, %v", r, err)
			}
		})
	}
}
