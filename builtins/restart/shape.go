package restart

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/mesh"
)

// How a workload's pods are replaced.
const (
	howRoll  = "roll"  // by its controller, after a patch of its pod template
	howEvict = "evict" // pod by pod, because its controller waits for that (OnDelete)
)

// shape is what a workload's spec says of how it can be restarted.
type shape struct {
	pods  int // wanted
	batch int // replaced at once
	down  int // that can be missing at once, and so cost disruption budget
	how   string
	no    string // why it can't be restarted by a machine; "" if it can
}

// shapeOf reads the rollout arithmetic of a workload, and what speaks against
// restarting it by a machine.
func shapeOf(o *cluster.Object) (shape, error) {
	s := shape{how: howRoll}
	switch kind := o.GetKind(); kind {
	case "Deployment", "Rollout":
		if paused, ok := nested(o, "spec", "paused").(bool); ok && paused {
			s.no = "it is paused: nothing would be rolled"
		}
		if nested(o, "spec", "template") == nil {
			s.no = "its pod template lives in another workload (spec.workloadRef)"
		}
	case "StatefulSet":
		if n := number(o, 0, "spec", "updateStrategy", "rollingUpdate", "partition"); n > 0 {
			s.no = fmt.Sprintf("its rollout stops at partition %d, which holds pods back on purpose", n)
		}
	case "DaemonSet":
	default:
		s.no = fmt.Sprintf("a %s cannot be restarted in place", kind)
		return s, nil
	}
	r, err := mesh.RolloutOf(o)
	if err != nil {
		return s, err
	}
	s.pods, s.down, s.batch = r.Replicas, r.Unavailable, max(1, r.Surge+r.Unavailable)
	if r.Manual {
		s.how, s.down, s.batch = howEvict, 1, 1
	}
	return s, nil
}

// nested is the field at path, nil if there is none.
func nested(o *cluster.Object, path ...string) any {
	var v any = o.Object
	for _, p := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[p]
	}
	return v
}

func number(o *cluster.Object, absent int64, path ...string) int64 {
	switch n := nested(o, path...).(type) {
	case int64:
		return n
	case float64:
		return int64(n)
	}
	return absent
}

func text(o *cluster.Object, path ...string) string {
	s, ok := nested(o, path...).(string)
	if !ok {
		return ""
	}
	return s
}

// selectorOf is a workload's pod selector.
func selectorOf(o *cluster.Object) (labels.Selector, error) {
	m, ok := nested(o, "spec", "selector").(map[string]any)
	if !ok {
		return labels.Nothing(), nil
	}
	var ls metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(m, &ls); err != nil {
		return nil, fmt.Errorf("%s: selector: %w", cluster.RefOf(o), err)
	}
	sel, err := metav1.LabelSelectorAsSelector(&ls)
	if err != nil {
		return nil, fmt.Errorf("%s: selector: %w", cluster.RefOf(o), err)
	}
	return sel, nil
}
