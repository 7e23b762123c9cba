// Package controllers holds the reconciliation loops of the simulated cluster:
// what kube-controller-manager, the scheduler and the kubelets would do, on
// virtual time. All of them are level-triggered and derive what they need,
// timers included, from stored objects; none keeps state of its own, so that
// a cluster reloaded from disk goes on where it was.
//
// The arithmetic of rollouts, disruption budgets and revisions follows the
// documented behaviour of the Kubernetes controllers of 1.36; what is
// simplified is said at each controller.
package controllers

import (
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// All returns every controller of the simulated cluster, in a fixed order.
func All() []sim.Controller {
	return []sim.Controller{
		namespaceController{},
		deploymentController{},
		replicaSetController{},
		statefulSetController{},
		daemonSetController{},
		jobController{},
		scheduler{},
		kubelet{},
		endpointsController{},
		loadBalancers{},
		budgetController{},
		autoscaler{},
	}
}

// The resources that the controllers read and write.
var (
	grNamespaces      = schema.GroupResource{Resource: "namespaces"}
	grNodes           = schema.GroupResource{Resource: "nodes"}
	grPods            = schema.GroupResource{Resource: "pods"}
	grServices        = schema.GroupResource{Resource: "services"}
	grEndpoints       = schema.GroupResource{Resource: "endpoints"}
	grConfigMaps      = schema.GroupResource{Resource: "configmaps"}
	grServiceAccounts = schema.GroupResource{Resource: "serviceaccounts"}
	grClaims          = schema.GroupResource{Resource: "persistentvolumeclaims"}
	grDeployments     = schema.GroupResource{Group: "apps", Resource: "deployments"}
	grReplicaSets     = schema.GroupResource{Group: "apps", Resource: "replicasets"}
	grStatefulSets    = schema.GroupResource{Group: "apps", Resource: "statefulsets"}
	grDaemonSets      = schema.GroupResource{Group: "apps", Resource: "daemonsets"}
	grRevisions       = schema.GroupResource{Group: "apps", Resource: "controllerrevisions"}
	grJobs            = schema.GroupResource{Group: "batch", Resource: "jobs"}
	grBudgets         = schema.GroupResource{Group: "policy", Resource: "poddisruptionbudgets"}
	grSlices          = schema.GroupResource{Group: "discovery.k8s.io", Resource: "endpointslices"}
	grAutoscalers     = schema.GroupResource{Group: "autoscaling", Resource: "horizontalpodautoscalers"}
)

const (
	eventNormal  = "Normal"
	eventWarning = "Warning"
)

// sooner returns the earlier of two delays, where zero or less means never.
func sooner(a, b time.Duration) time.Duration {
	switch {
	case a <= 0:
		return b
	case b <= 0, a < b:
		return a
	}
	return b
}

// stamp is a virtual instant as Kubernetes writes it, in whole seconds.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// instant reads a timestamp of a stored object; the zero time when it is
// absent or not a timestamp.
func instant(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// withStatus is obj with another status, sharing everything else with it.
func withStatus(obj *unstructured.Unstructured, status map[string]any) *unstructured.Unstructured {
	top := make(map[string]any, len(obj.Object)+1)
	for k, v := range obj.Object {
		top[k] = v
	}
	top["status"] = status
	return &unstructured.Unstructured{Object: top}
}

// setStatus stores a new status when it differs from the stored one. A
// refused update (the object is gone, or a fault was injected) is retried.
func setStatus(w sim.World, obj *unstructured.Unstructured, status map[string]any) time.Duration {
	if equal(at(obj.Object, "status"), status) {
		return 0
	}
	if err := w.UpdateStatus(withStatus(obj, status)); err != nil {
		return retryDelay
	}
	return 0
}

// retryDelay is how long a controller waits after a refused write.
const retryDelay = time.Second
