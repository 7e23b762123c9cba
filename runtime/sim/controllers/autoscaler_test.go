package controllers

import (
	"strings"
	"testing"
	"time"
)

const autoscaled = `{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: web, namespace: shop, annotations: {sim.rutter.dev/utilization: "UTIL"}},
	spec: {minReplicas: 2, maxReplicas: 20, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, metrics: [
	{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]}}`

func TestAutoscalerFollowsItsMetric(t *testing.T) {
	type at struct {
		after time.Duration
		want  int64
	}
	for _, c := range []struct {
		name, utilization string
		start             int
		sizes             []at
		reason            string // of AbleToScale, at the end
		limited           string // reason of ScalingLimited, at the end
	}{
		// 4 x 200/50 = 16: at most doubled, or four more, at each look.
		{"up", "200", 4, []at{{time.Second, 8}, {16 * time.Second, 16}, {31 * time.Second, 20}, {2 * time.Minute, 20}}, "ReadyForNewScale", "TooManyReplicas"},
		{"within the slack", "54", 4, []at{{10 * time.Minute, 4}}, "ReadyForNewScale", "DesiredWithinRange"},
		{"down after the window", "25", 16, []at{{4 * time.Minute, 16}, {5*time.Minute + 16*time.Second, 8}, {9 * time.Minute, 8}, {11 * time.Minute, 4}}, "ScaleDownStabilized", "DesiredWithinRange"},
		{"not below the least", "1", 4, []at{{6 * time.Minute, 2}, {20 * time.Minute, 2}}, "ReadyForNewScale", "TooFewReplicas"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}", deployment(c.start, rolling("1", "0")),
				strings.ReplaceAll(autoscaled, "UTIL", c.utilization))
			start := w.now
			for _, step := range c.sizes {
				w.advance(start.Add(step.after).Sub(w.now))
				if got := number(w.Get(grDeployments, "shop", "web").Object, -1, "spec", "replicas"); got != step.want {
					t.Errorf("after %s: %d replicas, want %d", step.after, got, step.want)
				}
			}
			status := w.Get(grAutoscalers, "shop", "web").Object["status"]
			for kind, want := range map[string]string{"AbleToScale": c.reason, "ScalingLimited": c.limited, "ScalingActive": "ValidMetricFound"} {
				if got := text(condition(status, kind), "reason"); got != want {
					t.Errorf("%s is %q, want %q", kind, got, want)
				}
			}
		})
	}
}

func TestAutoscalerWithoutMetricsSaysSo(t *testing.T) {
	w := newWorld(t, "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}", deployment(4, rolling("1", "0")), strings.ReplaceAll(autoscaled, "UTIL", ""))
	w.advance(time.Hour)
	if got := number(w.Get(grDeployments, "shop", "web").Object, -1, "spec", "replicas"); got != 4 {
		t.Errorf("%d replicas", got)
	}
	status := w.Get(grAutoscalers, "shop", "web").Object["status"]
	if c := condition(status, "ScalingActive"); text(c, "status") != "False" || text(c, "reason") != "FailedGetResourceMetric" {
		t.Errorf("ScalingActive %v", c)
	}
}
