package sim

import (
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"rutter.dev/rutter/runtime/sim/kinds"
	"rutter.dev/rutter/runtime/sim/rbac"
)

// mayGrant refuses a role or binding that gives away what the user does not
// hold, unless the verbs escalate or bind allow it (registry/rbac of the API
// server). old is nil for a creation.
func (c *Cluster) mayGrant(res *resource, old, obj *unstructured.Unstructured, o writeOptions) error {
	if o.user == nil || res.group != rbac.Group || rbac.Privileged(o.user) || old != nil && onlyOwners(old, obj) {
		return nil
	}
	p, err := c.rbac()
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	ns := obj.GetNamespace()
	var in struct {
		Rules   []rbacv1.PolicyRule `json:"rules"`
		RoleRef rbacv1.RoleRef      `json:"roleRef"`
	}
	if err := fromUnstructured(obj, &in); err != nil {
		return err
	}
	a := authorizer.AttributesRecord{
		User: o.user, ResourceRequest: true, Verb: "escalate", APIGroup: rbac.Group, APIVersion: "*", Resource: res.plural, Namespace: ns, Name: obj.GetName(),
	}
	rules := in.Rules
	binding := res.kind == "RoleBinding" || res.kind == "ClusterRoleBinding"
	if binding {
		a.Verb, a.Resource, a.Name = "bind", "clusterroles", in.RoleRef.Name
		if in.RoleRef.Kind == "Role" {
			a.Resource = "roles"
		}
	} else if old == nil && o.managed == nil {
		a.Name = "" // a creation by POST has no name in its path
	}
	if ok, _, err := c.allowed(a); err != nil || ok {
		return err
	}
	if binding {
		if rules, err = p.ReferencedRules(in.RoleRef, ns); err != nil {
			return apierrors.NewNotFound(res.gr(), in.RoleRef.Name)
		}
	}
	if err := p.ConfirmNoEscalation(o.user, ns, res.plural, rules); err != nil {
		return apierrors.NewForbidden(res.gr(), obj.GetName(), err)
	}
	return nil
}

// onlyOwners reports whether an update changes nothing but what the garbage
// collector does: finalizers and owner references.
func onlyOwners(old, obj *unstructured.Unstructured) bool {
	a, b := shallow(old), shallow(obj)
	for _, u := range []*unstructured.Unstructured{a, b} {
		for _, f := range []string{"finalizers", "ownerReferences", "managedFields", "resourceVersion"} {
			setMeta(u, f, nil)
		}
	}
	return kinds.Equal(a.Object, b.Object) && !kinds.Equal(old.Object, obj.Object)
}
