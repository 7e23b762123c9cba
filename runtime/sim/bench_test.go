package sim_test

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rutter.dev/rutter/runtime/sim"
)

// BenchmarkRequests measures requests through client-go over the in-memory
// transport. The goal is 5,000 simple requests a second on two cores.
func BenchmarkRequests(b *testing.B) {
	c, d := newCluster(b, sim.Options{})
	_ = c
	cm := d.Resource(configMaps).Namespace("shop")
	must(b)(cm.Create(b.Context(), configMap("one", object{"k": "v"}), metav1.CreateOptions{}))
	dep := d.Resource(deployments).Namespace("shop")
	n := 0
	for _, bm := range []struct {
		name string
		f    func() error
	}{
		{"get", func() error { _, err := cm.Get(b.Context(), "one", metav1.GetOptions{}); return err }},
		{"create", func() error {
			n++
			_, err := cm.Create(b.Context(), configMap(fmt.Sprint("c-", n), object{"k": "v"}), metav1.CreateOptions{})
			return err
		}},
		{"apply deployment", func() error {
			n++
			_, err := dep.Apply(b.Context(), "web", deployment("web", object{"name": "app", "image": fmt.Sprint("web:", n)}), apply("bench", true))
			return err
		}},
		{"list 100 deployments", func() error { _, err := dep.List(b.Context(), metav1.ListOptions{Limit: 100}); return err }},
	} {
		b.Run(bm.name, func(b *testing.B) {
			for b.Loop() {
				if err := bm.f(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
		})
	}
}
