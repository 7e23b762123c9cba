package sim_test

import (
	"reflect"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"rutter.dev/rutter/runtime/sim"
)

func TestCloneIsApart(t *testing.T) {
	c, d := newCluster(t, sim.Options{Seed: 3})
	must(t)(d.Resource(crds).Create(t.Context(), virtualServiceCRD(), metav1.CreateOptions{}))
	must(t)(d.Resource(deployments).Namespace("shop").Create(t.Context(), deployment("web"), metav1.CreateOptions{}))
	before := c.Objects()
	n := c.Clone()
	if !reflect.DeepEqual(n.Objects(), before) {
		t.Fatal("the clone differs")
	}
	nd := dynamic.NewForConfigOrDie(n.Config())
	must(t)(nd.Resource(routes).Namespace("shop").Create(t.Context(), obj("networking.istio.io/v1", "VirtualService", "shop", "v", object{"spec": object{"hosts": []any{"a"}}}), metav1.CreateOptions{}))
	if err := nd.Resource(namespaces).Delete(t.Context(), "shop", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c.Objects(), before) {
		t.Error("a write to the clone reached the original")
	}
}

func TestAutoscalerVersions(t *testing.T) {
	_, d := newCluster(t, sim.Options{})
	v1 := schema.GroupVersionResource{Group: "autoscaling", Version: "v1", Resource: "horizontalpodautoscalers"}
	v2 := v1
	v2.Version = "v2"
	o := obj("autoscaling/v1", "HorizontalPodAutoscaler", "shop", "web", object{"spec": object{
		"maxReplicas": int64(5), "targetCPUUtilizationPercentage": int64(60),
		"scaleTargetRef": object{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
	}})
	must(t)(d.Resource(v1).Namespace("shop").Create(t.Context(), o, metav1.CreateOptions{}))
	got := must(t)(d.Resource(v2).Namespace("shop").Get(t.Context(), "web", metav1.GetOptions{}))
	m, _ := at(got, "spec", "metrics").([]any)
	if len(m) != 1 {
		t.Fatalf("%v", got.Object)
	}
	back := must(t)(d.Resource(v1).Namespace("shop").Get(t.Context(), "web", metav1.GetOptions{}))
	if at(back, "spec", "targetCPUUtilizationPercentage") != int64(60) || at(back, "spec", "metrics") != nil {
		t.Errorf("%v", back.Object)
	}
}
