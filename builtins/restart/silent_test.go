package restart

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.starlark.net/starlark"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// After an outage of the API server, Kubernetes calls the pods of every node
// unready until its kubelet is heard again. That is no bad wave.
func TestSilentNodes(t *testing.T) {
	for name, c := range map[string]struct {
		ready string        // what the control plane says of the node
		back  time.Duration // when the node is heard again
		want  string
	}{
		"heard again":       {"Unknown", 4 * time.Minute, ""},
		"never heard again": {"Unknown", time.Hour, "its node node-1 has not reported for 5m0s"},
		"the pod's own":     {"True", time.Hour, "is not ready at the end of the soak"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, mesh.Spec{Istio: "1.30.3", Workloads: 6, Namespaces: 1, Nodes: 1, Seed: 1})
			var workload string
			for _, wi := range w.stale() {
				if wi.ref.Kind == "Deployment" {
					workload = "deploy/" + wi.ref.Name
				}
			}
			r, _, err := w.run("workloads", starlark.Tuple{starlark.NewList([]starlark.Value{starlark.String(workload)})}, kw("namespace", starlark.String("shop")))
			if err != nil || len(r.Restarted) != 1 {
				t.Fatalf("%v, %+v", err, r)
			}
			w.node("node-1", c.ready)
			w.unready("shop", workload, true)
			back := w.sim.Clock().Now().Add(c.back)
			w.clock.each = func() {
				if back.IsZero() || w.sim.Clock().Now().Before(back) {
					return
				}
				back = time.Time{}
				w.node("node-1", "True")
				w.unready("shop", workload, false)
				w.sim.Advance(10 * time.Second)
			}
			w.soaks(r, c.want)
		})
	}
}

// node sets what the control plane says of a node.
func (w *world) node(name, ready string) {
	w.t.Helper()
	body := fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":%q,"reason":"NodeStatusUnknown"}]}}`, ready)
	ref := cluster.Ref{Version: "v1", Kind: "Node", Name: name}
	if _, err := w.client.Patch(context.Background(), ref, types.MergePatchType, []byte(body), cluster.WriteOptions{Subresource: "status"}); err != nil {
		w.t.Fatal(err)
	}
}

// unready makes the pods of a workload unready, or ready again.
func (w *world) unready(namespace, workload string, so bool) {
	w.t.Helper()
	app := "app=" + strings.TrimPrefix(workload, "deploy/")
	res, err := w.client.ResourceFor(context.Background(), cluster.Ref{Version: "v1", Kind: "Pod"}.GVK())
	if err != nil {
		w.t.Fatal(err)
	}
	var pods []cluster.Ref
	if err := w.client.List(context.Background(), res, cluster.ListOptions{Namespace: namespace, Labels: app}, func(o *cluster.Object) error {
		pods = append(pods, cluster.RefOf(o))
		return nil
	}); err != nil || len(pods) == 0 {
		w.t.Fatalf("%d pods: %v", len(pods), err)
	}
	for _, ref := range pods {
		body := fmt.Sprintf(`{"metadata":{"annotations":{"sim.rutter.dev/never-ready":"%v"}}}`, so)
		if _, err := w.client.Patch(context.Background(), ref, types.MergePatchType, []byte(body), cluster.WriteOptions{}); err != nil {
			w.t.Fatal(err)
		}
	}
}
