package controllers_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
)

// bench is a cluster with all controllers and three Nodes, seen through a
// real typed client.
type bench struct {
	*testing.T
	c  *sim.Cluster
	cs kubernetes.Interface
}

func newBench(t *testing.T) bench {
	t.Helper()
	c, err := sim.New(sim.Options{Controllers: controllers.All()})
	if err != nil {
		t.Fatal(err)
	}
	var nodes []*unstructured.Unstructured
	for i := 1; i <= 3; i++ {
		nodes = append(nodes, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": fmt.Sprint("node-", i)},
			"status": map[string]any{"addresses": []any{map[string]any{"type": "InternalIP", "address": fmt.Sprint("10.0.0.", i)}}},
		}})
	}
	if err := c.Load(nodes); err != nil {
		t.Fatal(err)
	}
	cs, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	b := bench{t, c, cs}
	_, err = cs.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{})
	b.ok(err)
	return b
}

func (b bench) ok(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: "shop", Labels: map[string]string{"app": name}}
}

func selector(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
}

func template(name, image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}},
	}
}

// deploy creates a Deployment of three and lets it become ready.
func (b bench) deploy(name string, strategy appsv1.DeploymentStrategyType) {
	b.Helper()
	_, err := b.cs.AppsV1().Deployments("shop").Create(b.Context(), &appsv1.Deployment{ObjectMeta: meta(name), Spec: appsv1.DeploymentSpec{
		Replicas: new3(), Selector: selector(name), Template: template(name, "web:1"), Strategy: appsv1.DeploymentStrategy{Type: strategy},
	}}, metav1.CreateOptions{})
	b.ok(err)
	b.c.Advance(time.Minute)
}

func new3() *int32 { n := int32(3); return &n }

// pod creates a bare pod on a Node and lets it become ready.
func (b bench) pod(name string, grace *int64, finalizers ...string) {
	b.Helper()
	p := &corev1.Pod{ObjectMeta: meta(name), Spec: template(name, "web:1").Spec}
	p.Finalizers, p.Spec.TerminationGracePeriodSeconds = finalizers, grace
	_, err := b.cs.CoreV1().Pods("shop").Create(b.Context(), p, metav1.CreateOptions{})
	b.ok(err)
	b.c.Advance(10 * time.Second)
}

func (b bench) get(name string) *corev1.Pod {
	b.Helper()
	p, err := b.cs.CoreV1().Pods("shop").Get(b.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	b.ok(err)
	return p
}

// pods lists "name" of living pods and "name!" of terminating ones.
func (b bench) pods() (living, leaving []string) {
	b.Helper()
	l, err := b.cs.CoreV1().Pods("shop").List(b.Context(), metav1.ListOptions{})
	b.ok(err)
	for _, p := range l.Items {
		if p.DeletionTimestamp != nil {
			leaving = append(leaving, p.Name)
		} else {
			living = append(living, p.Name)
		}
	}
	return living, leaving
}

func (b bench) setImage(kind, name, image string) {
	b.Helper()
	patch := []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"app","image":"` + image + `"}]}}}}`)
	var err error
	switch kind {
	case "Deployment":
		_, err = b.cs.AppsV1().Deployments("shop").Patch(b.Context(), name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	case "StatefulSet":
		_, err = b.cs.AppsV1().StatefulSets("shop").Patch(b.Context(), name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	case "DaemonSet":
		_, err = b.cs.AppsV1().DaemonSets("shop").Patch(b.Context(), name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	}
	b.ok(err)
}

func seconds(n int64) *int64 { return &n }

func TestPodDeletionIsGraceful(t *testing.T) {
	for _, tc := range []struct {
		name       string
		own, asked *int64
		want       int64 // seconds; 0 is at once
	}{
		{"by default", nil, nil, 30},
		{"as the pod says", seconds(5), nil, 5},
		{"as the request says", seconds(5), seconds(60), 60},
		{"negative", nil, seconds(-1), 1},
		{"none", nil, seconds(0), 0},
		{"none, by the pod", seconds(0), nil, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t)
			b.pod("web", tc.own)
			asked := b.c.Clock().Now()
			b.ok(b.cs.CoreV1().Pods("shop").Delete(t.Context(), "web", metav1.DeleteOptions{GracePeriodSeconds: tc.asked}))
			p := b.get("web")
			if tc.want == 0 {
				if p != nil {
					t.Errorf("still there: %v", p.DeletionTimestamp)
				}
				return
			}
			if p == nil || p.DeletionTimestamp == nil || !p.DeletionTimestamp.Time.Equal(asked.Add(time.Duration(tc.want)*time.Second)) ||
				p.DeletionGracePeriodSeconds == nil || *p.DeletionGracePeriodSeconds != tc.want || p.Generation < 2 {
				t.Fatalf("not marked for %d s: %+v", tc.want, p)
			}
			// A second request that would not shorten the period changes nothing.
			b.ok(b.cs.CoreV1().Pods("shop").Delete(t.Context(), "web", metav1.DeleteOptions{}))
			if again := b.get("web"); again.ResourceVersion != p.ResourceVersion {
				t.Error("the second request changed the pod")
			}
			b.c.Advance(time.Second)
			if b.get("web") != nil {
				t.Error("still there after a second")
			}
			events, err := b.cs.CoreV1().Events("shop").List(t.Context(), metav1.ListOptions{FieldSelector: "reason=Killing"})
			b.ok(err)
			if len(events.Items) != 1 || events.Items[0].Message != "Stopping container app" {
				t.Errorf("events %v", events.Items)
			}
		})
	}
}

func TestDeletionOfATerminatingPodCanBeShortened(t *testing.T) {
	b := newBench(t)
	b.pod("web", nil, "example.com/held")
	pods := b.cs.CoreV1().Pods("shop")
	asked, before := b.c.Clock().Now(), b.get("web").Generation
	b.ok(pods.Delete(t.Context(), "web", metav1.DeleteOptions{}))
	b.ok(pods.Delete(t.Context(), "web", metav1.DeleteOptions{GracePeriodSeconds: seconds(10)}))
	if p := b.get("web"); !p.DeletionTimestamp.Time.Equal(asked.Add(10*time.Second)) || *p.DeletionGracePeriodSeconds != 10 || p.Generation != before+1 {
		t.Errorf("%+v", p.ObjectMeta)
	}
	b.c.Advance(time.Minute)
	if p := b.get("web"); p == nil || *p.DeletionGracePeriodSeconds != 0 {
		t.Fatalf("the finalizer does not hold the ended pod: %+v", p)
	}
	_, err := pods.Patch(t.Context(), "web", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	b.ok(err)
	if b.get("web") != nil {
		t.Error("still there without its finalizer")
	}
}

func TestUnscheduledAndEndedPodsGoAtOnce(t *testing.T) {
	b := newBench(t)
	p := &corev1.Pod{ObjectMeta: meta("lost"), Spec: template("lost", "web:1").Spec}
	p.Spec.NodeSelector = map[string]string{"no": "where"}
	done := &corev1.Pod{ObjectMeta: meta("done"), Spec: template("done", "web:1").Spec}
	done.Spec.RestartPolicy = corev1.RestartPolicyNever
	for _, p := range []*corev1.Pod{p, done} {
		_, err := b.cs.CoreV1().Pods("shop").Create(t.Context(), p, metav1.CreateOptions{})
		b.ok(err)
	}
	b.c.Advance(time.Minute)
	if got := b.get("done").Status.Phase; got != corev1.PodSucceeded {
		t.Fatalf("phase %s", got)
	}
	for _, n := range []string{"lost", "done"} {
		b.ok(b.cs.CoreV1().Pods("shop").Delete(t.Context(), n, metav1.DeleteOptions{}))
		if b.get(n) != nil {
			t.Errorf("%s is still there", n)
		}
	}
}

func TestWatchSeesThePodTerminate(t *testing.T) {
	b := newBench(t)
	b.pod("web", nil)
	w, err := b.cs.CoreV1().Pods("shop").Watch(t.Context(), metav1.ListOptions{ResourceVersion: b.get("web").ResourceVersion})
	b.ok(err)
	b.ok(b.cs.CoreV1().Pods("shop").Delete(t.Context(), "web", metav1.DeleteOptions{}))
	b.c.Advance(time.Second)
	var seen []string
	for e := range w.ResultChan() {
		p, _ := e.Object.(*corev1.Pod)
		seen = append(seen, fmt.Sprint(e.Type, *p.DeletionGracePeriodSeconds))
		if e.Type == "DELETED" {
			break
		}
	}
	// The kubelet ends the pod by a request without grace, which the server
	// writes down before it removes the pod.
	if got := strings.Join(seen, " "); got != "MODIFIED30 MODIFIED0 DELETED0" {
		t.Error(got)
	}
}

func TestRolloutDoesNotWaitForTerminatingPods(t *testing.T) {
	b := newBench(t)
	b.deploy("web", appsv1.RollingUpdateDeploymentStrategyType)
	b.setImage("Deployment", "web", "web:2")
	var most int
	for range 60 {
		living, leaving := b.pods()
		if len(living) < 3 || len(living) > 4 {
			t.Errorf("%d living pods", len(living))
		}
		most = max(most, len(living)+len(leaving))
		b.c.Advance(time.Second / 2)
	}
	if most <= 4 {
		t.Errorf("at most %d pods, so that none terminated beside its successor", most)
	}
	d, err := b.cs.AppsV1().Deployments("shop").Get(t.Context(), "web", metav1.GetOptions{})
	b.ok(err)
	living, leaving := b.pods()
	if d.Status.UpdatedReplicas != 3 || d.Status.AvailableReplicas != 3 || d.Status.Replicas != 3 || len(living) != 3 || len(leaving) != 0 {
		t.Errorf("%+v, pods %v, terminating %v", d.Status, living, leaving)
	}
}

func TestRecreateWaitsForTerminatingPods(t *testing.T) {
	b := newBench(t)
	b.deploy("web", appsv1.RecreateDeploymentStrategyType)
	b.setImage("Deployment", "web", "web:2")
	if living, leaving := b.pods(); len(living) != 0 || len(leaving) != 3 {
		t.Fatalf("living %v, terminating %v", living, leaving)
	}
	b.c.Advance(time.Second)
	if living, leaving := b.pods(); len(living) != 3 || len(leaving) != 0 {
		t.Errorf("living %v, terminating %v", living, leaving)
	}
}

func TestStatefulSetWaitsForTheOldPod(t *testing.T) {
	b := newBench(t)
	_, err := b.cs.AppsV1().StatefulSets("shop").Create(t.Context(), &appsv1.StatefulSet{ObjectMeta: meta("db"), Spec: appsv1.StatefulSetSpec{
		Replicas: new3(), Selector: selector("db"), Template: template("db", "db:1"),
	}}, metav1.CreateOptions{})
	b.ok(err)
	b.c.Advance(time.Minute)
	old := b.get("db-2")
	b.setImage("StatefulSet", "db", "db:2")
	if p := b.get("db-2"); p.UID != old.UID || p.DeletionTimestamp == nil {
		t.Fatalf("%+v", p.ObjectMeta)
	}
	if _, leaving := b.pods(); len(leaving) != 1 {
		t.Errorf("%v terminate at once", leaving)
	}
	b.c.Advance(time.Second)
	if p := b.get("db-2"); p.UID == old.UID || p.Spec.Containers[0].Image != "db:2" {
		t.Errorf("not replaced: %s %s", p.UID, p.Spec.Containers[0].Image)
	}
	b.c.Advance(time.Minute)
	for i := range 3 {
		if p := b.get(fmt.Sprint("db-", i)); p == nil || p.Spec.Containers[0].Image != "db:2" {
			t.Errorf("db-%d: %v", i, p)
		}
	}
}

func TestDaemonSetWaitsForTheOldPod(t *testing.T) {
	b := newBench(t)
	_, err := b.cs.AppsV1().DaemonSets("shop").Create(t.Context(), &appsv1.DaemonSet{ObjectMeta: meta("agent"), Spec: appsv1.DaemonSetSpec{
		Selector: selector("agent"), Template: template("agent", "agent:1"),
	}}, metav1.CreateOptions{})
	b.ok(err)
	b.c.Advance(time.Minute)
	b.setImage("DaemonSet", "agent", "agent:2")
	if living, leaving := b.pods(); len(living) != 2 || len(leaving) != 1 {
		t.Fatalf("living %v, terminating %v", living, leaving)
	}
	for range 100 {
		perNode := map[string]int{}
		l, err := b.cs.CoreV1().Pods("shop").List(t.Context(), metav1.ListOptions{})
		b.ok(err)
		for _, p := range l.Items {
			if perNode[p.Spec.NodeName]++; perNode[p.Spec.NodeName] > 1 {
				t.Fatalf("two pods on %s", p.Spec.NodeName)
			}
		}
		b.c.Advance(time.Second / 2)
	}
	ds, err := b.cs.AppsV1().DaemonSets("shop").Get(t.Context(), "agent", metav1.GetOptions{})
	b.ok(err)
	if ds.Status.UpdatedNumberScheduled != 3 || ds.Status.NumberAvailable != 3 {
		t.Errorf("%+v", ds.Status)
	}
}

func TestEvictedPodCountsAsDisrupted(t *testing.T) {
	b := newBench(t)
	b.deploy("web", appsv1.RollingUpdateDeploymentStrategyType)
	one := intstr.FromInt32(1)
	_, err := b.cs.PolicyV1().PodDisruptionBudgets("shop").Create(t.Context(), &policyv1.PodDisruptionBudget{
		ObjectMeta: meta("web"), Spec: policyv1.PodDisruptionBudgetSpec{Selector: selector("web"), MaxUnavailable: &one},
	}, metav1.CreateOptions{})
	b.ok(err)
	living, _ := b.pods()
	evict := func(name string) error {
		return b.cs.PolicyV1().Evictions("shop").Evict(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"}})
	}
	b.ok(evict(living[0]))
	if p := b.get(living[0]); p == nil || p.DeletionTimestamp == nil {
		t.Errorf("the evicted pod does not terminate: %v", p)
	}
	pdb, err := b.cs.PolicyV1().PodDisruptionBudgets("shop").Get(t.Context(), "web", metav1.GetOptions{})
	b.ok(err)
	if pdb.Status.CurrentHealthy != 2 || pdb.Status.DisruptionsAllowed != 0 || pdb.Status.ExpectedPods != 3 {
		t.Errorf("%+v", pdb.Status)
	}
	if err := evict(living[1]); !apierrors.IsTooManyRequests(err) {
		t.Errorf("%v, expected 429", err)
	}
	b.c.Advance(time.Minute)
	b.ok(evict(living[1]))
}

func TestNamespaceGoesAfterItsPods(t *testing.T) {
	b := newBench(t)
	b.deploy("web", appsv1.RollingUpdateDeploymentStrategyType)
	b.pod("bare", seconds(40))
	b.ok(b.cs.CoreV1().Namespaces().Delete(t.Context(), "shop", metav1.DeleteOptions{}))
	ns, err := b.cs.CoreV1().Namespaces().Get(t.Context(), "shop", metav1.GetOptions{})
	b.ok(err)
	if living, leaving := b.pods(); ns.Status.Phase != corev1.NamespaceTerminating || len(living) != 0 || len(leaving) != 4 {
		t.Errorf("%s, living %v, terminating %v", ns.Status.Phase, living, leaving)
	}
	b.c.Advance(time.Second)
	if _, err := b.cs.CoreV1().Namespaces().Get(t.Context(), "shop", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("%v, expected not found", err)
	}
	for _, o := range b.c.Objects() {
		if o.GetNamespace() == "shop" {
			t.Errorf("left behind: %s %s", o.GetKind(), o.GetName())
		}
	}
}

func TestGarbageCollectionIsGraceful(t *testing.T) {
	for policy, held := range map[metav1.DeletionPropagation]bool{metav1.DeletePropagationBackground: false, metav1.DeletePropagationForeground: true} {
		t.Run(string(policy), func(t *testing.T) {
			b := newBench(t)
			b.deploy("web", appsv1.RollingUpdateDeploymentStrategyType)
			b.ok(b.cs.AppsV1().Deployments("shop").Delete(t.Context(), "web", metav1.DeleteOptions{PropagationPolicy: &policy}))
			if living, leaving := b.pods(); len(living) != 0 || len(leaving) != 3 {
				t.Errorf("living %v, terminating %v", living, leaving)
			}
			_, err := b.cs.AppsV1().Deployments("shop").Get(t.Context(), "web", metav1.GetOptions{})
			if there := err == nil; there != held {
				t.Errorf("while its pods terminate: %v", err)
			}
			b.c.Advance(time.Second)
			if _, err := b.cs.AppsV1().Deployments("shop").Get(t.Context(), "web", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("%v, expected not found", err)
			}
			if living, leaving := b.pods(); len(living)+len(leaving) != 0 {
				t.Errorf("living %v, terminating %v", living, leaving)
			}
		})
	}
}

func TestJobReplacesATerminatingPod(t *testing.T) {
	b := newBench(t)
	pod := template("once", "batch:1")
	pod.Annotations = map[string]string{controllers.AnnotationCompleteAfter: "1m"}
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	_, err := b.cs.BatchV1().Jobs("shop").Create(t.Context(), &batchv1.Job{ObjectMeta: meta("once"), Spec: batchv1.JobSpec{Template: pod}}, metav1.CreateOptions{})
	b.ok(err)
	b.c.Advance(10 * time.Second)
	living, _ := b.pods()
	b.ok(b.cs.CoreV1().Pods("shop").Delete(t.Context(), living[0], metav1.DeleteOptions{}))
	job, err := b.cs.BatchV1().Jobs("shop").Get(t.Context(), "once", metav1.GetOptions{})
	b.ok(err)
	if s := job.Status; s.Active != 1 || s.Terminating == nil || *s.Terminating != 1 {
		t.Errorf("%+v", s)
	}
	b.c.Advance(2 * time.Minute)
	job, err = b.cs.BatchV1().Jobs("shop").Get(t.Context(), "once", metav1.GetOptions{})
	b.ok(err)
	if s := job.Status; s.Succeeded != 1 || *s.Terminating != 0 || s.CompletionTime == nil {
		t.Errorf("%+v", s)
	}
}
