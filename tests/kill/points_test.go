package kill

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/lock"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
)

// small is a runbook that does a bit of everything, in little time.
const small = `"""A bit of everything."""

runbook(name = "small", version = "1.0.0")

OBJECTS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: made, namespace: default}
data: {a: "1"}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: made, namespace: default}
"""

def run(p):
    step("patch", kube.patch, "cm/settings", {"data": {"a": "2"}}, namespace = "default")
    step("word", kube.patch, "secret/token", {"data": {"word": "b3RoZXI="}}, namespace = "default")
    step("review", diff.live, OBJECTS)
    approve("apply them")
    step("apply", kube.apply, OBJECTS)
    step("scale", kube.patch, "deploy/a", {"spec": {"replicas": 2}}, namespace = "default")
    step("scaled", kube.wait, "deploy/a", namespace = "default", timeout = "10m")
    step("delete", kube.delete, "cm/settings", namespace = "default")
`

const smallWorld = `
{apiVersion: v1, kind: Namespace, metadata: {name: istio-system}}
---
{apiVersion: v1, kind: Node, metadata: {name: node-1}, status: {allocatable: {cpu: "8", memory: 16Gi, pods: "100"}}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: default}, data: {a: "1"}}
---
{apiVersion: v1, kind: Secret, metadata: {name: token, namespace: default}, data: {word: bm9ib2R5IG1heSByZWFkIHRoaXM=}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, namespace: default}, spec: {selector: {matchLabels: {app: a}},
  template: {metadata: {labels: {app: a}}, spec: {containers: [{name: app, image: app}]}}}}
`

// point is a moment at which a process is killed.
type point struct {
	request int // from 1: its nth request, or
	event   int // from 1: when it has said its nth event
	after   bool
}

func (p point) String() string {
	switch {
	case p.event > 0:
		return fmt.Sprintf("event %d", p.event)
	case p.after:
		return fmt.Sprintf("request %d, answered to nobody", p.request)
	}
	return fmt.Sprintf("request %d, sent to nobody", p.request)
}

// gatekeeper is between processes and a simulated cluster, on a socket.
type gatekeeper struct {
	c       *sim.Cluster
	at      point
	n       atomic.Int64
	victim  chan *exec.Cmd // whom to kill
	dead    chan struct{}  // it is
	handler http.Handler
}

// ServeHTTP implements http.Handler.
func (g *gatekeeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if n := g.n.Add(1); g.at.request == 0 || n != int64(g.at.request) {
		g.handler.ServeHTTP(w, r)
		return
	}
	if g.at.after && r.URL.Query().Get("watch") == "" {
		g.handler.ServeHTTP(httptest.NewRecorder(), r)
	}
	_ = (<-g.victim).Process.Kill() // ended already: the test counts who was killed
	<-g.dead
	panic(http.ErrAbortHandler)
}

// site is a place with a cluster of its own.
type site struct {
	*place
	*gatekeeper
	kubeconfig, runbook string
}

// newSite serves a clone of the cluster, whose time passes quickly.
func newSite(t *testing.T, before *sim.Cluster, at point) *site {
	t.Helper()
	s := &site{place: newPlace(t, t.TempDir()), gatekeeper: &gatekeeper{c: before.Clone(), at: at, victim: make(chan *exec.Cmd, 1), dead: make(chan struct{})}}
	s.handler = s.c.Handler()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	srv := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute, BaseContext: func(net.Listener) context.Context { return ctx }}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("the server ended: %v", err)
		}
	})
	wg.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.c.Advance(time.Second)
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
	s.kubeconfig, s.runbook = filepath.Join(s.dir, "kubeconfig"), filepath.Join(s.dir, "small.star")
	if err := os.WriteFile(s.kubeconfig, s.c.Kubeconfig(l.Addr().String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.runbook, []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) begin(tight bool) *process {
	s.t.Helper()
	return s.start(tight, "run", s.runbook, "--kubeconfig", s.kubeconfig, "--yes")
}

// changes are the requests that changed something, sorted: each verb and object
// as often as the server granted it. The lock's Lease and reviews are not the run's.
func (s *site) changes() []string {
	var out []string
	for _, r := range s.c.Requests() {
		switch r.Verb {
		case "get", "list", "watch":
			continue
		}
		if r.DryRun || r.Code >= 300 || r.Group == "coordination.k8s.io" || r.Group == "authorization.k8s.io" {
			continue
		}
		out = append(out, fmt.Sprintf("%s %s %s/%s", r.Verb, r.Resource, r.Namespace, r.Name))
	}
	slices.Sort(out)
	return out
}

// outcome is how a site is left once all is done.
func (s *site) outcome(run string) *world {
	s.t.Helper()
	s.c.Advance(settle)
	w := &world{objects: normalized(s.c.Objects()), journal: s.journal(run)}
	for k := range w.objects {
		if strings.HasPrefix(k, "Lease.") {
			delete(w.objects, k)
		}
	}
	return w
}

// TestKilledAtAHundredPoints kills the process at its requests, just before the
// server gets one and just before the answer to one comes back, and at its
// events. Whatever it left on the disk, another process finishes the run, and
// the server has made every change once.
func TestKilledAtAHundredPoints(t *testing.T) {
	before, err := sim.New(sim.Options{Seed: 1, Controllers: controllers.All()})
	if err != nil {
		t.Fatal(err)
	}
	objects, err := sim.ReadObjects(strings.NewReader(smallWorld), "objects")
	if err != nil {
		t.Fatal(err)
	}
	if err := before.Load(objects); err != nil {
		t.Fatal(err)
	}
	before.Advance(time.Minute)
	whole := newSite(t, before, point{})
	events := len(whole.begin(false).must(0).events)
	requests := int(whole.n.Load())
	want, changes := whole.outcome(whole.only()), whole.changes()
	if len(changes) < 6 || len(changes) != len(want.journal.effects) {
		t.Fatalf("the run made %v by %v", want.journal.whats(), changes)
	}
	var killed, doubts, fresh atomic.Int64
	t.Run("at", func(t *testing.T) {
		for _, at := range points(requests, events) {
			t.Run(at.String(), func(t *testing.T) {
				t.Parallel()
				s := newSite(t, before, at)
				if !s.killed() {
					return // it came to its end before: how many requests there are is not quite fixed
				}
				killed.Add(1)
				run, j := s.left()
				if j.begun {
					atMostOnce(t, j)
					doubts.Add(int64(j.doubts()))
					s.start(false, "resume", run, "--yes").must(0)
				} else {
					fresh.Add(1)
					s.expire()
					x := s.begin(false).must(0)
					run = x.run()
				}
				got := s.outcome(run)
				same(t, got, want)
				if n := s.changes(); !slices.Equal(n, changes) {
					t.Errorf("the server was made to change\n  %s\nwant\n  %s", strings.Join(n, "\n  "), strings.Join(changes, "\n  "))
				}
			})
		}
	})
	t.Logf("%d requests, %d events: %d killed, %d of them before the run began; %d effects in doubt", requests, events, killed.Load(), fresh.Load(), doubts.Load())
	if killed.Load() < 100 && !testing.Short() {
		t.Errorf("%d processes were killed, and a hundred should be", killed.Load())
	}
	if doubts.Load() == 0 {
		t.Error("no kill left an effect in doubt")
	}
}

// expire takes away a Lease that the dead process may have left. It would run out
// by itself, a minute later; nobody was told its nonce.
func (s *site) expire() {
	s.t.Helper()
	c, err := cluster.New(s.c.Config(), "sim", env.SystemClock{}, cluster.ClientOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	lease := cluster.Ref{Group: "coordination.k8s.io", Version: "v1", Kind: "Lease", Namespace: "istio-system", Name: lock.Name}
	if err := c.Delete(s.t.Context(), lease, cluster.WriteOptions{}); err != nil && !errors.Is(err, cluster.ErrNotFound) {
		s.t.Fatal(err)
	}
}

// points are spread evenly: some for requests, on both sides of the server, and
// some for events.
func points(requests, events int) []point {
	of := 80
	if testing.Short() {
		of = 20
	}
	seen := map[point]bool{}
	for i := range of {
		n := i * 2 * (requests - 2) / of // the last ones may not come
		seen[point{request: 1 + n/2, after: n%2 == 1}] = true
	}
	for i := range of / 3 {
		seen[point{event: 1 + i*(events-1)/(of/3)}] = true
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b point) int { return strings.Compare(a.String(), b.String()) })
}

// killed starts the run and reports whether it was killed at the point.
func (s *site) killed() bool {
	s.t.Helper()
	x := s.begin(s.at.event > 0)
	if s.at.event > 0 {
		x.until(func(e ev) bool { return e.Index == s.at.event-1 })
		x.kill()
		return !x.cmd.ProcessState.Success()
	}
	s.victim <- x.cmd
	code := x.end()
	close(s.dead)
	if code != -1 && code != 0 {
		s.t.Fatalf("exit %d\n%s", code, x.stderr.String())
	}
	return code == -1
}

// left is the run that the killed process left, if it came so far. One that
// never began says so.
func (s *site) left() (string, *history) {
	s.t.Helper()
	if _, err := os.Stat(s.state()); errors.Is(err, fs.ErrNotExist) {
		return "", &history{}
	}
	run := s.only()
	j := s.journal(run)
	if !j.begun {
		x := s.start(false, "resume", run, "--yes").must(2)
		if out := x.stderr.String(); !strings.Contains(out, "the run never began") {
			s.t.Errorf("resumed all the same:\n%s", out)
		}
	}
	return run, j
}
