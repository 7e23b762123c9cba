package lib

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/analysis/analyzers/maturity"
	"istio.io/istio/pkg/config/schema/gvk"

	"rutter.dev/rutter/runtime/cluster"
	census "rutter.dev/rutter/runtime/mesh"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// What is read lean is all that the precheck's analyzer reads: a library that
// looks at more has to be read again.
func TestThePrecheckReadsWhatIsLean(t *testing.T) {
	inputs := (&maturity.AlphaAnalyzer{}).Metadata().Inputs
	if want := []config.GroupVersionKind{gvk.Namespace, gvk.Service, gvk.Pod, gvk.Deployment}; !slices.Equal(inputs, want) {
		t.Errorf("the analyzer reads %v, not %v", inputs, want)
	}
	if len(leanKinds) != len(inputs) {
		t.Errorf("%d kinds are read lean, of %d", len(leanKinds), len(inputs))
	}
}

// A precheck by a reader finds what one by the library's own client finds.
func TestALeanPrecheckFindsTheSame(t *testing.T) {
	guardHome(t)
	spec := mesh.Default()
	spec.Workloads = 6
	c := simulated(t, NewInjector(), spec)
	r, err := cluster.New(c.Config(), "sim", c.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	marked := 0
	for _, o := range c.Objects() {
		if k := o.GetKind(); k != "Pod" && k != "Service" && k != "Deployment" && k != "Namespace" || o.GetNamespace() == "kube-system" {
			continue
		}
		patch := `{"metadata":{"annotations":{"sidecar.istio.io/interceptionMode":"REDIRECT","networking.istio.io/exportTo":"*"}}}`
		if _, err := r.Patch(t.Context(), cluster.RefOf(o), "application/merge-patch+json", []byte(patch), cluster.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		marked++
	}
	pods := &Pods{}
	if _, err := census.Census(t.Context(), r, census.CensusOptions{Each: pods.Add}); err != nil {
		t.Fatal(err)
	}
	var found [3][]Message
	for i, o := range []PrecheckOptions{{}, {Reader: r}, {Reader: r, Pods: pods}} {
		if found[i], err = Precheck(t.Context(), c.Config(), o); err != nil {
			t.Fatal(err)
		}
	}
	if marked == 0 || !slices.Equal(found[0], found[1]) || !slices.Equal(found[0], found[2]) || !slices.ContainsFunc(found[0], func(m Message) bool { return strings.HasPrefix(m.Resource, "Pod ") }) {
		t.Errorf("%d objects marked; whole:\n%v\nlean:\n%v\nof pods that were listed:\n%v", marked, found[0], found[1], found[2])
	}
}

// refusing is a reader that may not list.
type refusing struct{ cluster.Reader }

var errRefused = errors.New("not for you")

func (refusing) List(context.Context, cluster.Resource, cluster.ListOptions, func(*cluster.Object) error) error {
	return errRefused
}

func TestALeanPrecheckEndsWhereItMayNotList(t *testing.T) {
	guardHome(t)
	c := simulated(t, NewInjector(), mesh.Spec{Istio: "1.30.3", Nodes: 1, Namespaces: 1, Seed: 1})
	r, err := cluster.New(c.Config(), "sim", c.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Precheck(t.Context(), c.Config(), PrecheckOptions{Reader: refusing{r}}); !errors.Is(err, errRefused) {
		t.Errorf("got %v", err)
	}
}

func TestALeanPodNamesItsInitContainers(t *testing.T) {
	pod := leanPod(metav1.ObjectMeta{Name: "a"}, &cluster.Object{Object: map[string]any{"spec": map[string]any{"initContainers": []any{map[string]any{"name": "istio-init", "image": "x"}}}}})
	if got := pod.(*corev1.Pod).Spec.InitContainers; len(got) != 1 || got[0].Name != "istio-init" {
		t.Errorf("got %v", got)
	}
}
