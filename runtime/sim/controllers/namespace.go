package controllers

import (
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// namespaceController gives every namespace what the controller manager gives
// it: phase Active, the default ServiceAccount, and the ConfigMap with the
// cluster's root certificate. What empties a namespace that is being deleted
// is the API server core's.
type namespaceController struct{}

func (namespaceController) Name() string { return "namespace-controller" }

func (namespaceController) Watches() []schema.GroupResource {
	return []schema.GroupResource{grNamespaces, grServiceAccounts, grConfigMaps}
}

func (c namespaceController) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	switch gr {
	case grNamespaces:
		namespace = name
	case grServiceAccounts:
		if name != "default" {
			return 0
		}
	case grConfigMaps:
		if name != rootCertificate {
			return 0
		}
	}
	ns := w.Get(grNamespaces, "", namespace)
	if ns == nil || deleting(ns) {
		return 0
	}
	again := c.activate(w, ns)
	if w.Get(grServiceAccounts, namespace, "default") == nil {
		again = sooner(again, c.create(w, "ServiceAccount", namespace, "default", nil))
	}
	if w.Get(grConfigMaps, namespace, rootCertificate) == nil {
		again = sooner(again, c.create(w, "ConfigMap", namespace, rootCertificate, map[string]any{"ca.crt": simulatedCA}))
	}
	return again
}

const (
	rootCertificate = "kube-root-ca.crt"
	// simulatedCA stands where a cluster has its root certificate. It is not
	// one, and nothing in the simulated cluster verifies with it.
	simulatedCA = "simulated cluster: no certificate\n"
)

func (namespaceController) activate(w sim.World, ns *unstructured.Unstructured) time.Duration {
	if text(ns.Object, "status", "phase") != "" {
		return 0
	}
	return setStatus(w, ns, map[string]any{"phase": "Active"})
}

func (namespaceController) create(w sim.World, kind, namespace, name string, data map[string]any) time.Duration {
	obj := map[string]any{
		"apiVersion": "v1", "kind": kind, "metadata": map[string]any{"name": name, "namespace": namespace},
	}
	if data != nil {
		obj["data"] = data
	}
	if _, err := w.Create(&unstructured.Unstructured{Object: obj}); err != nil {
		return retryDelay
	}
	return 0
}
