package backup

import (
	"encoding/json"
	"fmt"
	"slices"

	"go.starlark.net/starlark"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/mesh"
	"rutter.dev/rutter/runtime/value"
)

const scopeKind = "backup-scope/1"

// Scope is what a backup holds. The mesh is always in it.
type Scope struct {
	Workloads bool `json:"workloads"` // the specs of injected workloads too
}

var _ value.Handle = (*Scope)(nil)

// HandleKind implements value.Handle.
func (s *Scope) HandleKind() string { return scopeKind }

// EncodeHandle implements value.Handle.
func (s *Scope) EncodeHandle() (json.RawMessage, error) { return json.Marshal(s) }

// String implements starlark.Value.
func (s *Scope) String() string { return fmt.Sprintf("<scope mesh, workloads=%t>", s.Workloads) }

// Type implements starlark.Value.
func (s *Scope) Type() string { return "scope" }

// Freeze implements starlark.Value.
func (s *Scope) Freeze() {}

// Truth implements starlark.Value.
func (s *Scope) Truth() starlark.Bool { return true }

// Hash implements starlark.Value.
func (s *Scope) Hash() (uint32, error) { return starlark.String(s.String()).Hash() }

func decodeScope(raw json.RawMessage) (starlark.Value, error) {
	s := &Scope{}
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, fmt.Errorf("%s: %w", scopeKind, err)
	}
	return s, nil
}

type meshArgs struct {
	Workloads bool `star:"workloads" default:"true" doc:"hold the specs of workloads in injected namespaces too, so that restarts are covered"`
}

func meshSpec() *builtin.Spec {
	return builtin.NewPure(builtin.PureDef[meshArgs]{
		Name: "backup.mesh",
		Doc: "Names what makes up the mesh, as the scope of a backup.\n" +
			"All Istio and Gateway API resources, CRDs with their stored versions, webhooks and revision tags, ConfigMaps, CA, remote and gateway Secrets, " +
			"Helm release records, everything that the install made, Services, autoscalers and budgets beside the control plane, namespaces, and the workloads.",
		Example: `backup.mesh(workloads = False)`,
		Returns: "scope",
		Do:      func(_ *builtin.Call, a *meshArgs) (any, error) { return &Scope{Workloads: a.Workloads}, nil },
	})
}

const labelPartOf = "app.kubernetes.io/part-of"

// installed are the resources of which an install's own objects, and those
// beside the control plane, belong to the mesh (GUIDE §3 "Back up").
var installed = []string{
	"services", "serviceaccounts", "configmaps", "deployments.apps", "daemonsets.apps", "statefulsets.apps",
	"horizontalpodautoscalers.autoscaling", "poddisruptionbudgets.policy", "networkpolicies.networking.k8s.io",
	"roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io",
	"clusterroles.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io",
	"mutatingwebhookconfigurations.admissionregistration.k8s.io", "validatingwebhookconfigurations.admissionregistration.k8s.io",
}

// besides are kept whole in the control plane's namespaces.
var besides = []string{"services", "horizontalpodautoscalers.autoscaling", "poddisruptionbudgets.policy"}

// workloads are the kinds whose pods get sidecars.
var workloads = []string{"deployments.apps", "statefulsets.apps", "daemonsets.apps", "rollouts.argoproj.io"}

// selection decides what of a listed resource belongs to the backup.
type selection struct {
	scope     *Scope
	selectors []mesh.Selector
	systems   map[string]bool // namespaces of control planes
}

// lists reports whether res may hold anything of the scope.
func (s *selection) lists(res cluster.Resource) bool {
	if !res.Can("list") || res.String() == "events" {
		return false
	}
	name := res.String()
	return slices.Contains(installed, name) || s.scope.Workloads && slices.Contains(workloads, name) ||
		slices.ContainsFunc(s.selectors, func(x mesh.Selector) bool { return x.Covers(res) })
}

// takes reports whether o belongs to the backup. What a controller owns comes
// back with its owner.
func (s *selection) takes(res cluster.Resource, o *cluster.Object) bool {
	if len(o.GetOwnerReferences()) > 0 && !slices.Contains(workloads, res.String()) && o.GetKind() != "Secret" {
		return false
	}
	name := res.String()
	switch {
	case slices.ContainsFunc(s.selectors, func(x mesh.Selector) bool { return x.Selects(res, o) }):
		return true
	case slices.Contains(installed, name) && (o.GetLabels()[labelPartOf] == "istio" || o.GetLabels()["operator.istio.io/component"] != ""):
		return true
	case slices.Contains(besides, name) && s.systems[o.GetNamespace()]:
		return true
	case name == "namespaces" && s.systems[o.GetName()]:
		return true
	}
	return s.scope.Workloads && slices.Contains(workloads, name) && !system(o.GetNamespace())
}

// system: Kubernetes' own namespaces hold no workloads of the mesh.
func system(ns string) bool {
	return ns == "kube-system" || ns == "kube-public" || ns == "kube-node-lease"
}

// isWorkload reports whether an archived object is an application's workload
// and no part of the control plane.
func isWorkload(o *cluster.Object) bool {
	switch o.GetKind() {
	case "Deployment", "StatefulSet", "DaemonSet", "Rollout":
		l := o.GetLabels()
		return l[labelPartOf] != "istio" && l["operator.istio.io/component"] == ""
	}
	return false
}

// hasTemplate guards against objects of a workload's kind without a pod template.
func hasTemplate(o *cluster.Object) bool {
	_, ok, err := unstructured.NestedMap(o.Object, "spec", "template")
	return ok && err == nil
}
