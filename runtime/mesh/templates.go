package mesh

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
)

// Template is the pod template of a workload that says itself how its pods are
// to be injected; its pods need not be running.
type Template struct {
	Owner  cluster.Ref
	Labels map[string]string
}

// templated are the kinds that make pods, and where their template is.
var templated = []struct {
	gvk  schema.GroupVersionKind
	path []string
}{
	{deployments, []string{"spec", "template"}},
	{schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "StatefulSet"}, []string{"spec", "template"}},
	{schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "DaemonSet"}, []string{"spec", "template"}},
	{schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: "CronJob"}, []string{"spec", "jobTemplate", "spec", "template"}},
	{schema.GroupVersionKind{Group: "argoproj.io", Version: "v1alpha1", Kind: "Rollout"}, []string{"spec", "template"}},
}

// Templates lists the pod templates that bear injection labels of their own, of
// all namespaces. Workloads are paged, projected and dropped.
func Templates(ctx context.Context, r cluster.Reader) ([]Template, error) {
	var out []Template
	for _, kind := range templated {
		err := list(ctx, r, kind.gvk, cluster.ListOptions{}, func(o *cluster.Object) error {
			l, _, err := unstructured.NestedStringMap(o.Object, append(kind.path, "metadata", "labels")...)
			if err == nil && (l[LabelRev] != "" || l[LabelPodInject] != "") {
				out = append(out, Template{Owner: cluster.RefOf(o), Labels: l})
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("pod templates: %w", err)
		}
	}
	return out, nil
}
