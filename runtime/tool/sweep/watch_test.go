package sweep

import (
	"context"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/cluster"
)

func clientOf(t *testing.T, p *process) *cluster.Client {
	t.Helper()
	cfg := p.w.sim.Config()
	cfg.Transport = wire{p, cfg.Transport}
	c, err := cluster.New(cfg, contextName, p.w.sim.Clock(), cluster.ClientOptions{Watch: p.plan.watching})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What a watch says is seen at once. When it goes wrong, a wait notices: at once
// where the connection ends, and where it only falls silent when it looks anew.
func TestFaultsOfWatches(t *testing.T) {
	for _, c := range []struct {
		fault       string
		least, most time.Duration // until the wait ends
		watches     int           // at least
	}{
		{"", 0, 5 * time.Second, 1},
		{"cut", 0, 10 * time.Second, 1},
		{"expired", 0, 10 * time.Second, 1},
		{"stall", 25 * time.Second, 2 * time.Minute, 1},
	} {
		t.Run("fault "+c.fault, func(t *testing.T) {
			w := emptyWorld(t)
			pl := plan{watching: true}
			if c.fault != "" {
				pl.cutAt, pl.watchFault = 1, watchFaults[c.fault]
			}
			p := &process{w: w, plan: pl}
			began, asked := w.sim.Clock().Now(), 0
			err := clientOf(t, p).WaitFor(t.Context(), []cluster.Ref{{Version: "v1", Kind: "ConfigMap", Namespace: "default", Name: "a"}}, time.Hour,
				func(now []*cluster.Object) (bool, error) {
					if asked++; asked == 1 {
						return false, create(t.Context(), w, "a")
					}
					return now[0] != nil, nil
				})
			took := w.sim.Clock().Now().Sub(began)
			if err != nil || took < c.least || took > c.most {
				t.Errorf("%v after %s, want one to %s to %s", err, took, c.least, c.most)
			}
			if (p.struck != "") != (c.fault != "") || p.watches < c.watches {
				t.Errorf("struck %q; %d watches", p.struck, p.watches)
			}
		})
	}
}

// create makes a ConfigMap as somebody else.
func create(ctx context.Context, w *world, name string) error {
	c, err := cluster.New(w.sim.Config(), contextName, w.sim.Clock(), cluster.ClientOptions{})
	if err != nil {
		return err
	}
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name, "namespace": "default"},
	}}
	_, err = c.Create(ctx, o, cluster.WriteOptions{})
	return err
}
