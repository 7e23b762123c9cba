package mesh

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
)

// Template is the pod template of a workload that says itself how its pods are
// to be injected, or that already holds what an injector puts into pods; its pods
// need not be running.
type Template struct {
	Owner  cluster.Ref
	Labels map[string]string
	// Injected is an init container of Istio's that the template has by itself,
	// and of which it does not say that an injector made it.
	Injected string
}

// TemplatedKind is a kind that makes pods, and where in it their template is.
type TemplatedKind struct {
	GVK  schema.GroupVersionKind
	Path []string
}

// TemplatedKinds are the kinds whose objects make pods of a template that a person
// writes.
func TemplatedKinds() []TemplatedKind {
	template := []string{"spec", "template"}
	return []TemplatedKind{
		{deployments, template},
		{schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "StatefulSet"}, template},
		{schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "DaemonSet"}, template},
		{schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: "CronJob"}, []string{"spec", "jobTemplate", "spec", "template"}},
		{schema.GroupVersionKind{Group: "argoproj.io", Version: "v1alpha1", Kind: "Rollout"}, template},
	}
}

// Templates lists the pod templates that bear injection labels of their own, and
// those that hold a sidecar already, of all namespaces. Workloads are paged,
// projected and dropped.
func Templates(ctx context.Context, r cluster.Reader) ([]Template, error) {
	var out []Template
	for _, kind := range TemplatedKinds() {
		err := list(ctx, r, kind.GVK, cluster.ListOptions{}, func(o *cluster.Object) error {
			l, _, err := unstructured.NestedStringMap(o.Object, slices.Concat(kind.Path, []string{"metadata", "labels"})...)
			if err != nil {
				return err
			}
			held, err := injectedInto(o, kind.Path)
			if l[LabelRev] != "" || l[LabelPodInject] != "" || held != "" {
				out = append(out, Template{Owner: cluster.RefOf(o), Labels: l, Injected: held})
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("pod templates: %w", err)
		}
	}
	return out, nil
}

// injectedInto names an init container by which an injector once set up the network
// of a pod, and that the template at path holds by itself. Somebody who only changes
// what is injected gives it the image "auto" or none. Where the annotation of the
// injection is there too, Istio takes its containers out before it injects again
// (stripPod in istio/pkg/kube/inject), and nothing is found.
func injectedInto(o *cluster.Object, path []string) (string, error) {
	notes, _, err := unstructured.NestedStringMap(o.Object, slices.Concat(path, []string{"metadata", "annotations"})...)
	if err != nil || notes[AnnotationStatus] != "" {
		return "", err
	}
	for _, name := range []string{"istio-init", "istio-validation"} {
		image := text(container(o, name, slices.Concat(path, []string{"spec", "initContainers"})...), "image")
		if image != "" && image != "auto" {
			return name, nil
		}
	}
	return "", nil
}
