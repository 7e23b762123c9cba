package sim

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	grJobs      = schema.GroupResource{Group: "batch", Resource: "jobs"}
	grEndpoints = schema.GroupResource{Resource: "endpoints"}
	grSlices    = schema.GroupResource{Group: "discovery.k8s.io", Resource: "endpointslices"}
)

// selectPods gives a new Job the labels and the selector by which it finds its
// pods, unless it has a selector of its own (kubernetes/pkg/registry/batch/job,
// generateSelector).
func selectPods(job *unstructured.Unstructured) {
	spec, _ := job.Object["spec"].(map[string]any)
	template, _ := spec["template"].(map[string]any)
	if template == nil || spec["manualSelector"] == true || spec["selector"] != nil {
		return
	}
	uid := string(job.GetUID())
	spec["selector"] = map[string]any{"matchLabels": map[string]any{"batch.kubernetes.io/controller-uid": uid}}
	mine := map[string]string{
		"batch.kubernetes.io/controller-uid": uid, "controller-uid": uid,
		"batch.kubernetes.io/job-name": job.GetName(), "job-name": job.GetName(),
	}
	pods := &unstructured.Unstructured{Object: template}
	for _, o := range []*unstructured.Unstructured{job, pods} {
		labels := o.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		for k, v := range mine {
			labels[k] = v
		}
		o.SetLabels(labels)
	}
}
