package lib

import (
	"context"
	"sort"
	"strings"
	"testing"
	"time"

	kerrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// simulated is a mesh on the simulated cluster with the real injector: the
// linked render, re-tagged as spec's version.
func simulated(t testing.TB, inj sim.Injector, spec mesh.Spec) *sim.Cluster {
	t.Helper()
	c, err := sim.New(sim.Options{Seed: spec.Seed, Controllers: controllers.All(), Injector: inj})
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	objs := mesh.Build(spec, mesh.Retag(linked(t, RenderOptions{}), LinkedVersion, spec.Istio))
	isCRD := func(o *unstructured.Unstructured) bool { return o.GetKind() == "CustomResourceDefinition" }
	sort.SliceStable(objs, func(i, j int) bool { return isCRD(objs[i]) && !isCRD(objs[j]) })
	for i, o := range objs {
		if i > 0 && isCRD(objs[i-1]) && !isCRD(o) {
			c.Advance(time.Minute) // they become Established
		}
		gvr, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
		if o.GetKind() == "Gateway" {
			gvr.Resource = "gateways" // guessed as gatewaies
		}
		var into dynamic.ResourceInterface = client.Resource(gvr)
		if ns := o.GetNamespace(); ns != "" {
			into = client.Resource(gvr).Namespace(ns)
		}
		_, err := into.Create(context.Background(), o, metav1.CreateOptions{})
		if err != nil && !kerrors.IsAlreadyExists(err) {
			t.Fatalf("%s: %v", objectID(o), err)
		}
	}
	c.Advance(10 * time.Minute)
	return c
}

func TestSimulatedMesh(t *testing.T) {
	guardHome(t)
	spec := mesh.Default()
	c := simulated(t, NewInjector(), spec)
	injected := 0
	for _, o := range c.Objects() {
		if o.GetKind() != "Pod" || o.GetAnnotations()["sidecar.istio.io/status"] == "" {
			continue
		}
		injected++
		proxy := containerNamed(t, o, "initContainers", "istio-proxy")
		if proxy == nil {
			proxy = containerNamed(t, o, "containers", "istio-proxy")
		}
		if proxy == nil || !strings.HasSuffix(proxy["image"].(string), "/proxyv2:"+spec.Istio) {
			t.Fatalf("pod %s/%s: proxy %v", o.GetNamespace(), o.GetName(), proxy)
		}
		if phase, _, _ := unstructured.NestedString(o.Object, "status", "phase"); phase != "Running" {
			t.Errorf("pod %s/%s is %s", o.GetNamespace(), o.GetName(), phase)
		}
	}
	if injected < spec.Workloads {
		t.Errorf("%d injected pods of %d workloads", injected, spec.Workloads)
	}

	ms, err := Precheck(context.Background(), c.Config(), PrecheckOptions{Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		if m.Level == LevelError {
			t.Errorf("precheck of a healthy mesh: %v", m)
		}
	}
	ms, err = Analyze(context.Background(), c.Config(), AnalyzeOptions{Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		if m.Level == LevelError {
			t.Errorf("analysis of a healthy mesh: %v", m)
		}
	}
}

func TestSimulatedFindings(t *testing.T) {
	c, err := sim.New(sim.Options{KubernetesVersion: "v1.30.1"})
	if err != nil {
		t.Fatal(err)
	}
	ms, err := Precheck(context.Background(), c.Config(), PrecheckOptions{Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if len(ms) == 0 || !strings.Contains(ms[0].Text, "v1.30.1") {
		t.Errorf("old Kubernetes not found: %v", ms)
	}
}

// BenchmarkSimulatedPrecheck is one precheck of a mesh of 60 workloads.
func BenchmarkSimulatedPrecheck(b *testing.B) {
	c := simulated(b, NewInjector(), mesh.Default())
	for b.Loop() {
		if _, err := Precheck(context.Background(), c.Config(), PrecheckOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSimulatedAnalyze is one analysis of a mesh of 60 workloads.
func BenchmarkSimulatedAnalyze(b *testing.B) {
	c := simulated(b, NewInjector(), mesh.Default())
	for b.Loop() {
		if _, err := Analyze(context.Background(), c.Config(), AnalyzeOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSimulatedMesh builds a mesh of 60 workloads, injection included.
func BenchmarkSimulatedMesh(b *testing.B) {
	inj := NewInjector()
	for b.Loop() {
		simulated(b, inj, mesh.Default())
	}
}
