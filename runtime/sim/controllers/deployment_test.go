package controllers

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func deployment(replicas int, strategy string) string {
	return fmt.Sprintf(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}, spec: {replicas: %d,
  progressDeadlineSeconds: 60, strategy: %s, selector: {matchLabels: {app: web}},
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: app, image: "web:1"}]}}}}`, replicas, strategy)
}

func rolling(surge, unavailable string) string {
	return fmt.Sprintf("{type: RollingUpdate, rollingUpdate: {maxSurge: %s, maxUnavailable: %s}}", surge, unavailable)
}

func TestRolloutLimits(t *testing.T) {
	for _, c := range []struct {
		replicas           int
		surge, unavailable string
		wantUp, wantDown   int64
	}{
		{10, "25%", "25%", 3, 2},
		{3, "25%", "25%", 1, 0},
		{4, "25%", "25%", 1, 1},
		{1, "25%", "25%", 1, 0},
		{10, "0", "0", 0, 1},
		{10, "0%", "1%", 0, 1},
		{2, "100%", "25%", 2, 0},
		{3, "1", "0", 1, 0},
		{3, "0", "1", 0, 1},
		{3, "0", "5", 0, 3},
		{7, "33%", "33%", 3, 2},
		{0, "25%", "25%", 0, 0},
	} {
		up, down := rolloutLimits(parse(t, deployment(c.replicas, rolling(c.surge, c.unavailable))))
		if up != c.wantUp || down != c.wantDown {
			t.Errorf("%d replicas, surge %s, unavailable %s: got %d, %d; want %d, %d", c.replicas, c.surge, c.unavailable, up, down, c.wantUp, c.wantDown)
		}
	}
}

// bounds watches a rollout: the most pods wanted and the fewest ready ones.
func bounds(w *smallWorld) (most, fewest *int64) {
	hi, lo := int64(0), int64(1<<30)
	w.watch = func() {
		var want, up int64
		for _, s := range w.List(grReplicaSets, "shop") {
			want += wanted(s)
		}
		for _, p := range w.List(grPods, "shop") {
			if ready(p) {
				up++
			}
		}
		hi, lo = max(hi, want), min(lo, up)
	}
	return &hi, &lo
}

func TestRollingUpdateStaysWithinItsLimits(t *testing.T) {
	for _, c := range []struct {
		replicas           int
		surge, unavailable string
		most, fewest       int64
	}{
		{3, "25%", "25%", 4, 3},
		{4, "25%", "25%", 5, 3},
		{10, "25%", "25%", 13, 8},
		{5, "0", "1", 5, 4},
		{5, "0", "2", 5, 3},
		{2, "100%", "0", 4, 2},
		{1, "1", "0", 2, 1},
		{6, "50%", "50%", 9, 3},
	} {
		t.Run(fmt.Sprintf("%d_%s_%s", c.replicas, c.surge, c.unavailable), func(t *testing.T) {
			w := newWorld(t, deployment(c.replicas, rolling(c.surge, c.unavailable)))
			w.advance(10 * time.Second)
			if got := w.status("Deployment", "web", "readyReplicas"); got != int64(c.replicas) {
				t.Fatalf("ready before the rollout: %d", got)
			}
			most, fewest := bounds(w)
			w.change("Deployment", "shop", "web", setImage("web:2"))
			w.advance(2 * time.Minute)
			if *most != c.most || *fewest != c.fewest {
				t.Errorf("most pods %d, fewest ready %d; want %d, %d", *most, *fewest, c.most, c.fewest)
			}
			for _, f := range []string{"replicas", "updatedReplicas", "readyReplicas", "availableReplicas"} {
				if got := w.status("Deployment", "web", f); got != int64(c.replicas) {
					t.Errorf("%s = %d after the rollout", f, got)
				}
			}
			d := w.Get(grDeployments, "shop", "web")
			if annotationOf(d, annotationRevision) != "2" {
				t.Errorf("revision %q", annotationOf(d, annotationRevision))
			}
			if r := text(condition(d.Object["status"], "Progressing"), "reason"); r != "NewReplicaSetAvailable" {
				t.Errorf("Progressing reason %q", r)
			}
		})
	}
}

func TestBadImageStopsTheRollout(t *testing.T) {
	w := newWorld(t, deployment(4, rolling("25%", "25%")))
	w.advance(10 * time.Second)
	w.change("Deployment", "shop", "web", setImage("web:2-bad"))
	w.advance(5 * time.Second)
	// 5 may exist, 3 must stay available: 3 old ones stay, 2 new ones fail.
	for f, want := range map[string]int64{"replicas": 5, "updatedReplicas": 2, "availableReplicas": 3, "unavailableReplicas": 2} {
		if got := w.status("Deployment", "web", f); got != want {
			t.Errorf("%s = %d, want %d", f, got, want)
		}
	}
	w.advance(2 * time.Minute)
	d := w.Get(grDeployments, "shop", "web")
	c := condition(d.Object["status"], "Progressing")
	if text(c, "status") != "False" || text(c, "reason") != "ProgressDeadlineExceeded" {
		t.Errorf("Progressing is %v", c)
	}
	if !isTrue(d, "Available") {
		t.Error("the Deployment lost its minimum availability")
	}
	restarts := int64(0)
	for _, p := range w.List(grPods, "shop") {
		if cs := items(p.Object, "status", "containerStatuses"); number(cs[0], 0, "restartCount") > 0 {
			restarts = number(cs[0], 0, "restartCount")
			if r := text(cs[0], "state", "waiting", "reason"); r != "CrashLoopBackOff" {
				t.Errorf("waiting reason %q", r)
			}
		}
	}
	if restarts < 2 || restarts > 5 {
		t.Errorf("%d restarts in two minutes", restarts)
	}
	if !w.hasEvent("Warning BackOff Pod/web-") {
		t.Error("no BackOff event")
	}

	// Going back uses the first ReplicaSet again, and heals.
	w.change("Deployment", "shop", "web", setImage("web:1"))
	w.advance(20 * time.Second)
	d = w.Get(grDeployments, "shop", "web")
	if annotationOf(d, annotationRevision) != "3" || w.status("Deployment", "web", "availableReplicas") != 4 {
		t.Errorf("after going back: revision %s, status %v", annotationOf(d, annotationRevision), d.Object["status"])
	}
	if n := len(w.List(grReplicaSets, "shop")); n != 2 {
		t.Errorf("%d ReplicaSets", n)
	}
}

func TestRecreateLeavesNoOverlap(t *testing.T) {
	w := newWorld(t, deployment(3, "{type: Recreate}"))
	w.advance(10 * time.Second)
	most, fewest := bounds(w)
	w.change("Deployment", "shop", "web", setImage("web:2"))
	w.advance(20 * time.Second)
	if *most != 3 || *fewest != 0 {
		t.Errorf("most %d, fewest ready %d", *most, *fewest)
	}
	if got := w.status("Deployment", "web", "updatedReplicas"); got != 3 {
		t.Errorf("updated %d", got)
	}
}

func TestPausedDeploymentDoesNotRoll(t *testing.T) {
	w := newWorld(t, deployment(2, rolling("1", "0")))
	w.advance(10 * time.Second)
	w.change("Deployment", "shop", "web", func(o map[string]any) {
		o["spec"].(map[string]any)["paused"] = true
		setImage("web:2")(o)
	})
	w.advance(time.Minute)
	if n := len(w.List(grReplicaSets, "shop")); n != 1 {
		t.Fatalf("%d ReplicaSets while paused", n)
	}
	d := w.Get(grDeployments, "shop", "web")
	if r := text(condition(d.Object["status"], "Progressing"), "reason"); r != "DeploymentPaused" {
		t.Errorf("reason %q", r)
	}
	w.change("Deployment", "shop", "web", func(o map[string]any) { delete(o["spec"].(map[string]any), "paused") })
	w.advance(time.Minute)
	if got := w.status("Deployment", "web", "updatedReplicas"); got != 2 {
		t.Errorf("updated %d after resuming", got)
	}
}

func TestScalingAndHistory(t *testing.T) {
	w := newWorld(t, deployment(2, rolling("1", "0")))
	w.advance(10 * time.Second)
	w.change("Deployment", "shop", "web", func(o map[string]any) {
		o["spec"].(map[string]any)["replicas"] = int64(5)
		o["spec"].(map[string]any)["revisionHistoryLimit"] = int64(2)
	})
	w.advance(10 * time.Second)
	if got := w.status("Deployment", "web", "availableReplicas"); got != 5 {
		t.Fatalf("available %d", got)
	}
	for i := 2; i < 7; i++ {
		w.change("Deployment", "shop", "web", setImage(fmt.Sprintf("web:%d", i)))
		w.advance(time.Minute)
	}
	if n := len(w.List(grReplicaSets, "shop")); n != 3 {
		t.Errorf("%d ReplicaSets, want the current one and two old ones", n)
	}
}

func TestMinReadySecondsDelaysAvailability(t *testing.T) {
	w := newWorld(t, strings.Replace(deployment(1, rolling("1", "0")), "replicas: 1,", "replicas: 1, minReadySeconds: 20,", 1))
	w.advance(10 * time.Second)
	if r, a := w.status("Deployment", "web", "readyReplicas"), w.status("Deployment", "web", "availableReplicas"); r != 1 || a != 0 {
		t.Fatalf("ready %d, available %d after 10s", r, a)
	}
	w.advance(20 * time.Second)
	if a := w.status("Deployment", "web", "availableReplicas"); a != 1 {
		t.Errorf("available %d after 30s", a)
	}
}

func TestRefusedPodsAreRetried(t *testing.T) {
	w := newWorld(t, deployment(2, rolling("1", "0")))
	refusing := true
	w.refuse = func(kind, _, _ string) error {
		if kind == "Pod" && refusing {
			return fmt.Errorf("failed calling webhook \"namespace.sidecar-injector.istio.io\"")
		}
		return nil
	}
	w.advance(time.Minute)
	d := w.Get(grDeployments, "shop", "web")
	if c := condition(d.Object["status"], "ReplicaFailure"); text(c, "status") != "True" || text(c, "reason") != "FailedCreate" {
		t.Errorf("ReplicaFailure is %v", c)
	}
	if !w.hasEvent("Warning FailedCreate ReplicaSet/web-") {
		t.Error("no FailedCreate event")
	}
	refusing = false
	w.advance(2 * time.Minute)
	if got := w.status("Deployment", "web", "availableReplicas"); got != 2 {
		t.Errorf("available %d after the webhook came back", got)
	}
	if condition(w.Get(grDeployments, "shop", "web").Object["status"], "ReplicaFailure") != nil {
		t.Error("ReplicaFailure stayed")
	}
}

func TestTwoRunsAreIdentical(t *testing.T) {
	run := func() string {
		w := newWorld(t, deployment(4, rolling("25%", "25%")), daemonSet("{type: RollingUpdate, rollingUpdate: {maxUnavailable: 1}}"))
		w.advance(10 * time.Second)
		w.change("Deployment", "shop", "web", setImage("web:2-bad"))
		w.change("DaemonSet", "shop", "agent", setImage("agent:2"))
		w.advance(3 * time.Minute)
		return w.dump()
	}
	if a, b := run(), run(); a != b {
		t.Error("two runs of the same changes differ")
	}
}
