//go:build e2e

package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/tests/e2e/plane"
)

// One mesh of 60 workloads, first for what must be refused, then upgraded.
func TestInPlace(t *testing.T) {
	parallel(t, 165*time.Second)
	p := startPlane(t, plane.Options{AuditLevel: "Request", FirstPort: besides(0)})
	dropped, err := plane.Parse([]byte(droppedByTheNew))
	if err != nil {
		t.Fatal(err)
	}
	bringMesh(t, p, mesh.Spec{
		Workloads: 60, Namespaces: 12, Seed: 1, NoSidecar: 3, OnDelete: 1, SingleReplica: 1, StrictPDBs: 1, BarePods: 1,
	}, dropped...)
	apply(t, p, leftForAPerson)
	awaitReady(t, p, "shop", "app in (nightly, relic, elder)", 4)
	surgeWhereNoneMayFail(t, p)

	t.Run("precheck refused", func(t *testing.T) { refusedPrecheck(t, p) })
	t.Run("apply denied", func(t *testing.T) { deniedApply(t, p) })
	t.Run("field of another manager", func(t *testing.T) { foreignField(t, p) })
	t.Run("upgrade", func(t *testing.T) { upgradeAll(t, p, dropped) })
	t.Run("prune", func(t *testing.T) { prune(t, p) })
}

// What the installation of 1.30.3 brought and 1.31.0 does not have.
const droppedByTheNew = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: istio-elder, namespace: istio-system, labels: {operator.istio.io/component: Pilot}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio-elder, namespace: istio-system, labels: {operator.istio.io/component: Pilot}}
data: {mode: old}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: istio-elder-istio-system, labels: {operator.istio.io/component: Pilot}}
rules:
- {apiGroups: [""], resources: [nodes], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: istio-elder-istio-system, labels: {operator.istio.io/component: Pilot}}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: istio-elder-istio-system}
subjects:
- {kind: ServiceAccount, name: istio-elder, namespace: istio-system}
`

// Owners whose pods nothing can replace without harm, and a neighbour of the
// control plane that is somebody's own.
const leftForAPerson = `
apiVersion: batch/v1
kind: Job
metadata: {name: nightly, namespace: shop}
spec:
  template:
    metadata: {labels: {app: nightly}, annotations: {sim.rutter.dev/complete-after: 24h}}
    spec: {restartPolicy: Never, containers: [{name: app, image: registry.example/shop/nightly:1}]}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: relic, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: relic}}
  template:
    metadata: {labels: {app: relic}}
    spec: {containers: [{name: app, image: registry.example/shop/relic:1}]}
---
apiVersion: v1
kind: ReplicationController
metadata: {name: elder, namespace: shop}
spec:
  replicas: 1
  selector: {app: elder}
  template:
    metadata: {labels: {app: elder}}
    spec: {containers: [{name: app, image: registry.example/shop/elder:1}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio-notes, namespace: istio-system}
data: {owner: somebody}
`

// awaitReady waits until as many pods are ready.
func awaitReady(t *testing.T, p *plane.Plane, namespace, selector string, count int) {
	t.Helper()
	r := kubectl(t, p, "-n", namespace, "wait", "--for=condition=Ready", "pod", "-l", selector, "--timeout=120s").want(t, 0)
	if n := strings.Count(r.out, "condition met"); n != count {
		t.Fatalf("%d pods are ready, want %d:\n%s", n, count, r.out)
	}
}

// surgeWhereNoneMayFail makes Deployments whose budget bears no pod less roll
// with one more: else rutter would, rightly, refuse to restart them.
func surgeWhereNoneMayFail(t *testing.T, p *plane.Plane) {
	t.Helper()
	strict := 0
	for _, b := range budgetNeeds(t, p) {
		if b.spare > 0 {
			continue
		}
		strict++
		kubectl(t, p, "-n", b.namespace, "patch", "deployment", b.object, "--type=merge", "-p",
			`{"spec":{"strategy":{"rollingUpdate":{"maxSurge":1,"maxUnavailable":0}}}}`).want(t, 0)
	}
	if strict == 0 {
		t.Fatal("the mesh has no budget that bears no disruption")
	}
}

// upgradeAll upgrades the whole mesh by a saved plan, which comes true, and looks
// at every workload: those with a sidecar are restarted once, within all budgets,
// and have the new one by the real webhook; the others are not touched; the log of
// the API server knows of no other change.
func upgradeAll(t *testing.T, p *plane.Plane, dropped []*plane.Object) {
	said := planUpgrade(t, p)
	before := workloads(t, p)
	restarts, left := partition(t, before)
	hpa := object(t, p, "autoscaling", "v2", "HorizontalPodAutoscaler", autoscaled(t, p).Namespace, autoscaled(t, p).Name)
	v, mark := watchBudgets(t, p, singles(t, p, restarts)...), auditMark(t, p)

	state := t.TempDir()
	r := rutter(t, state, p.Kubeconfig(), "run", "--plan", said.file, "--yes").want(t, 0)
	v.end(t, p)

	after := workloads(t, p)
	for name, w := range before {
		if slices.Contains(restarts, name) {
			if onDelete(t, p, w) {
				evictedOnce(t, w, after[name])
			} else {
				restartedOnce(t, w, after[name])
			}
			continue
		}
		untouched(t, w, after[name])
	}
	for _, w := range left {
		r.says(t, "left for a person: "+strings.ToLower(w.kind))
	}
	if len(after) != len(before) {
		t.Errorf("%d owners of pods before, %d now", len(before), len(after))
	}
	newControlPlane(t, p)
	pruned(t, p, dropped)
	if now := object(t, p, "autoscaling", "v2", "HorizontalPodAutoscaler", hpa.GetNamespace(), hpa.GetName()); now.GetGeneration() != hpa.GetGeneration() || now.GetUID() != hpa.GetUID() {
		t.Errorf("the autoscaler %s was touched", hpa.GetName())
	}
	onlyThese(t, changes(t, p, mark), restarts, dropped)
	cameTrue(t, p, said, state)
}

// partition tells which workloads have to be restarted, and which cannot be
// though their sidecar is old.
func partition(t *testing.T, all map[string]*workload) (restarts []string, left []*workload) {
	t.Helper()
	kinds := map[string]int{}
	for name, w := range all {
		switch {
		case !w.sidecar():
			kinds["without sidecar"]++
		case w.restartable():
			restarts = append(restarts, name)
			kinds[w.kind]++
		default:
			left = append(left, w)
			kinds[w.kind]++
		}
	}
	for _, k := range []string{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "Pod", "without sidecar"} {
		if kinds[k] == 0 {
			t.Fatalf("the mesh has no %s: %v", k, kinds)
		}
	}
	slices.Sort(restarts)
	return restarts, left
}

// singles are workloads of one replica: with surge, none of them may ever be
// without a ready pod.
func singles(t *testing.T, p *plane.Plane, restarts []string) []need {
	t.Helper()
	list, err := client(t, p).AppsV1().Deployments("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var out []need
	for _, d := range list.Items {
		if *d.Spec.Replicas == 1 && slices.Contains(restarts, "Deployment "+d.Namespace+"/"+d.Name) {
			out = append(out, need{what: "single replica", object: d.Name, namespace: d.Namespace, pods: labels.SelectorFromSet(d.Spec.Selector.MatchLabels), ready: 1})
		}
	}
	if len(out) == 0 {
		t.Fatal("the mesh has no workload of a single replica")
	}
	return out
}

// autoscaled is the autoscaler of a workload.
func autoscaled(t *testing.T, p *plane.Plane) metav1.ObjectMeta {
	t.Helper()
	list, err := client(t, p).AutoscalingV2().HorizontalPodAutoscalers("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range list.Items {
		if h.Namespace != mesh.SystemNamespace {
			return h.ObjectMeta
		}
	}
	t.Fatal("the mesh has no autoscaler")
	return metav1.ObjectMeta{}
}

func onDelete(t *testing.T, p *plane.Plane, w *workload) bool {
	t.Helper()
	if w.kind != "StatefulSet" {
		return false
	}
	s, err := client(t, p).AppsV1().StatefulSets(w.namespace).Get(t.Context(), w.name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s.Spec.UpdateStrategy.Type == "OnDelete"
}

// evictedOnce: a StatefulSet that waits for its pods to be deleted keeps its
// template, and its pods are new.
func evictedOnce(t *testing.T, before, after *workload) {
	t.Helper()
	if after == nil || after.generation != before.generation || !slices.Equal(after.proxies(), []string{newProxy}) || after.ready != len(before.pods) {
		t.Errorf("%s (OnDelete): before %+v, after %+v", before, before, after)
	}
}

// newControlPlane looks at what was applied, and whose its fields are.
func newControlPlane(t *testing.T, p *plane.Plane) {
	t.Helper()
	for name, image := range map[string]string{"istiod": "docker.io/istio/pilot:1.31.0", "istio-ingressgateway": ""} {
		d := object(t, p, "apps", "v1", "Deployment", mesh.SystemNamespace, name)
		got := kubectl(t, p, "-n", mesh.SystemNamespace, "get", "deployment", name, "-o", "jsonpath={.spec.template.spec.containers[0].image}").want(t, 0).out
		if image != "" && got != image {
			t.Errorf("%s has image %s", name, got)
		}
		for _, m := range d.GetManagedFields() {
			// The installer keeps its labels, by which istioctl finds what it installed.
			spec := strings.Contains(string(m.FieldsV1.GetRawBytes()), `"f:spec"`)
			if m.Operation == metav1.ManagedFieldsOperationApply && spec != (m.Manager == "rutter") {
				t.Errorf("%s: of its spec are %s's fields: %t", name, m.Manager, spec)
			}
		}
		if !slices.ContainsFunc(d.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool {
			return m.Manager == "rutter" && m.Operation == metav1.ManagedFieldsOperationApply
		}) {
			t.Errorf("%s has no fields that rutter applied", name)
		}
		kubectl(t, p, "-n", mesh.SystemNamespace, "rollout", "status", "deployment/"+name, "--timeout=1s").want(t, 0)
	}
	pods, err := client(t, p).CoreV1().Pods(mesh.SystemNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: "istio=ingressgateway"})
	if err != nil {
		t.Fatal(err)
	}
	if len(pods.Items) == 0 || slices.ContainsFunc(pods.Items, func(o corev1.Pod) bool { return proxyImage(&o) != newProxy }) {
		t.Errorf("the ingress gateway's %d pods are not all at %s", len(pods.Items), newProxy)
	}
	versions, err := p.Istioctl(t.Context(), "version", "--short=true")
	if err != nil || !strings.Contains(versions, "control plane version: 1.31.0") {
		t.Errorf("istioctl says (%v):\n%s", err, versions)
	}
}

// pruned: what only the old version had is gone, what was somebody's own is not.
func pruned(t *testing.T, p *plane.Plane, dropped []*plane.Object) {
	t.Helper()
	for _, o := range dropped {
		if _, err := p.Get(t.Context(), o.GroupVersionKind(), o.GetNamespace(), o.GetName()); !apierrors.IsNotFound(err) {
			t.Errorf("%s %s, which the new version dropped: %v", o.GetKind(), o.GetName(), err)
		}
	}
	if _, err := p.Get(t.Context(), schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, mesh.SystemNamespace, "istio-notes"); err != nil {
		t.Errorf("a ConfigMap that nobody installed: %v", err)
	}
}

// onlyThese holds the API server's record against what was to be done: every
// change was rutter's, was made, and was one of the control plane's, or of a
// workload with an old sidecar, one each.
func onlyThese(t *testing.T, all []change, restarts []string, dropped []*plane.Object) {
	t.Helper()
	patched, deleted := []string{}, 0
	for _, c := range all {
		if !strings.HasPrefix(c.agent, "rutter") {
			t.Errorf("%s by %s", c.what(), c.agent)
		}
		if !c.taken() && c.code != http.StatusConflict {
			t.Errorf("%s was answered with %d", c.what(), c.code)
		}
		if c.verb == "delete" {
			deleted++
		}
		if c.namespace == "" || c.namespace == mesh.SystemNamespace {
			continue
		}
		switch kind := map[string]string{"deployments": "Deployment", "statefulsets": "StatefulSet", "daemonsets": "DaemonSet"}[c.resource]; {
		case c.verb == "patch" && kind != "":
			patched = append(patched, kind+" "+c.namespace+"/"+c.name)
		case c.verb == "create" && c.resource == "pods/eviction":
		default:
			t.Errorf("%s is no restart", c.what())
		}
	}
	slices.Sort(patched)
	// All but the one that is restarted pod by pod.
	if missing := slices.DeleteFunc(slices.Clone(restarts), func(r string) bool { return slices.Contains(patched, r) }); len(patched) != len(restarts)-1 || len(missing) != 1 {
		t.Errorf("restarted were %d workloads, want %d; not among them: %v", len(patched), len(restarts)-1, missing)
	}
	if deleted != len(dropped) {
		t.Errorf("%d objects were deleted, want %d", deleted, len(dropped))
	}
	t.Logf("%d changes, %d restarts", len(all), len(patched))
}
