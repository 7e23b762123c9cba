package controllers

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestBudgetStatus(t *testing.T) {
	for _, c := range []struct {
		field                      string
		expected, desired, allowed int64
	}{
		{"minAvailable: 3", 4, 3, 1},
		{"minAvailable: 4", 4, 4, 0},
		{"minAvailable: '50%'", 4, 2, 2},
		{"minAvailable: '60%'", 4, 3, 1},
		{"maxUnavailable: 1", 4, 3, 1},
		{"maxUnavailable: 0", 4, 4, 0},
		{"maxUnavailable: '30%'", 4, 2, 2},
	} {
		w := newWorld(t, deployment(4, rolling("25%", "25%")),
			fmt.Sprintf("{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: web, namespace: shop}, spec: {%s, selector: {matchLabels: {app: web}}}}", c.field))
		w.advance(10 * time.Second)
		for f, want := range map[string]int64{"expectedPods": c.expected, "desiredHealthy": c.desired, "currentHealthy": 4, "disruptionsAllowed": c.allowed} {
			if got := w.status("PodDisruptionBudget", "web", f); got != want {
				t.Errorf("%s: %s = %d, want %d", c.field, f, got, want)
			}
		}
		b := w.Get(grBudgets, "shop", "web")
		if isTrue(b, "DisruptionAllowed") != (c.allowed > 0) {
			t.Errorf("%s: condition %v", c.field, condition(b.Object["status"], "DisruptionAllowed"))
		}
	}
}

func TestEndpointsFollowReadiness(t *testing.T) {
	w := newWorld(t, deployment(2, rolling("1", "0")),
		"{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}}")
	w.advance(2 * time.Second)
	if got := w.Get(grEndpoints, "shop", "web"); len(items(items(got.Object, "subsets")[0], "notReadyAddresses")) != 2 {
		t.Errorf("before ready: %v", got.Object["subsets"])
	}
	w.advance(10 * time.Second)
	slices := w.List(grSlices, "shop")
	if len(slices) != 1 || len(items(slices[0].Object, "endpoints")) != 2 {
		t.Fatalf("slices %v", slices)
	}
	for _, e := range items(slices[0].Object, "endpoints") {
		if !flag(e, "conditions", "ready") {
			t.Errorf("endpoint %v", e)
		}
	}
	if p := items(slices[0].Object, "ports"); number(p[0], 0, "port") != 8080 {
		t.Errorf("ports %v", p)
	}
	w.change("Deployment", "shop", "web", func(o map[string]any) { o["spec"].(map[string]any)["replicas"] = int64(0) })
	w.advance(10 * time.Second)
	if e := items(w.List(grSlices, "shop")[0].Object, "endpoints"); len(e) != 0 {
		t.Errorf("endpoints of no pods: %v", e)
	}
}

func TestPodTimeline(t *testing.T) {
	w := newWorld(t, `{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: shop, annotations: {sim.rutter.dev/ready-after: 5s}},
  spec: {initContainers: [{name: init, image: "i:1"}, {name: istio-proxy, image: "proxy:1", restartPolicy: Always}],
  containers: [{name: app, image: "web:1"}]}}`)
	phaseAt := func() string {
		p := w.Get(grPods, "shop", "p")
		return fmt.Sprintf("%s ready=%v", text(p.Object, "status", "phase"), ready(p))
	}
	w.advance(500 * time.Millisecond)
	if got := phaseAt(); got != "Pending ready=false" {
		t.Errorf("at once: %s", got)
	}
	w.advance(2 * time.Second)
	if got := phaseAt(); got != "Running ready=false" {
		t.Errorf("after the init container: %s", got)
	}
	w.advance(5 * time.Second)
	if got := phaseAt(); got != "Running ready=true" {
		t.Errorf("after the ready delay: %s", got)
	}
	p := w.Get(grPods, "shop", "p")
	if s := items(p.Object, "status", "initContainerStatuses"); len(s) != 2 || !flag(s[1], "ready") || text(s[0], "state", "terminated", "reason") != "Completed" {
		t.Errorf("init containers %v", s)
	}
	if text(p.Object, "status", "podIP") == "" || text(p.Object, "spec", "nodeName") == "" {
		t.Errorf("no address or node: %v", p.Object)
	}
	// A fault that is switched on later shows too, and heals again.
	mark := func(v string) {
		w.change("Pod", "shop", "p", func(o map[string]any) {
			table(o, "metadata", "annotations")[AnnotationNeverReady] = v
		})
		w.advance(time.Second)
	}
	if mark("true"); ready(w.Get(grPods, "shop", "p")) || !w.hasEvent("Warning Unhealthy") {
		t.Error("the pod stayed ready")
	}
	if mark("false"); !ready(w.Get(grPods, "shop", "p")) {
		t.Error("the pod did not heal")
	}
}

func TestJobCompletes(t *testing.T) {
	w := newWorld(t, `{apiVersion: batch/v1, kind: Job, metadata: {name: j, namespace: shop}, spec: {completions: 3, parallelism: 2,
  template: {spec: {restartPolicy: Never, containers: [{name: app, image: "j:1"}]}}}}`)
	w.advance(time.Minute)
	j := w.Get(grJobs, "shop", "j")
	if !isTrue(j, "Complete") || w.status("Job", "j", "succeeded") != 3 {
		t.Errorf("status %v", j.Object["status"])
	}
	w = newWorld(t, `{apiVersion: batch/v1, kind: Job, metadata: {name: j, namespace: shop}, spec: {backoffLimit: 1,
  template: {spec: {restartPolicy: Never, containers: [{name: app, image: "j:1-bad"}]}}}}`)
	w.advance(time.Minute)
	if j := w.Get(grJobs, "shop", "j"); !isTrue(j, "Failed") || w.status("Job", "j", "failed") != 2 {
		t.Errorf("status %v", j.Object["status"])
	}
}

func TestNamespaceAndAutoscaler(t *testing.T) {
	w := newWorld(t, "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}", deployment(1, rolling("1", "0")),
		"{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: web, namespace: shop}, spec: {minReplicas: 2, maxReplicas: 5, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}}}")
	w.advance(10 * time.Second)
	if w.Get(grServiceAccounts, "shop", "default") == nil || w.Get(grConfigMaps, "shop", "kube-root-ca.crt") == nil {
		t.Error("the namespace lacks its default objects")
	}
	if got := w.status("Deployment", "web", "readyReplicas"); got != 2 {
		t.Errorf("the autoscaler's minimum is not kept: %d ready", got)
	}
	if got := w.status("HorizontalPodAutoscaler", "web", "desiredReplicas"); got != 2 {
		t.Errorf("desiredReplicas %d", got)
	}
}

func TestPodsWithoutNodesWait(t *testing.T) {
	w := newWorld(t, deployment(1, rolling("1", "0")))
	for i := 1; i <= 3; i++ {
		w.change("Node", "", fmt.Sprintf("node-%d", i), func(o map[string]any) { o["spec"] = map[string]any{"unschedulable": true} })
	}
	w.advance(10 * time.Second)
	if !w.hasEvent("Warning FailedScheduling") || w.status("Deployment", "web", "readyReplicas") != 0 {
		t.Error("a pod ran on a cordoned node")
	}
	w.change("Node", "", "node-2", func(o map[string]any) { delete(o, "spec") })
	w.advance(10 * time.Second)
	if got := w.status("Deployment", "web", "readyReplicas"); got != 1 {
		t.Errorf("ready %d after uncordoning", got)
	}
}

// reload forgets every timer and the queue, and looks at every object anew, as
// a cluster that was read from disk does.
func (w *smallWorld) reload() {
	w.queue, w.due = nil, map[work]time.Time{}
	for _, k := range sortedKeys(w.objects) {
		w.changed(w.objects[k])
	}
}

func TestReloadedWorldGoesOn(t *testing.T) {
	run := func(reloadEvery time.Duration) string {
		w := newWorld(t, deployment(4, rolling("25%", "25%")), statefulSet(""), daemonSet("{type: RollingUpdate}"),
			"{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: web, namespace: shop}, spec: {maxUnavailable: 1, selector: {matchLabels: {app: web}}}}",
			"{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {selector: {app: web}, ports: [{port: 80}]}}")
		step := func(d time.Duration) {
			for ; d > 0; d -= reloadEvery {
				w.advance(min(d, reloadEvery))
				w.reload()
			}
		}
		step(20 * time.Second)
		w.change("Deployment", "shop", "web", setImage("web:2-bad"))
		w.change("StatefulSet", "shop", "db", setImage("db:2"))
		step(90 * time.Second)
		var out string
		for _, o := range []struct{ kind, name string }{
			{"Deployment", "web"}, {"StatefulSet", "db"}, {"DaemonSet", "agent"}, {"PodDisruptionBudget", "web"},
		} {
			st := w.Get(resourceOf(o.kind), "shop", o.name).Object["status"]
			out += fmt.Sprintf("%s: %v\n", o.name, st)
		}
		return out
	}
	if a, b := run(time.Hour), run(time.Second); a != b {
		t.Errorf("a world that is reloaded every second ends otherwise:\n%s\nand\n%s", a, b)
	}
}

func TestLoadBalancerGetsAnAddress(t *testing.T) {
	w := newWorld(t, "{apiVersion: v1, kind: Service, metadata: {name: in, namespace: shop}, spec: {type: LoadBalancer, ports: [{port: 80}]}}")
	w.advance(time.Second)
	addresses := func() int {
		return len(items(w.Get(grServices, "shop", "in").Object, "status", "loadBalancer", "ingress"))
	}
	if addresses() != 1 {
		t.Error("no address")
	}
	w.change("Service", "shop", "in", func(o map[string]any) { o["spec"].(map[string]any)["type"] = "ClusterIP" })
	w.advance(time.Second)
	if addresses() != 0 {
		t.Error("a ClusterIP Service kept its load balancer")
	}
}

func TestGracefulDeletionTakesItsTime(t *testing.T) {
	w := newWorld(t, "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: shop}, spec: {containers: [{name: app, image: 'web:1'}]}}")
	w.advance(10 * time.Second)
	p := w.Get(grPods, "shop", "p").DeepCopy()
	meta := p.Object["metadata"].(map[string]any)
	meta["deletionTimestamp"], meta["deletionGracePeriodSeconds"] = stamp(w.now.Add(30*time.Second)), int64(30)
	if err := w.Update(p); err != nil {
		t.Fatal(err)
	}
	w.advance(500 * time.Millisecond)
	if p := w.Get(grPods, "shop", "p"); p == nil || ready(p) {
		t.Error("a terminating pod is gone at once, or counts as ready")
	}
	w.advance(time.Second)
	if w.Get(grPods, "shop", "p") != nil || !w.hasEvent("Normal Killing Pod/p: Stopping container app") {
		t.Error("the pod did not end")
	}
}

// A Service is looked at for what happens to a pod only where it would show.
func TestServicesShowTheirPods(t *testing.T) {
	w := newWorld(t, deployment(2, rolling("1", "0")),
		"{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}}")
	w.advance(12 * time.Second)
	svc, pods := w.Get(grServices, "shop", "web"), w.List(grPods, "shop")
	if len(pods) != 2 {
		t.Fatalf("%d pods", len(pods))
	}
	at := func(pod *unstructured.Unstructured, path ...string) *unstructured.Unstructured {
		next := pod.DeepCopy()
		if err := unstructured.SetNestedField(next.Object, "another", path...); err != nil {
			t.Fatal(err)
		}
		return next
	}
	unready := pods[0].DeepCopy()
	for _, c := range items(unready.Object, "status", "conditions") {
		if text(c, "type") == "Ready" {
			table(c)["status"] = "False"
		}
	}
	leaving := pods[0].DeepCopy()
	now := metav1.NewTime(w.Now())
	leaving.SetDeletionTimestamp(&now)
	stranger := at(pods[0], "metadata", "labels", "app")
	ended := pods[0].DeepCopy()
	table(ended.Object, "status")["phase"] = "Succeeded"
	for _, tt := range []struct {
		name  string
		pod   *unstructured.Unstructured
		of    string
		shown bool
	}{
		{"as it is", pods[0], pods[0].GetName(), true},
		{"the other one", pods[1], pods[1].GetName(), true},
		{"another message", at(pods[0], "status", "message"), pods[0].GetName(), true},
		{"no longer ready", unready, pods[0].GetName(), false},
		{"on its way out", leaving, pods[0].GetName(), false},
		{"another address", at(pods[0], "status", "podIP"), pods[0].GetName(), false},
		{"not selected any more", stranger, pods[0].GetName(), false},
		{"has ended", ended, pods[0].GetName(), false},
		{"gone", nil, pods[0].GetName(), false},
		{"never there", nil, "web-never", true},
		{"new", at(pods[0], "metadata", "name"), "another", false},
	} {
		if got := (endpointsController{}).shows(w, svc, tt.of, tt.pod); got != tt.shown {
			t.Errorf("%s: shown %v, want %v", tt.name, got, tt.shown)
		}
	}
	old := w.Get(grEndpoints, "shop", "web").DeepCopy()
	delete(old.Object, "subsets")
	if err := w.Update(old); err != nil {
		t.Fatal(err)
	}
	if (endpointsController{}).shows(w, svc, pods[0].GetName(), pods[0]) {
		t.Error("shown without its Endpoints")
	}
}
