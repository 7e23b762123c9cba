package lib

import (
	"context"
	"net/http"
	"runtime"
	"testing"
	"time"
	"weak"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"

	"istio.io/istio/pkg/kube/kclient"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// held is a connection of which the garbage collector can tell whether it is
// still reachable.
type held struct{ next http.RoundTripper }

func (h *held) RoundTrip(r *http.Request) (*http.Response, error) { return h.next.RoundTrip(r) }

// The precheck command leaves goroutines behind that hold its client. They must
// not hold the connection, nor the context, and what lies behind them.
func TestPrecheckLetsGoOfTheCluster(t *testing.T) {
	guardHome(t)
	spec := mesh.Default()
	spec.Workloads = 2
	c := simulated(t, NewInjector(), spec)
	conn, caller, reader, pods := precheckOnce(t, c.Config(), c.Clock())
	deadline := time.Now().Add(20 * time.Second)
	for conn.Value() != nil || caller.Value() != nil || reader.Value() != nil || pods.Value() != nil {
		if time.Now().After(deadline) {
			t.Fatalf("after the precheck its connection is held: %t, its context: %t, its reader: %t, its pods: %t", conn.Value() != nil, caller.Value() != nil, reader.Value() != nil, pods.Value() != nil)
		}
		runtime.GC()
		runtime.Gosched()
	}
}

// precheckOnce runs a precheck and returns what may be collected afterwards.
func precheckOnce(t *testing.T, rc *rest.Config, clock env.Clock) (weak.Pointer[held], weak.Pointer[held], weak.Pointer[cluster.Client], weak.Pointer[Pods]) {
	h, who := &held{rc.Transport}, &held{}
	rc.Transport = h
	r, err := cluster.New(rc, "sim", clock, cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pods := &Pods{}
	if _, err := Precheck(context.WithValue(context.Background(), held{}, who), rc, PrecheckOptions{Reader: r, Pods: pods}); err != nil {
		t.Fatal(err)
	}
	return weak.Make(h), weak.Make(who), weak.Make(r), weak.Make(pods)
}

// Nor do they hold the pods of the mesh, which the client had in its cache.
func TestASessionEmptiesItsCaches(t *testing.T) {
	guardHome(t)
	spec := mesh.Default()
	spec.Workloads = 2
	c := simulated(t, NewInjector(), spec)
	s, err := newSession(t.Context(), c.Config(), "default", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	pods := kclient.New[*corev1.Pod](s)
	s.RunAndWait(nil)
	if len(pods.List("", labels.Everything())) == 0 {
		t.Fatal("the session saw no pods")
	}
	s.close()
	deadline := time.Now().Add(20 * time.Second)
	for n := -1; n != 0; n = len(pods.List("", labels.Everything())) {
		if time.Now().After(deadline) {
			t.Fatalf("the session is closed and holds %d pods", n)
		}
		runtime.Gosched()
	}
}

// What the API server warns of goes where the caller's own client says it to.
func TestSessionKeepsTheWarningHandler(t *testing.T) {
	guardHome(t)
	var said []string
	c := simulated(t, NewInjector(), mesh.Spec{Istio: "1.30.3", Nodes: 1, Namespaces: 1, Seed: 1})
	rc := c.Config()
	rc.WarningHandler = warned(func(text string) { said = append(said, text) })
	s, err := newSession(t.Context(), rc, "default", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := s.Kube().CoreV1().Endpoints("default").List(t.Context(), metav1.ListOptions{}); err != nil { //nolint:staticcheck // it is what is warned of
		t.Fatal(err)
	}
	if len(said) == 0 {
		t.Error("nothing was said of a deprecated kind")
	}
}

type warned func(string)

func (w warned) HandleWarningHeader(_ int, _, text string) { w(text) }
