package mesh

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// InstallManager is the field manager that istioctl install applies with.
const InstallManager = "istio-operator"

// ManagerOf is the field manager that an object of Build was written by: the
// installer's for the control plane, kubectl for everything else. Nodes and
// bare control-plane state (certificates) have kubectl's too, which harms
// nothing, as no apply touches them.
func ManagerOf(o *unstructured.Unstructured) string {
	if o.GetLabels()["operator.istio.io/managed"] == "Reconcile" {
		return InstallManager
	}
	return "kubectl"
}

// Installed returns copies of a manifest's objects as istioctl install leaves
// them in a cluster: in the order of their dependencies, with the labels by
// which it finds them again (istio.io/istio operator/pkg/install,
// getOwnerLabels). Labels that the manifest has are kept.
func Installed(spec Spec, manifest []*unstructured.Unstructured) []*unstructured.Unstructured {
	revision := spec.Revision
	if revision == "" {
		revision = "default"
	}
	out := make([]*unstructured.Unstructured, 0, len(manifest))
	for _, m := range manifest {
		if m.GetKind() == "Namespace" && m.GetName() == SystemNamespace {
			continue // Build makes it
		}
		o := m.DeepCopy()
		labels := o.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		for k, v := range map[string]string{
			"operator.istio.io/managed":                 "Reconcile",
			"operator.istio.io/version":                 spec.Istio,
			"operator.istio.io/component":               "Base",
			"install.operator.istio.io/owning-resource": "unknown",
			"istio.io/rev":                              revision,
		} {
			if _, ok := labels[k]; !ok {
				labels[k] = v
			}
		}
		o.SetLabels(labels)
		out = append(out, o)
	}
	slices.SortStableFunc(out, func(a, b *unstructured.Unstructured) int { return rank(a) - rank(b) })
	return out
}

// Rendered returns the objects of a manifest that spec's mesh is made with: all
// but the CRDs that it is to be without. An unknown name among those is an
// error.
func Rendered(spec Spec, manifest []*unstructured.Unstructured) ([]*unstructured.Unstructured, error) {
	if spec.WithoutCRDs == "" {
		return manifest, nil
	}
	left := map[string]bool{}
	for _, name := range strings.Split(spec.WithoutCRDs, "+") {
		left[name] = true
	}
	out := make([]*unstructured.Unstructured, 0, len(manifest))
	for _, o := range manifest {
		if o.GetKind() == "CustomResourceDefinition" && left[o.GetName()] {
			delete(left, o.GetName())
			continue
		}
		out = append(out, o)
	}
	for name := range left {
		return nil, fmt.Errorf("without-crds: Istio %s has no CustomResourceDefinition %s", spec.Istio, name)
	}
	return out, nil
}

// rank orders kinds by what has to be there first. Webhooks come last, so
// that nothing is refused for a control plane that is not there yet.
func rank(o *unstructured.Unstructured) int {
	switch o.GetKind() {
	case "CustomResourceDefinition":
		return 0
	case "Namespace":
		return 1
	case "ServiceAccount", "ConfigMap", "Secret":
		return 2
	case "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding":
		return 3
	case "Deployment", "DaemonSet":
		return 5
	case "HorizontalPodAutoscaler", "PodDisruptionBudget":
		return 6
	case "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration":
		return 7
	}
	return 4
}
