package sim

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// convertHPA converts a HorizontalPodAutoscaler between autoscaling/v2, which
// is stored, and autoscaling/v1, which knows only the CPU target.
func convertHPA(obj *unstructured.Unstructured, version string) (*unstructured.Unstructured, error) {
	out := obj.DeepCopy()
	out.SetAPIVersion("autoscaling/" + version)
	spec, _ := out.Object["spec"].(map[string]any)
	if spec == nil {
		return out, nil
	}
	status, _ := out.Object["status"].(map[string]any)
	switch version {
	case "v1":
		metrics, _ := spec["metrics"].([]any)
		for _, m := range metrics {
			mm, _ := m.(map[string]any)
			name, _, _ := unstructured.NestedString(mm, "resource", "name")
			if v, ok, _ := unstructured.NestedInt64(mm, "resource", "target", "averageUtilization"); ok && name == "cpu" {
				spec["targetCPUUtilizationPercentage"] = v
			}
		}
		delete(spec, "metrics")
		delete(spec, "behavior")
		if status != nil {
			delete(status, "currentMetrics")
			delete(status, "conditions")
		}
	case "v2":
		if v, ok := spec["targetCPUUtilizationPercentage"]; ok {
			spec["metrics"] = []any{map[string]any{"type": "Resource", "resource": map[string]any{
				"name": "cpu", "target": map[string]any{"type": "Utilization", "averageUtilization": v},
			}}}
			delete(spec, "targetCPUUtilizationPercentage")
		}
		if status != nil {
			delete(status, "currentCPUUtilizationPercentage")
		}
	default:
		return nil, fmt.Errorf("no conversion to autoscaling/%s", version)
	}
	return out, nil
}
