package controllers

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// AnnotationUtilization on a HorizontalPodAutoscaler is the utilization, in
// percent of the requests, that all pods of its target have: a number. Without
// it there are no metrics, and the target is only kept within its bounds.
const AnnotationUtilization = "sim.rutter.dev/utilization"

// The defaults of the real autoscaler: how often it looks, how much a metric
// may be off its target, how long it waits before it scales down, and by how
// much it scales up at once (pkg/controller/podautoscaler; autoscaling/v2
// defaults).
const (
	autoscaleEvery  = 15 * time.Second
	autoscaleSlack  = 0.1
	scaleDownWindow = 5 * time.Minute
	scaleUpPods     = 4
)

// autoscaler sets the replicas of a HorizontalPodAutoscaler's target by a
// utilization that does not change with the number of replicas. Of a spec's
// metrics it looks at the first that has a utilization as its target, and it
// has the default behavior whatever the spec says. Recommendations are not
// remembered: a target is scaled down when it has not been scaled, and the
// autoscaler has been there, for the whole window.
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

// scaling is one look at one autoscaler.
type scaling struct {
	w      sim.World
	h      *unstructured.Unstructured
	prior  map[string]any // its stored status
	target *unstructured.Unstructured
	have   int64
	status map[string]any
	wait   time.Duration
}

func (autoscaler) sync(w sim.World, h *unstructured.Unstructured) time.Duration {
	if h == nil || deleting(h) {
		return 0
	}
	s := &scaling{w: w, h: h, prior: table(h.Object, "status"), status: map[string]any{}}
	s.status["conditions"] = items(s.prior, "conditions")
	if left := instant(text(s.prior, "lastScaleTime")).Add(autoscaleEvery).Sub(w.Now()); left > 0 {
		return left // it has just looked: it looks at intervals, not when something changes
	}
	name := text(h.Object, "spec", "scaleTargetRef", "name")
	if s.target = w.Get(targetResource(h), h.GetNamespace(), name); s.target == nil {
		gr := targetResource(h)
		s.condition("AbleToScale", false, "FailedGetScale", fmt.Sprintf("the HPA controller was unable to get the target's current scale: %s %q not found", gr, name))
		s.status["currentMetrics"], s.status["desiredReplicas"] = nil, int64(0)
		return setStatus(w, h, s.status)
	}
	s.have = number(s.target.Object, 1, "spec", "replicas")
	s.status["currentReplicas"] = s.have // of the scale's spec, as the real one
	s.status["currentMetrics"] = nil
	if t := text(s.prior, "lastScaleTime"); t != "" {
		s.status["lastScaleTime"] = t
	}
	s.condition("AbleToScale", true, "SucceededGetScale", "the HPA controller was able to get the target's current scale")
	want, why := s.recommend()
	s.status["desiredReplicas"] = want
	if text(condition(s.status, "ScalingActive"), "reason") == "FailedGetResourceMetric" && want == s.have {
		s.status["desiredReplicas"] = number(s.prior, 0, "desiredReplicas") // as it was when it could be computed
	}
	if want != s.have {
		if err := s.scale(want, why); err != nil {
			return retryDelay
		}
	}
	return sooner(setStatus(w, h, s.status), s.wait)
}

func (s *scaling) condition(kind string, ok bool, reason, message string) {
	value := "False"
	if ok {
		value = "True"
	}
	list, _ := s.status["conditions"].([]any)
	s.status["conditions"] = withCondition(list, newCondition(condition(s.prior, kind), kind, value, reason, message, stamp(s.w.Now())))
}

// recommend is how many replicas there should be now, and why.
func (s *scaling) recommend() (want int64, why string) {
	least, most := number(s.h.Object, 1, "spec", "minReplicas"), number(s.h.Object, s.have, "spec", "maxReplicas")
	switch {
	case s.have == 0 && least != 0:
		s.condition("ScalingActive", false, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero")
		return 0, ""
	case s.have > most:
		return most, "Current number of replicas above Spec.MaxReplicas"
	case s.have < least:
		return least, "Current number of replicas below Spec.MinReplicas"
	}
	metric, goal := utilizationTarget(s.h)
	used, err := strconv.ParseFloat(annotationOf(s.h, AnnotationUtilization), 64)
	if err != nil || goal <= 0 {
		s.condition("ScalingActive", false, "FailedGetResourceMetric", fmt.Sprintf(
			"the HPA was unable to compute the replica count: failed to get %s utilization: unable to get metrics for resource %s: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)", metric, metric))
		return s.have, ""
	}
	s.wait = autoscaleEvery
	s.status["currentMetrics"] = []any{map[string]any{"type": "Resource", "resource": map[string]any{
		"name": metric, "current": map[string]any{"averageUtilization": int64(used), "averageValue": "0"},
	}}}
	s.condition("ScalingActive", true, "ValidMetricFound", fmt.Sprintf("the HPA was able to successfully calculate a replica count from %s resource utilization (percentage of request)", metric))
	want = s.have
	if ratio := used / float64(goal); math.Abs(ratio-1) > autoscaleSlack {
		want = int64(math.Ceil(ratio * float64(s.have)))
	}
	return s.limited(want, least, most), fmt.Sprintf("%s resource utilization (percentage of request) %s target", metric, side(want, s.have))
}

func side(want, have int64) string {
	if want > have {
		return "above"
	}
	return "below"
}

// limited keeps a recommendation within the bounds and the default behavior.
func (s *scaling) limited(want, least, most int64) int64 {
	now := s.w.Now()
	s.condition("AbleToScale", true, "ReadyForNewScale", "recommended size matches current size")
	if want < s.have {
		since := instant(text(s.h.Object, "metadata", "creationTimestamp"))
		if t := instant(text(s.prior, "lastScaleTime")); t.After(since) {
			since = t
		}
		if left := since.Add(scaleDownWindow).Sub(now); left > 0 {
			s.condition("AbleToScale", true, "ScaleDownStabilized", "recent recommendations were higher than current one, applying the highest recent recommendation")
			want = s.have
		}
	}
	if up := max(2*s.have, s.have+scaleUpPods); want > up && up < most {
		s.condition("ScalingLimited", true, "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
		return up
	}
	switch {
	case want > most:
		s.condition("ScalingLimited", true, "TooManyReplicas", "the desired replica count is more than the maximum replica count")
	case want < least:
		s.condition("ScalingLimited", true, "TooFewReplicas", "the desired replica count is less than the minimum replica count")
	default:
		s.condition("ScalingLimited", false, "DesiredWithinRange", "the desired count is within the acceptable range")
	}
	return min(max(want, least), most)
}

func (s *scaling) scale(want int64, why string) error {
	next := edit(s.target)
	table(next.Object, "spec")["replicas"] = want
	if err := s.w.Update(next); err != nil {
		s.w.Event(s.h, eventWarning, "FailedRescale", fmt.Sprintf("New size: %d; reason: %s; error: %v", want, why, err))
		return err
	}
	s.status["lastScaleTime"] = stamp(s.w.Now())
	s.condition("AbleToScale", true, "SucceededRescale", fmt.Sprintf("the HPA controller was able to update the target scale to %d", want))
	s.w.Event(s.h, eventNormal, "SuccessfulRescale", fmt.Sprintf("New size: %d; reason: %s", want, why))
	return nil
}

// utilizationTarget is the metric that an autoscaler goes by, and its goal in
// percent; 0 when it has none.
func utilizationTarget(h *unstructured.Unstructured) (string, int64) {
	metrics := items(h.Object, "spec", "metrics")
	if len(metrics) == 0 {
		return "cpu", 80 // autoscaling/v2 defaults
	}
	for _, m := range metrics {
		for _, field := range []string{"resource", "containerResource"} {
			if n := number(m, 0, field, "target", "averageUtilization"); n > 0 {
				return text(m, field, "name"), n
			}
		}
	}
	return strings.ToLower(text(metrics[0], "resource", "name")), 0
}
