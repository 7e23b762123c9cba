package engine_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/event"
)

// BenchmarkEffect reports what the engine costs per effect beside the requests
// that an effect takes (plan's GET, the forecast's dry-run, the refreshing GET,
// the gate's dry-run, the apply), with a journal in memory, so without syncs.
func BenchmarkEffect(b *testing.B) {
	n := max(b.N, 10)
	w := newWorld(b, header+fmt.Sprintf(`
def all():
    for i in range(%d):
        put("e%%d" %% i, "1")

def run(p):
    step("all", all)
`, n))
	o := w.options()
	o.Sink = event.Discard
	b.ResetTimer()
	began := time.Now()
	if err := runOptions(o); err != nil {
		b.Fatal(err)
	}
	whole := time.Since(began)
	b.StopTimer()
	bare := bareRequests(b, w.client, n)
	b.ReportMetric(float64((whole-bare).Microseconds())/float64(n), "overhead-µs/effect")
}

// bareRequests takes the time of the same requests without the engine.
func bareRequests(b *testing.B, c *cluster.Client, n int) time.Duration {
	b.Helper()
	ctx := context.Background()
	began := time.Now()
	for i := range n {
		o := &cluster.Object{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "data": map[string]any{"v": "1"},
			"metadata": map[string]any{"name": fmt.Sprintf("bare%d", i), "namespace": "default"},
		}}
		for range 2 {
			if _, err := c.Get(ctx, cluster.RefOf(o)); !errors.Is(err, cluster.ErrNotFound) {
				b.Fatal(err)
			}
			if _, err := c.DryRunApply(ctx, o, cluster.ApplyOptions{}); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := c.Apply(ctx, o, cluster.ApplyOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(began)
}
