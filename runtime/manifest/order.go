package manifest

import (
	"strings"

	"rutter.dev/rutter/runtime/cluster"
)

// Stage is when an object of a manifest goes in. The order is that of DESIGN
// §8 ruling 3 and GUIDE §3: what others need comes first, and nothing that
// fails closed comes before what answers it.
type Stage int

// The stages, in order.
const (
	CRDs         Stage = iota // then wait until they are established
	Namespaces                //
	Base                      // accounts, RBAC, ConfigMaps, Services
	ControlPlane              // istiod with its autoscaler and budget; then wait
	Webhooks                  // they fail closed: only once istiod answers
	CNI                       // then wait
	Ztunnel                   // then wait
	Workloads                 // gateways and every other workload; then wait
	Config                    // custom resources, which webhooks validate
	Prune                     // deletions, in reverse order
	Inventory                 // what this manifest now owns
)

// String is how a progress line names the stage.
func (s Stage) String() string {
	return [...]string{
		"CRDs", "namespaces", "base", "control plane", "webhooks", "CNI", "ztunnel", "gateways", "configuration", "prune", "inventory",
	}[s]
}

// StageOf is the stage in which o goes in.
func StageOf(o *cluster.Object) Stage {
	gvk := o.GroupVersionKind()
	switch gvk.Kind {
	case "CustomResourceDefinition":
		return CRDs
	case "Namespace":
		if gvk.Group == "" {
			return Namespaces
		}
	case "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration",
		"MutatingAdmissionPolicyBinding", "ValidatingAdmissionPolicyBinding":
		return Webhooks
	case "HorizontalPodAutoscaler", "PodDisruptionBudget":
		if isIstiod(o) {
			return ControlPlane
		}
		return Workloads
	case "Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "Pod", "Job", "CronJob", "Rollout":
		return workloadStage(o)
	}
	if isCustom(gvk.Group) {
		return Config
	}
	return Base
}

func workloadStage(o *cluster.Object) Stage {
	labels := o.GetLabels()
	switch {
	case isIstiod(o):
		return ControlPlane
	case labels["operator.istio.io/component"] == "Cni", labels["k8s-app"] == "istio-cni-node", strings.HasPrefix(o.GetName(), "istio-cni"):
		return CNI
	case labels["operator.istio.io/component"] == "Ztunnel", labels["app"] == "ztunnel", o.GetName() == "ztunnel":
		return Ztunnel
	}
	return Workloads
}

func isIstiod(o *cluster.Object) bool {
	labels := o.GetLabels()
	return labels["operator.istio.io/component"] == "Pilot" || labels["app"] == "istiod" ||
		o.GetName() == "istiod" || strings.HasPrefix(o.GetName(), "istiod-")
}

// isCustom: groups of the API server itself have no dot, or end in .k8s.io;
// the Gateway API does too, but comes as CRDs.
func isCustom(group string) bool {
	if group == "gateway.networking.k8s.io" || strings.HasSuffix(group, ".x-k8s.io") {
		return true
	}
	return strings.Contains(group, ".") && !strings.HasSuffix(group, ".k8s.io")
}

// Waits reports whether objects of this kind become ready in a way worth
// waiting for before the next stage.
func Waits(o *cluster.Object) bool {
	switch o.GetKind() {
	case "CustomResourceDefinition", "Deployment", "DaemonSet", "StatefulSet", "Job", "Pod":
		return true
	}
	return false
}
