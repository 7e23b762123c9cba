package requests

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
)

// simulated is a new simulated cluster with its controllers and three Nodes,
// as the real one has.
func simulated(t testing.TB, version string) target {
	t.Helper()
	c, err := sim.New(sim.Options{KubernetesVersion: version, Controllers: controllers.All(), Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	var nodes strings.Builder
	for i := range 3 {
		fmt.Fprintf(&nodes, nodeYAML, i, i)
	}
	objs, err := sim.ReadObjects(strings.NewReader(nodes.String()), "nodes")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Load(objs); err != nil {
		t.Fatal(err)
	}
	cfg := c.Config()
	rt, err := rest.TransportFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	tg := target{
		name: "simulated cluster", host: cfg.Host, client: steady{rt}, patience: 480, simulated: true,
		pass:    func(context.Context) error { c.Advance(250 * time.Millisecond); return nil },
		compact: func(context.Context) error { c.Compact(); return nil },
	}
	prepare(t, tg)
	return tg
}

// steady makes an error of a request that the simulated cluster panics over, so
// that the other cases go on.
type steady struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (s steady) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s %s: panic: %v", r.Method, r.URL.Path, p)
		}
	}()
	return s.RoundTripper.RoundTrip(r)
}

const nodeYAML = `---
apiVersion: v1
kind: Node
metadata: {name: node-%d, labels: {kubernetes.io/hostname: node-%d, kubernetes.io/os: linux}}
status:
  addresses: [{type: InternalIP, address: 127.0.0.1}]
  allocatable: {cpu: 1k, memory: 4Ti, pods: 100k}
  capacity: {cpu: 1k, memory: 4Ti, pods: 100k}
  conditions: [{type: Ready, status: "True"}]
`

// prepare makes what all cases share: the CustomResourceDefinitions.
func prepare(t testing.TB, tg target) {
	t.Helper()
	r := &runner{t: t, ctx: t.Context(), target: tg, names: newNames(), kept: map[string]string{}}
	const crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	for _, d := range definitions {
		body := r.encode(&request{method: "POST", path: "customresourcedefinitions"}, kind{plural: "customresourcedefinitions", apiVersion: "apiextensions.k8s.io/v1", kind: "CustomResourceDefinition"}, []byte(d))
		obj, err := decode(body)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.expect("POST", crds, body, http.StatusCreated); err != nil {
			t.Fatal(err)
		}
		plural, _ := lookup(obj, "spec.names.plural").(string)
		name, _ := lookup(obj, "metadata.name").(string)
		if err := r.await(crds+"/"+name, func(_ int, o map[string]any) bool { return holds(o, "status.conditions[Established].status=True") }); err != nil {
			t.Fatal(err)
		}
		// A real server takes a moment more to serve what it has established.
		if err := r.await("/apis/conform.rutter.dev/v1/"+plural, func(code int, _ map[string]any) bool { return code == http.StatusOK }); err != nil {
			t.Fatal(err)
		}
	}
}
