package controllers

import (
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// autoscaler keeps the replicas of a HorizontalPodAutoscaler's target within
// its bounds. There are no metrics in the simulated cluster, so it never
// scales by load.
type autoscaler struct{}

func (autoscaler) Name() string { return "horizontal-pod-autoscaler" }

func (autoscaler) Watches() []schema.GroupResource {
	return []schema.GroupResource{grAutoscalers, grDeployments, grStatefulSets}
}

func (a autoscaler) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	if gr == grAutoscalers {
		return a.sync(w, w.Get(gr, namespace, name))
	}
	for _, h := range w.List(grAutoscalers, namespace) {
		if targetResource(h) == gr && text(h.Object, "spec", "scaleTargetRef", "name") == name {
			a.sync(w, h)
		}
	}
	return 0
}

func targetResource(h *unstructured.Unstructured) schema.GroupResource {
	switch text(h.Object, "spec", "scaleTargetRef", "kind") {
	case "Deployment":
		return grDeployments
	case "StatefulSet":
		return grStatefulSets
	}
	return schema.GroupResource{}
}

func (autoscaler) sync(w sim.World, h *unstructured.Unstructured) time.Duration {
	if h == nil || deleting(h) {
		return 0
	}
	target := w.Get(targetResource(h), h.GetNamespace(), text(h.Object, "spec", "scaleTargetRef", "name"))
	now := stamp(w.Now())
	prior := table(h.Object, "status")
	able := func(status, reason, message string) map[string]any {
		return newCondition(condition(prior, "AbleToScale"), "AbleToScale", status, reason, message, now)
	}
	if target == nil {
		return setStatus(w, h, map[string]any{
			"currentReplicas": int64(0), "desiredReplicas": int64(0), "currentMetrics": nil,
			"conditions": []any{able("False", "FailedGetScale", "the HPA controller was unable to get the target's current scale")},
		})
	}
	have := number(target.Object, 1, "spec", "replicas")
	want := min(max(have, number(h.Object, 1, "spec", "minReplicas")), number(h.Object, have, "spec", "maxReplicas"))
	if have == 0 {
		want = 0 // autoscaling is off for a target that was scaled to zero
	}
	if want != have {
		next := edit(target)
		table(next.Object, "spec")["replicas"] = want
		if err := w.Update(next); err != nil {
			return retryDelay
		}
	}
	status := map[string]any{
		"currentReplicas": number(target.Object, 0, "status", "replicas"), "desiredReplicas": want, "currentMetrics": nil,
		"conditions": []any{able("True", "SucceededGetScale", "the HPA controller was able to get the target's current scale")},
	}
	if t := text(prior, "lastScaleTime"); want != have {
		status["lastScaleTime"] = now
	} else if t != "" {
		status["lastScaleTime"] = t
	}
	return setStatus(w, h, status)
}
