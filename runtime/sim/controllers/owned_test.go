package controllers_test

import (
	"encoding/json"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// owned reads the status fields that a manager owns, "" and nil when it has no
// such entry or more than one.
func owned(t *testing.T, list []metav1.ManagedFieldsEntry, manager string) (fields map[string]any, api string) {
	t.Helper()
	n := 0
	for _, e := range list {
		if e.Manager != manager || e.Subresource != "status" {
			continue
		}
		n++
		var m map[string]map[string]any
		if err := json.Unmarshal(e.FieldsV1.GetRawBytes(), &m); err != nil {
			t.Fatal(err)
		}
		if e.Operation != metav1.ManagedFieldsOperationUpdate || e.Time == nil || len(m) != 1 {
			t.Errorf("entry %+v", e)
		}
		fields, api = m["f:status"], e.APIVersion
	}
	if n > 1 {
		t.Errorf("%d entries of %s", n, manager)
	}
	return fields, api
}

func TestStatusBelongsToItsController(t *testing.T) {
	b := newBench(t)
	b.deploy("web", appsv1.RollingUpdateDeploymentStrategyType)
	deployments := b.cs.AppsV1().Deployments("shop")
	d, err := deployments.Get(t.Context(), "web", metav1.GetOptions{})
	b.ok(err)
	fields, api := owned(t, d.ManagedFields, "kube-controller-manager")
	conditions, _ := fields["f:conditions"].(map[string]any)
	available, _ := conditions[`k:{"type":"Available"}`].(map[string]any)
	for _, f := range []string{".", "f:type", "f:status", "f:reason", "f:message", "f:lastTransitionTime", "f:lastUpdateTime"} {
		if available[f] == nil {
			t.Errorf("condition Available has no %s: %v", f, available)
		}
	}
	if api != "apps/v1" || fields["f:availableReplicas"] == nil || fields["f:observedGeneration"] == nil || fields["f:unavailableReplicas"] != nil {
		t.Errorf("%s %v", api, fields)
	}
	living, _ := b.pods()
	pod := b.get(living[0])
	fields, api = owned(t, pod.ManagedFields, "kubelet")
	addresses, _ := fields["f:podIPs"].(map[string]any)
	if api != "v1" || fields["f:phase"] == nil || fields["f:containerStatuses"] == nil || fields["f:qosClass"] != nil || addresses[`k:{"ip":"`+pod.Status.PodIP+`"}`] == nil {
		t.Errorf("%s %v", api, fields)
	}
	// The upstream field manager reads the entries, and keeps them.
	_, err = deployments.Patch(t.Context(), "web", types.ApplyPatchType,
		[]byte(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":2}}`), metav1.PatchOptions{FieldManager: "test", Force: new(bool)})
	if err == nil {
		t.Error("the replicas of another manager were taken without force")
	}
	force := true
	d, err = deployments.Patch(t.Context(), "web", types.ApplyPatchType,
		[]byte(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":2}}`), metav1.PatchOptions{FieldManager: "test", Force: &force})
	b.ok(err)
	b.c.Advance(time.Minute)
	if fields, _ := owned(t, d.ManagedFields, "kube-controller-manager"); fields["f:availableReplicas"] == nil {
		t.Errorf("%v", fields)
	}
}
