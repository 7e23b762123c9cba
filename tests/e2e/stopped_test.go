//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/tests/e2e/plane"
)

// A workload whose new pods never get ready stops the wave that it is in:
// what rutter says of the others is what they are, and those that had not
// begun are as they were. Once it is repaired, the run is resumed to its end,
// and nothing that was restarted is restarted again.
func TestStoppedWave(t *testing.T) {
	parallel(t, 80*time.Second)
	p := startPlane(t, plane.Options{AuditLevel: "Request", FirstPort: besides(1)})
	bringMesh(t, p, mesh.Spec{Workloads: 20, Namespaces: 4, Seed: 1, NoSidecar: 1})
	victim := secondDeployment(t, p)
	kubectl(t, p, "-n", victim.namespace, "patch", "deployment", victim.name, "--type=merge", "-p", `{"spec":{"progressDeadlineSeconds":2}}`).want(t, 0)
	neverReady(t, p, victim)
	before, mark := workloads(t, p), auditMark(t, p)
	state := t.TempDir()

	r := upgrade(t, p, state, "--set", "then=2").want(t, 1)

	r.says(t, fmt.Sprintf("deployment.apps/%s in %s", victim.name, victim.namespace), "stops here")
	restarted, rolling, notBegun := standing(t, r)
	t.Logf("restarted %v, rolling %v, not begun %v", restarted, rolling, notBegun)
	awaitAllBut(t, p, victim)
	after := workloads(t, p)
	for name, w := range before {
		is := func(l listed) bool { return l.has(w) }
		switch now := after[name]; {
		case w.String() == victim.String():
			halfWay(t, w, now)
		case !w.sidecar():
			untouched(t, w, now)
		case now.mark != "" && !is(restarted) && !is(rolling):
			t.Errorf("%s was restarted, and it is not said", w)
		case now.mark != "":
			restartedOnce(t, w, now)
		case is(notBegun):
			untouched(t, w, now)
		default:
			t.Errorf("%s was not restarted, and it is not said", w)
		}
	}
	if restarted.count == 0 || notBegun.count == 0 {
		t.Errorf("the wave did not stop in its middle: %d restarted, %d not begun", restarted.count, notBegun.count)
	}

	repair(t, p, victim)
	rutter(t, state, p.Kubeconfig(), "resume", "--yes").want(t, 0)

	after = workloads(t, p)
	for name, w := range before {
		if w.sidecar() {
			restartedOnce(t, w, after[name])
		} else {
			untouched(t, w, after[name])
		}
	}
	once(t, changes(t, p, mark))
}

// secondDeployment is a Deployment with sidecars that rolls one pod at a time,
// the second by name: not the canary, which is the first of its like, and begun
// early enough for others to be left when it fails.
func secondDeployment(t *testing.T, p *plane.Plane) *workload {
	t.Helper()
	var names []string
	all := workloads(t, p)
	for name, w := range all {
		if w.kind == "Deployment" && w.sidecar() && len(w.pods) == 3 {
			names = append(names, name)
		}
	}
	if len(names) < 2 {
		t.Fatalf("the mesh has only %v", names)
	}
	slices.Sort(names)
	return all[names[1]]
}

// neverReady lets all pods that are made of a workload from now on never get
// ready (see the stages of the plane's kwok).
func neverReady(t *testing.T, p *plane.Plane, w *workload) {
	t.Helper()
	apply(t, p, `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: never-ready}
spec:
  failurePolicy: Fail
  reinvocationPolicy: Never
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "`+w.namespace+`"}}
    objectSelector: {matchLabels: {app: "`+w.name+`"}}
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: 'Object{metadata: Object.metadata{annotations: {"sim.rutter.dev/never-ready": "true"}}}'
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: never-ready}
spec: {policyName: never-ready}
`)
	mutates(t, p, w, true)
}

// mutates waits until new pods of the workload are, or are not, made so that
// they never get ready.
func mutates(t *testing.T, p *plane.Plane, w *workload, want bool) {
	t.Helper()
	until(t, "the policy is in force or gone", func(ctx context.Context) (bool, error) {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "probe", Labels: map[string]string{"app": w.name}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "registry.example/probe:1"}}},
		}
		got, err := client(t, p).CoreV1().Pods(w.namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return false, err
		}
		return (got.Annotations["sim.rutter.dev/never-ready"] == "true") == want, nil
	})
}

// repair takes the fault away, and the pods that have it.
func repair(t *testing.T, p *plane.Plane, w *workload) {
	t.Helper()
	kubectl(t, p, "delete", "mutatingadmissionpolicybinding,mutatingadmissionpolicy", "never-ready").want(t, 0)
	mutates(t, p, w, false)
	pods, err := client(t, p).CoreV1().Pods(w.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + w.name})
	if err != nil {
		t.Fatal(err)
	}
	for i := range pods.Items {
		if pod := &pods.Items[i]; !podReady(pod) {
			kubectl(t, p, "-n", pod.Namespace, "delete", "pod", pod.Name).want(t, 0)
		}
	}
	if err := p.AwaitRollouts(t.Context(), "", patience); err != nil {
		t.Fatal(err)
	}
}

// listed are workloads as rutter lists them: at most eight by name.
type listed struct {
	names []string
	count int
}

func (l listed) has(w *workload) bool {
	return slices.Contains(l.names, w.namespace+"/"+w.name) || l.count > len(l.names)
}

var (
	standingText = regexp.MustCompile(`restarted: (.*?); still rolling: (.*?); not begun: ([^;\n]*)`)
	moreText     = regexp.MustCompile(` and (\d+) more$`)
)

// standing is what rutter says of the workloads when a wave stops.
func standing(t *testing.T, r result) (restarted, rolling, notBegun listed) {
	t.Helper()
	m := standingText.FindStringSubmatch(r.errOut)
	if m == nil {
		t.Fatalf("it does not say what was restarted:\n%s", r.errOut)
	}
	read := func(text string) (l listed) {
		if text == "none" {
			return l
		}
		if more := moreText.FindStringSubmatch(text); more != nil {
			n, err := strconv.Atoi(more[1])
			if err != nil {
				t.Fatal(err)
			}
			l.count, text = n, strings.TrimSuffix(text, more[0])
		}
		l.names = strings.Split(text, ", ")
		l.count += len(l.names)
		return l
	}
	return read(m[1]), read(m[2]), read(m[3])
}

// awaitAllBut waits until every other workload has what its spec asks for.
func awaitAllBut(t *testing.T, p *plane.Plane, victim *workload) {
	t.Helper()
	until(t, "all others are ready", func(context.Context) (bool, error) {
		for _, w := range workloads(t, p) {
			if w.String() != victim.String() && (w.ready < len(w.pods) || len(w.proxies()) > 1) {
				return false, fmt.Errorf("%s: %d of %d pods are ready, proxies %v", w, w.ready, len(w.pods), w.proxies())
			}
		}
		return true, nil
	})
}

// halfWay: a workload that stopped a wave still serves with its old pods.
func halfWay(t *testing.T, before, now *workload) {
	t.Helper()
	if now.generation != before.generation+1 || now.mark == "" {
		t.Errorf("%s: generation %d -> %d, restart mark %q", before, before.generation, now.generation, now.mark)
	}
	if now.ready != len(before.pods) || !slices.Equal(now.proxies(), []string{oldProxy, newProxy}) {
		t.Errorf("%s: %d of its %d pods are ready, with proxies %v; want %d ready ones, and one that is not", before, now.ready, len(now.pods), now.proxies(), len(before.pods))
	}
}
