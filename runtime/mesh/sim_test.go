package mesh_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	utilyaml "sigs.k8s.io/yaml"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/mesh"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	simmesh "rutter.dev/rutter/runtime/sim/mesh"
)

// generated is a simulated mesh of 1.30.3 with its controllers, every kind of
// workload that an upgrade trips over in it.
func generated(t *testing.T) *cluster.Client {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "sim", "mesh", "testdata", "small-1.31.0.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var objs []*cluster.Object
	for _, doc := range strings.Split(string(raw), "\n---\n") {
		o := &cluster.Object{}
		if err := utilyaml.Unmarshal([]byte(doc), &o.Object); err != nil {
			t.Fatal(err)
		}
		if len(o.Object) > 0 {
			objs = append(objs, o)
		}
	}
	s, err := sim.New(sim.Options{Seed: 1, Controllers: controllers.All(), Injector: simmesh.StubInjector{}, InjectOnLoad: true})
	if err != nil {
		t.Fatal(err)
	}
	spec := simmesh.Spec{Istio: "1.30.3", Workloads: 20, Namespaces: 4, Nodes: 3, Seed: 1, SingleReplica: 2, OnDelete: 1, NoSidecar: 2, BarePods: 1}
	if err := simmesh.Populate(s, simmesh.Build(spec, simmesh.Retag(objs, "1.31.0", "1.30.3"))); err != nil {
		t.Fatal(err)
	}
	if err := s.Clock().Sleep(t.Context(), 5*time.Minute); err != nil { // of its own time: until all is ready
		t.Fatal(err)
	}
	c, err := cluster.New(s.Config(), "sim", s.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCensusOfAMesh(t *testing.T) {
	c := generated(t)
	planes, err := mesh.ControlPlanes(t.Context(), c)
	if err != nil || len(planes) != 1 || !planes[0].Ready || planes[0].Version != "1.30.3" {
		t.Fatalf("control planes %+v, %v", planes, err)
	}
	px, err := mesh.Census(t.Context(), c, mesh.CensusOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kinds, owners := map[mesh.Kind]int{}, map[string]int{}
	for _, p := range px {
		kinds[p.Kind]++
		owners[p.Owner.Kind]++
		if p.Version != "1.30.3" || p.Revision != mesh.DefaultRevision || !p.Ready {
			t.Errorf("%+v", p)
		}
	}
	// The stub that injects here makes sidecars of gateways too.
	ingress := func(p mesh.Proxy) bool { return p.Owner.Name == "istio-ingressgateway" }
	if kinds[mesh.Sidecar] != len(px) || !slices.ContainsFunc(px, ingress) {
		t.Errorf("kinds %v of %d proxies", kinds, len(px))
	}
	// Pods of a Deployment belong to it, not to its ReplicaSet; bare ones to themselves.
	if owners["ReplicaSet"] != 0 || owners["Deployment"] == 0 || owners["Pod"] != 1 {
		t.Errorf("owners %v", owners)
	}
	if !slices.IsSortedFunc(px, func(a, b mesh.Proxy) int { return strings.Compare(a.Namespace+"\x00"+a.Pod, b.Namespace+"\x00"+b.Pod) }) {
		t.Error("the census is not sorted")
	}
	ns := px[len(px)-1].Namespace
	some, err := mesh.Census(t.Context(), c, mesh.CensusOptions{Namespaces: []string{ns}})
	if err != nil || len(some) == 0 || len(some) >= len(px) || slices.ContainsFunc(some, func(p mesh.Proxy) bool { return p.Namespace != ns }) {
		t.Errorf("census of %s: %d of %d, %v", ns, len(some), len(px), err)
	}
}

func TestOutdatedOfAMesh(t *testing.T) {
	c := generated(t)
	if out, err := mesh.Outdated(t.Context(), c); err != nil || len(out) != 0 {
		t.Fatalf("before: %v, %v", out, err)
	}
	ref := cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: "istio-system", Name: "istio-sidecar-injector"}
	cm, err := c.Get(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	data := cm.Object["data"].(map[string]any)
	data["values"] = strings.ReplaceAll(data["values"].(string), "1.30.3", "1.31.0")
	if _, err := c.Replace(t.Context(), cm, cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	px, err := mesh.Census(t.Context(), c, mesh.CensusOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := mesh.Outdated(t.Context(), c)
	if err != nil || len(out) == 0 {
		t.Fatalf("after: %v, %v", out, err)
	}
	pods := 0
	for _, w := range out {
		pods += w.Pods
		if w.From != "1.30.3" || w.To != "1.31.0" || w.Why() != "its proxy is 1.30.3, injection gives 1.31.0 now" {
			t.Errorf("%+v", w)
		}
	}
	if pods > len(px) || pods < len(px)/2 {
		t.Errorf("%d of %d proxies are outdated", pods, len(px))
	}
	// What no injector selects any more would lose its sidecar by a restart.
	gone := out[0].Ref.Namespace
	if _, err := c.Patch(t.Context(), cluster.Ref{Version: "v1", Kind: "Namespace", Name: gone}, "application/merge-patch+json",
		[]byte(`{"metadata":{"labels":{"istio-injection":null,"istio.io/rev":null}}}`), cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	less, err := mesh.Outdated(t.Context(), c)
	if err != nil || slices.ContainsFunc(less, func(w mesh.Workload) bool {
		return w.Ref.Namespace == gone && w.Kind == mesh.Sidecar && w.Ref.Kind != "Pod"
	}) {
		t.Errorf("without injection in %s: %v, %v", gone, less, err)
	}
}
