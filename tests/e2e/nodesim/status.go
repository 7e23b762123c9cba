package nodesim

import (
	"context"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// report writes a pod's status as a kubelet would. waiting is why its container
// does not run, if so. A report that the API server does not take is made again
// at the next probe.
func (n *node) report(ctx context.Context, i *istiod, ready bool, waiting string) {
	body, err := json.Marshal(map[string]any{"status": statusOf(i, ready, waiting)})
	if err != nil {
		note("istiod %s: status: %v", i.pod.Name, err)
		return
	}
	_, err = n.client.CoreV1().Pods(i.pod.Namespace).Patch(ctx, i.pod.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	if err != nil {
		if ctx.Err() == nil {
			note("istiod %s: status: %v", i.pod.Name, err)
		}
		return
	}
	i.setReady(ready)
	note("istiod %s: ready %t %s", i.pod.Name, ready, waiting)
	if ready {
		n.forward(ctx, i)
	}
}

func statusOf(i *istiod, ready bool, waiting string) corev1.PodStatus {
	now, value := metav1.Now(), corev1.ConditionFalse
	if ready {
		value = corev1.ConditionTrue
	}
	c := i.pod.Spec.Containers[0]
	container := corev1.ContainerStatus{Name: c.Name, Image: c.Image, ImageID: c.Image, Ready: ready, Started: &ready, RestartCount: i.restarts}
	if waiting == "" {
		container.State.Running = &corev1.ContainerStateRunning{StartedAt: now}
	} else {
		container.State.Waiting = &corev1.ContainerStateWaiting{Reason: waiting}
	}
	condition := func(kind corev1.PodConditionType, value corev1.ConditionStatus) corev1.PodCondition {
		return corev1.PodCondition{Type: kind, Status: value, LastTransitionTime: now}
	}
	return corev1.PodStatus{
		Phase: corev1.PodRunning, HostIP: "127.0.0.1", PodIP: i.ip, PodIPs: []corev1.PodIP{{IP: i.ip}}, StartTime: &now,
		Conditions: []corev1.PodCondition{
			condition(corev1.PodInitialized, corev1.ConditionTrue), condition(corev1.PodReady, value), condition(corev1.ContainersReady, value),
		},
		ContainerStatuses: []corev1.ContainerStatus{container},
	}
}

// remove lets a deleted pod go; it is not there for a kubelet that stops.
func (n *node) remove(ctx context.Context, p *corev1.Pod) {
	now := int64(0)
	pods := n.client.CoreV1().Pods(p.Namespace)
	got, err := pods.Get(ctx, p.Name, metav1.GetOptions{})
	if err != nil || got.UID != p.UID || got.DeletionTimestamp == nil {
		return
	}
	err = pods.Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &p.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		note("istiod %s: removing its pod: %v", p.Name, err)
	}
}

// forward tells kwok where a port-forward to the pod goes.
func (n *node) forward(ctx context.Context, i *istiod) {
	var forwards []any
	for port, local := range i.ports {
		forwards = append(forwards, map[string]any{"ports": []any{int64(port)}, "target": map[string]any{"port": int64(local), "address": "127.0.0.1"}})
	}
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "PortForward",
		"metadata": map[string]any{
			"name": i.pod.Name, "namespace": i.pod.Namespace,
			"ownerReferences": []any{map[string]any{"apiVersion": "v1", "kind": "Pod", "name": i.pod.Name, "uid": string(i.pod.UID)}},
		},
		"spec": map[string]any{"forwards": forwards},
	}}
	r := n.objects.Resource(schema.GroupVersionResource{Group: "kwok.x-k8s.io", Version: "v1alpha1", Resource: "portforwards"}).Namespace(i.pod.Namespace)
	if _, err := r.Create(ctx, o, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		note("istiod %s: port-forward: %v", i.pod.Name, err)
	}
}

// discoveryOf is where a ready istiod of a revision takes its proxies' streams.
func (n *node) discoveryOf(revision string) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, i := range n.istiods {
		if i.revision == revision && i.isReady() {
			return loopback(i.ports[portGRPC]), true
		}
	}
	return "", false
}
