//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/tests/e2e/plane"
)

const (
	oldProxy = "docker.io/istio/proxyv2:1.30.3"
	newProxy = "docker.io/istio/proxyv2:1.31.0"
)

// restartable are the kinds of owners whose pods rutter replaces.
var restartable = []string{"Deployment", "StatefulSet", "DaemonSet"}

// workload is what owns pods, or a pod that nothing owns.
type workload struct {
	kind, namespace, name string
	generation            int64
	template              string // its pod template's annotations, as text
	mark                  string // of a restart by rutter
	manager               []string
	pods                  map[string]string // proxy image by pod; "" without a proxy
	ready                 int
}

func (w *workload) String() string { return w.kind + " " + w.namespace + "/" + w.name }

// proxies are the different images of its proxies.
func (w *workload) proxies() []string {
	return slices.Compact(slices.Sorted(maps.Values(w.pods)))
}

func (w *workload) sidecar() bool { return !slices.Contains(w.proxies(), "") && len(w.pods) > 0 }

func (w *workload) restartable() bool { return slices.Contains(restartable, w.kind) }

func client(t *testing.T, p *plane.Plane) kubernetes.Interface {
	t.Helper()
	config := p.Config()
	config.ContentType = runtime.ContentTypeProtobuf // a list of pods is dear in JSON, for both sides
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// workloads are all owners of pods outside Istio's namespace and the cluster's
// own, by their String, read from the API server.
func workloads(t *testing.T, p *plane.Plane) map[string]*workload {
	t.Helper()
	out := map[string]*workload{}
	owned := owners(t, p, out)
	pods, err := client(t, p).CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.DeletionTimestamp != nil {
			continue
		}
		w := &workload{kind: "Pod", namespace: pod.Namespace, name: pod.Name}
		if c := metav1.GetControllerOf(pod); c != nil {
			w.kind, w.name = c.Kind, c.Name
			if up, ok := owned[w.String()]; ok {
				w = &workload{kind: up.Kind, namespace: pod.Namespace, name: up.Name}
			}
		}
		if out[w.String()] == nil {
			out[w.String()] = w
		}
		w = out[w.String()]
		if w.pods == nil {
			w.pods = map[string]string{}
		}
		w.pods[pod.Name] = proxyImage(pod)
		if podReady(pod) {
			w.ready++
		}
	}
	maps.DeleteFunc(out, func(_ string, w *workload) bool {
		return w.namespace == mesh.SystemNamespace || w.namespace == metav1.NamespaceSystem
	})
	return out
}

// owners enters the Deployments, StatefulSets and DaemonSets, and returns what
// controls each ReplicaSet.
func owners(t *testing.T, p *plane.Plane, into map[string]*workload) map[string]*metav1.OwnerReference {
	t.Helper()
	apps, all := client(t, p).AppsV1(), metav1.ListOptions{}
	add := func(kind string, o *metav1.ObjectMeta, template *metav1.ObjectMeta) {
		w := &workload{
			kind: kind, namespace: o.Namespace, name: o.Name, generation: o.Generation,
			template: fmt.Sprint(template.Annotations), mark: template.Annotations["rutter.dev/restart"],
		}
		for _, m := range o.ManagedFields {
			w.manager = append(w.manager, m.Manager)
		}
		into[w.String()] = w
	}
	deployments, err := apps.Deployments("").List(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	for i := range deployments.Items {
		add("Deployment", &deployments.Items[i].ObjectMeta, &deployments.Items[i].Spec.Template.ObjectMeta)
	}
	stateful, err := apps.StatefulSets("").List(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	for i := range stateful.Items {
		add("StatefulSet", &stateful.Items[i].ObjectMeta, &stateful.Items[i].Spec.Template.ObjectMeta)
	}
	daemons, err := apps.DaemonSets("").List(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	for i := range daemons.Items {
		add("DaemonSet", &daemons.Items[i].ObjectMeta, &daemons.Items[i].Spec.Template.ObjectMeta)
	}
	sets, err := apps.ReplicaSets("").List(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	owned := map[string]*metav1.OwnerReference{}
	for i := range sets.Items {
		if c := metav1.GetControllerOf(&sets.Items[i]); c != nil {
			owned["ReplicaSet "+sets.Items[i].Namespace+"/"+sets.Items[i].Name] = c
		}
	}
	return owned
}

// proxies are the images of all proxies that run, as kubectl lists them.
func proxies(t *testing.T, p *plane.Plane) []string {
	t.Helper()
	const path = `{range .items[?(@.status.phase=="Running")]}{range .spec.initContainers[?(@.name=="istio-proxy")]}{.image}{"\n"}{end}{range .spec.containers[?(@.name=="istio-proxy")]}{.image}{"\n"}{end}{end}`
	return strings.Fields(kubectl(t, p, "get", "pods", "-A", "-o", "jsonpath="+path).want(t, 0).out)
}

func proxyImage(pod *corev1.Pod) string {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		if i := slices.IndexFunc(list, func(c corev1.Container) bool { return c.Name == mesh.ProxyContainer }); i >= 0 {
			return list[i].Image
		}
	}
	return ""
}

func podReady(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// restartedOnce fails the test unless a workload was restarted exactly once
// between two looks at it, has all its pods back, and only the new proxy.
func restartedOnce(t *testing.T, before, after *workload) {
	t.Helper()
	if after == nil {
		t.Errorf("%s is gone", before)
		return
	}
	if after.generation != before.generation+1 || after.mark == "" || after.mark == before.mark {
		t.Errorf("%s: generation %d -> %d, restart mark %q -> %q: not restarted exactly once", before, before.generation, after.generation, before.mark, after.mark)
	}
	if !slices.Equal(after.proxies(), []string{newProxy}) || len(after.pods) != len(before.pods) || after.ready != len(before.pods) {
		t.Errorf("%s: %d pods before; now %d of %d are ready, with proxies %v", before, len(before.pods), after.ready, len(after.pods), after.proxies())
	}
	if !slices.Contains(after.manager, "rutter") {
		t.Errorf("%s: its fields are of %v, none of rutter", before, after.manager)
	}
}

// untouched fails the test unless a workload and its pods are what they were.
func untouched(t *testing.T, before, after *workload) {
	t.Helper()
	if after == nil {
		t.Errorf("%s is gone", before)
		return
	}
	if after.generation != before.generation || after.template != before.template || !maps.Equal(after.pods, before.pods) {
		t.Errorf("%s was touched: generation %d -> %d, template %s -> %s, pods %v -> %v",
			before, before.generation, after.generation, before.template, after.template, before.pods, after.pods)
	}
	if slices.Contains(after.manager, "rutter") {
		t.Errorf("%s: fields of it are rutter's", before)
	}
}
