package sim_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"rutter.dev/rutter/runtime/sim"
)

func TestLimit(t *testing.T) {
	c, _ := newCluster(t, sim.Options{})
	dev := c.ConfigFor(sim.User{Name: "dev"})
	c.SetLimit(&sim.Limit{PerSecond: 1, Burst: 2, RetryAfter: 3})
	rt, err := rest.TransportFor(dev)
	if err != nil {
		t.Fatal(err)
	}
	get := func() (int, string, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, dev.Host+"/api", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := rt.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, res.Header.Get("Retry-After"), string(body)
	}
	for i, want := range []int{200, 200, 429} {
		code, after, body := get()
		if code != want || code == 429 && (after != "3" || body != "Too many requests, please try again later.\n") {
			t.Errorf("request %d: %d, Retry-After %q, %q", i, code, after, body)
		}
	}
	if code, _ := ask(t, c.Config(), "GET", "/api", nil); code != 200 {
		t.Errorf("the administrator is exempt: %d", code)
	}
	c.Advance(time.Second)
	if code, _, _ := get(); code != 200 {
		t.Errorf("a second later: %d", code)
	}
	c.SetLimit(nil)
	if code, _, _ := get(); code != 200 {
		t.Errorf("without a limit: %d", code)
	}
}

func TestRestart(t *testing.T) {
	ctx := t.Context()
	c, d := newCluster(t, sim.Options{})
	cm := d.Resource(configMaps).Namespace("shop")
	a := must(t)(cm.Create(ctx, configMap("a", nil), metav1.CreateOptions{}))
	must(t)(cm.Create(ctx, configMap("b", nil), metav1.CreateOptions{}))
	w, err := cm.Watch(ctx, metav1.ListOptions{ResourceVersion: a.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	if e := <-w.ResultChan(); e.Type != watch.Added {
		t.Errorf("%+v", e)
	}
	c.Restart(5 * time.Second)
	if e, open := <-w.ResultChan(); open {
		t.Errorf("the watch goes on: %+v", e)
	}
	if _, err := cm.Get(ctx, "a", metav1.GetOptions{}); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("while it is down: %v", err)
	}
	c.Advance(5 * time.Second)
	must(t)(cm.Get(ctx, "a", metav1.GetOptions{}))
	if w, err = cm.Watch(ctx, metav1.ListOptions{ResourceVersion: a.GetResourceVersion()}); err != nil {
		t.Fatal(err)
	}
	if e := <-w.ResultChan(); e.Type != watch.Error || !apierrors.IsResourceExpired(apierrors.FromObject(e.Object)) {
		t.Errorf("a watch from before: %+v", e)
	}
}

// TestControlPaths drives a served cluster as a person with curl would.
func TestControlPaths(t *testing.T) {
	ctx := t.Context()
	c, err := sim.New(sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(c.Handler())
	defer srv.Close()
	call := func(method, path string, body any, into any, header ...string) int {
		t.Helper()
		var in bytes.Buffer
		if body != nil {
			if err := json.NewEncoder(&in).Encode(body); err != nil {
				t.Fatal(err)
			}
		}
		r, err := http.NewRequestWithContext(ctx, method, srv.URL+path, &in)
		if err != nil {
			t.Fatal(err)
		}
		if len(header) == 2 {
			r.Header.Set(header[0], header[1])
		}
		res, err := srv.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if into != nil {
			if err := json.NewDecoder(res.Body).Decode(into); err != nil {
				t.Fatal(err)
			}
		}
		return res.StatusCode
	}
	var clock struct {
		Now   time.Time
		Speed float64
	}
	before := c.Clock().Now()
	if code := call("POST", "/sim/clock", object{"advance": "15m", "speed": 0}, &clock); code != 200 || !clock.Now.Equal(before.Add(15*time.Minute)) {
		t.Errorf("%d %+v", code, clock)
	}
	if code := call("POST", "/sim/clock", object{"to": before.Add(time.Hour)}, &clock); code != 200 || !c.Clock().Now().Equal(before.Add(time.Hour)) {
		t.Errorf("%d %+v", code, clock)
	}
	for _, bad := range []object{{"to": before}, {"advance": "soon"}, {"speed": -1}, {"nonsense": 1}} {
		if code := call("POST", "/sim/clock", bad, nil); code != 400 {
			t.Errorf("%v: %d", bad, code)
		}
	}
	if code := call("GET", "/sim/clock", nil, nil, "Impersonate-User", "dev"); code != 403 {
		t.Errorf("for anybody: %d", code)
	}
	call("POST", "/sim/faults", object{"Verb": "get", "Resource": "configmaps", "Kind": "throttle", "Times": 1}, nil)
	if code := call("GET", "/api/v1/namespaces/default/configmaps/x", nil, nil); code != 429 {
		t.Errorf("with the fault: %d", code)
	}
	var requests []sim.Request
	if call("GET", "/sim/requests", nil, &requests); len(requests) != 1 || requests[0].Code != 429 || requests[0].User != "kubernetes-admin" {
		t.Errorf("%+v", requests)
	}
	if code := call("GET", "/sim/nothing", nil, nil); code != 404 {
		t.Errorf("an unknown path: %d", code)
	}
}

// TestRestartCutsConnections restarts a served cluster under a client that
// watches.
func TestRestartCutsConnections(t *testing.T) {
	ctx := t.Context()
	c, err := sim.New(sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Serve(ctx, l, sim.ServeOptions{}) }()
	t.Cleanup(func() {
		if err := <-ended; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	d := clientFor(t, &rest.Config{Host: "http://" + l.Addr().String()})
	w, err := d.Resource(namespaces).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if e := <-w.ResultChan(); e.Type != watch.Added {
		t.Errorf("%+v", e)
	}
	c.Restart(0)
	for range w.ResultChan() { // ends, or the test times out
	}
	if _, err := d.Resource(namespaces).Get(ctx, "default", metav1.GetOptions{}); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}

// TestRemoteClock: a person's clock control, and what is no simulated cluster.
func TestRemoteClock(t *testing.T) {
	c, _ := newCluster(t, sim.Options{})
	began := must1(sim.RemoteClock(t.Context(), c.Config(), nil)).Now
	if !began.Equal(c.Clock().Now()) {
		t.Errorf("its time is %v, want %v", began, c.Clock().Now())
	}
	half, to := 0.5, began.Add(time.Hour)
	got, err := sim.RemoteClock(t.Context(), c.Config(), &sim.ClockChange{To: &to, Speed: &half})
	if err != nil || !got.Now.Equal(to) || got.Speed != half || !c.Clock().Now().Equal(to) {
		t.Errorf("moved: %+v, %v", got, err)
	}
	if _, err := sim.RemoteClock(t.Context(), c.Config(), &sim.ClockChange{To: &began}); err == nil || !strings.Contains(err.Error(), "forward only") || !c.Clock().Now().Equal(to) {
		t.Errorf("back: %v, it is %v", err, c.Clock().Now())
	}
	if _, err := sim.RemoteClock(t.Context(), c.ConfigFor(sim.User{Name: "dev"}), nil); !errors.Is(err, sim.ErrNotSimulated) || !strings.Contains(err.Error(), "403") {
		t.Errorf("as somebody: %v", err)
	}
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	if _, err := sim.RemoteClock(t.Context(), &rest.Config{Host: other.URL}, nil); !errors.Is(err, sim.ErrNotSimulated) {
		t.Errorf("another server: %v", err)
	}
}
