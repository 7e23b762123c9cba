package mesh

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"rutter.dev/rutter/runtime/cluster"
)

// Rollout is what a restart of a workload does at its worst, by its own
// strategy.
type Rollout struct {
	Replicas    int
	Surge       int  // pods above Replicas at once
	Unavailable int  // pods below Replicas at once
	MinReady    int  // seconds
	Manual      bool // OnDelete: nothing happens until pods are deleted
}

// RolloutOf computes a workload's rollout as its controller does
// (k8s.io/kubernetes pkg/controller/deployment/util ResolveFenceposts and
// pkg/controller/daemon/util): surge rounds up, unavailable rounds down, and
// where both come out as zero, unavailable is 1. A StatefulSet replaces one pod
// after the other, unless maxUnavailable says otherwise. Recreate takes all.
// The replicas of a DaemonSet are those it wants scheduled.
func RolloutOf(o *cluster.Object) (Rollout, error) {
	ref := cluster.RefOf(o)
	r := Rollout{Replicas: int(number(o, 1, "spec", "replicas")), MinReady: int(number(o, 0, "spec", "minReadySeconds"))}
	var err error
	switch ref.Kind {
	case "Deployment", "Rollout":
		if strategy(o, "strategy") == "Recreate" {
			r.Unavailable = r.Replicas
			return r, nil
		}
		path := []string{"spec", "strategy", "rollingUpdate"}
		if ref.Kind == "Rollout" {
			path = []string{"spec", "strategy", "canary"}
		}
		if r.Surge, err = scaled(o, "25%", r.Replicas, true, append(path, "maxSurge")...); err == nil {
			r.Unavailable, err = scaled(o, "25%", r.Replicas, false, append(path, "maxUnavailable")...)
		}
		if r.Surge == 0 && r.Unavailable == 0 {
			r.Unavailable = 1
		}
	case "StatefulSet":
		r.Manual = strategy(o, "updateStrategy") == "OnDelete"
		r.Unavailable, err = scaled(o, "1", r.Replicas, false, "spec", "updateStrategy", "rollingUpdate", "maxUnavailable")
		r.Unavailable = max(1, r.Unavailable)
	case "DaemonSet":
		r.Replicas = int(number(o, 0, "status", "desiredNumberScheduled"))
		r.Manual = strategy(o, "updateStrategy") == "OnDelete"
		if r.Surge, err = scaled(o, "0", r.Replicas, true, "spec", "updateStrategy", "rollingUpdate", "maxSurge"); err == nil {
			// A DaemonSet rounds both up (pkg/controller/daemon UnavailableCount).
			r.Unavailable, err = scaled(o, "1", r.Replicas, true, "spec", "updateStrategy", "rollingUpdate", "maxUnavailable")
		}
		if r.Surge == 0 && r.Unavailable == 0 {
			r.Unavailable = 1
		}
	default:
		return r, fmt.Errorf("%s: no rollout is known for this kind: expected a Deployment, StatefulSet, DaemonSet or Rollout", ref)
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w", ref, err)
	}
	r.Unavailable = min(r.Unavailable, r.Replicas)
	return r, nil
}

func strategy(o *cluster.Object, field string) string {
	s, _, err := unstructured.NestedString(o.Object, "spec", field, "type")
	if err != nil {
		return ""
	}
	return s
}

// scaled reads an int-or-percentage and scales it to total.
func scaled(o *cluster.Object, def string, total int, up bool, path ...string) (int, error) {
	v := intstr.Parse(def)
	raw, ok, err := unstructured.NestedFieldNoCopy(o.Object, path...)
	if err == nil && ok && raw != nil {
		v = intstr.Parse(fmt.Sprint(raw))
	}
	return intstr.GetScaledValueFromIntOrPercent(&v, total, up)
}

// Budget is a PodDisruptionBudget projected to its arithmetic.
type Budget struct {
	Ref      cluster.Ref
	Selector labels.Selector // an empty one selects every pod (policy/v1)
	// Needed of Expected pods must stay healthy; Healthy are now.
	Needed, Expected, Healthy int
}

// BudgetOf reads a policy/v1 PodDisruptionBudget. The numbers are those of its
// status (the disruption controller's); where they are stale, the caller should
// wait for status.observedGeneration.
func BudgetOf(o *cluster.Object) (Budget, error) {
	b := Budget{Ref: cluster.RefOf(o)}
	sel, ok, err := unstructured.NestedMap(o.Object, "spec", "selector")
	if err != nil {
		return b, fmt.Errorf("%s: %w", b.Ref, err)
	}
	b.Selector = labels.Nothing() // a null selector selects nothing
	if ok {
		if b.Selector, err = selector(sel); err != nil {
			return b, fmt.Errorf("%s: selector: %w", b.Ref, err)
		}
	}
	b.Needed = int(number(o, 0, "status", "desiredHealthy"))
	b.Expected = int(number(o, 0, "status", "expectedPods"))
	b.Healthy = int(number(o, 0, "status", "currentHealthy"))
	return b, nil
}

// Matches reports whether the budget counts pods of these labels in a namespace.
func (b Budget) Matches(namespace string, pod map[string]string) bool {
	return namespace == b.Ref.Namespace && b.Selector.Matches(labels.Set(pod))
}

// Allowed is how many healthy pods may go now.
func (b Budget) Allowed() int { return max(0, b.Healthy-b.Needed) }

// Breaks reports whether a rollout of r among the budget's pods would go below
// the budget. Rolling restarts do not go through eviction, so the API server
// does not hold them to it (kubernetes#89820): whoever restarts must.
func (b Budget) Breaks(r Rollout) bool { return r.Unavailable > b.Allowed() }

// Together is the rollout of several workloads at once.
func Together(rs ...Rollout) Rollout {
	var t Rollout
	for _, r := range rs {
		t.Replicas += r.Replicas
		t.Surge += r.Surge
		t.Unavailable += r.Unavailable
		t.MinReady = max(t.MinReady, r.MinReady)
		t.Manual = t.Manual || r.Manual
	}
	return t
}

// PodLabels are the labels of a workload's pod template.
func PodLabels(o *cluster.Object) map[string]string {
	m, _, err := unstructured.NestedStringMap(o.Object, "spec", "template", "metadata", "labels")
	if err != nil {
		return nil
	}
	return m
}

// Budgets lists the disruption budgets of a namespace ("" means all).
func Budgets(ctx context.Context, r cluster.Reader, namespace string) ([]Budget, error) {
	gvk := schema.GroupVersionKind{Group: "policy", Version: "v1", Kind: "PodDisruptionBudget"}
	var out []Budget
	err := list(ctx, r, gvk, cluster.ListOptions{Namespace: namespace}, func(o *cluster.Object) error {
		b, err := BudgetOf(o)
		out = append(out, b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("disruption budgets: %w", err)
	}
	return out, nil
}
