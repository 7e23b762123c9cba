// Package rbac evaluates Kubernetes' role-based access control over stored
// Roles, ClusterRoles and their bindings, with the decisions and the words of
// the API server (plugin/pkg/auth/authorizer/rbac and pkg/registry/rbac of
// Kubernetes 1.36). It stores nothing and knows no requests: the simulated API
// server gives it what is stored and asks.
package rbac

import (
	"context"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Group is the API group of everything that a Policy is made of.
const Group = "rbac.authorization.k8s.io"

// Policy is what a set of stored objects allows. It never changes, so that it
// is safe for concurrent use; a changed object needs a new Policy.
type Policy struct {
	clusterRoles    map[string][]rbacv1.PolicyRule
	roles           map[string]map[string][]rbacv1.PolicyRule // by namespace and name
	clusterBindings []binding
	bindings        map[string][]binding // by namespace
}

var _ authorizer.Authorizer = (*Policy)(nil)

// binding is a RoleBinding, or a ClusterRoleBinding when it has no namespace.
type binding struct {
	namespace, name string
	subjects        []rbacv1.Subject
	role            rbacv1.RoleRef
}

// New makes a policy of the objects that list returns for each of the four
// resources of the group ("roles", "rolebindings", …), in the order in which
// they are to be evaluated.
func New(list func(resource string) []*unstructured.Unstructured) (*Policy, error) {
	p := &Policy{
		clusterRoles: map[string][]rbacv1.PolicyRule{}, roles: map[string]map[string][]rbacv1.PolicyRule{}, bindings: map[string][]binding{},
	}
	for _, u := range list("clusterroles") {
		var r rbacv1.ClusterRole
		if err := decode(u, &r); err != nil {
			return nil, err
		}
		p.clusterRoles[r.Name] = r.Rules
	}
	for _, u := range list("roles") {
		var r rbacv1.Role
		if err := decode(u, &r); err != nil {
			return nil, err
		}
		if p.roles[r.Namespace] == nil {
			p.roles[r.Namespace] = map[string][]rbacv1.PolicyRule{}
		}
		p.roles[r.Namespace][r.Name] = r.Rules
	}
	for _, u := range list("clusterrolebindings") {
		var b rbacv1.ClusterRoleBinding
		if err := decode(u, &b); err != nil {
			return nil, err
		}
		p.clusterBindings = append(p.clusterBindings, binding{name: b.Name, subjects: b.Subjects, role: b.RoleRef})
	}
	for _, u := range list("rolebindings") {
		var b rbacv1.RoleBinding
		if err := decode(u, &b); err != nil {
			return nil, err
		}
		p.bindings[b.Namespace] = append(p.bindings[b.Namespace], binding{b.Namespace, b.Name, b.Subjects, b.RoleRef})
	}
	return p, nil
}

func decode(u *unstructured.Unstructured, into any) error {
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, into); err != nil {
		return fmt.Errorf("%s %s: %w", u.GetKind(), u.GetName(), err)
	}
	return nil
}

// Authorize implements authorizer.Authorizer: it allows, or has no opinion,
// with the reason that the API server gives. Members of system:masters may do
// everything.
func (p *Policy) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if Privileged(a.GetUser()) {
		return authorizer.DecisionAllow, "", nil
	}
	allowed, reason := false, ""
	var errs []error
	p.visit(a.GetUser(), a.GetNamespace(), func(b binding, s rbacv1.Subject, rules []rbacv1.PolicyRule, err error) bool {
		if err != nil {
			errs = append(errs, err)
			return true
		}
		allowed = slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool { return allows(r, a) })
		if allowed {
			reason = "RBAC: allowed by " + b.describe(s)
		}
		return !allowed
	})
	switch {
	case allowed:
		return authorizer.DecisionAllow, reason, nil
	case len(errs) > 0:
		reason = fmt.Sprintf("RBAC: %v", utilerrors.NewAggregate(errs))
	}
	return authorizer.DecisionNoOpinion, reason, nil
}

// Privileged reports whether nothing is refused to the user (the group
// system:masters).
func Privileged(u user.Info) bool {
	return u != nil && slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup)
}

// RulesFor returns the rules that apply to the user in a namespace, or
// everywhere for "". The error says which bindings could not be followed; the
// rules are those of the others.
func (p *Policy) RulesFor(u user.Info, namespace string) ([]rbacv1.PolicyRule, error) {
	var out []rbacv1.PolicyRule
	var errs []error
	p.visit(u, namespace, func(_ binding, _ rbacv1.Subject, rules []rbacv1.PolicyRule, err error) bool {
		if err != nil {
			errs = append(errs, err)
		}
		out = append(out, rules...)
		return true
	})
	return out, utilerrors.NewAggregate(errs)
}

// visit calls f with the rules of each binding that applies to the user, until
// it returns false.
func (p *Policy) visit(u user.Info, namespace string, f func(binding, rbacv1.Subject, []rbacv1.PolicyRule, error) bool) {
	if u == nil {
		return
	}
	all := [][]binding{p.clusterBindings}
	if namespace != "" {
		all = append(all, p.bindings[namespace])
	}
	for _, list := range all {
		for _, b := range list {
			i := slices.IndexFunc(b.subjects, func(s rbacv1.Subject) bool { return appliesTo(s, u, b.namespace) })
			if i < 0 {
				continue
			}
			rules, err := p.ReferencedRules(b.role, b.namespace)
			if !f(b, b.subjects[i], rules, err) {
				return
			}
		}
	}
}

// ReferencedRules are the rules of the role that a binding in the namespace
// names; the error is the API server's NotFound.
func (p *Policy) ReferencedRules(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	rules, ok := p.clusterRoles[ref.Name]
	switch ref.Kind {
	case "ClusterRole":
	case "Role":
		rules, ok = p.roles[namespace][ref.Name]
	default:
		return nil, fmt.Errorf("unsupported role reference kind: %q", ref.Kind)
	}
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: Group, Resource: strings.ToLower(ref.Kind)}, ref.Name)
	}
	return rules, nil
}

func appliesTo(s rbacv1.Subject, u user.Info, namespace string) bool {
	switch s.Kind {
	case rbacv1.UserKind:
		return s.Name == u.GetName()
	case rbacv1.GroupKind:
		return slices.Contains(u.GetGroups(), s.Name)
	case rbacv1.ServiceAccountKind:
		if s.Namespace != "" {
			namespace = s.Namespace
		}
		return namespace != "" && serviceaccount.MatchesUsername(namespace, s.Name, u.GetName())
	}
	return false
}

func (b binding) describe(s rbacv1.Subject) string {
	kind, name := "ClusterRoleBinding", b.name
	if b.namespace != "" {
		kind, name = "RoleBinding", b.name+"/"+b.namespace
	}
	subject := s.Name
	if s.Kind == rbacv1.ServiceAccountKind {
		ns := s.Namespace
		if ns == "" {
			ns = b.namespace
		}
		subject += "/" + ns
	}
	return fmt.Sprintf("%s %q of %s %q to %s %q", kind, name, b.role.Kind, b.role.Name, s.Kind, subject)
}

// allows reports whether a rule allows what the attributes say.
func allows(r rbacv1.PolicyRule, a authorizer.Attributes) bool {
	if !slices.Contains(r.Verbs, rbacv1.VerbAll) && !slices.Contains(r.Verbs, a.GetVerb()) {
		return false
	}
	if !a.IsResourceRequest() {
		return slices.ContainsFunc(r.NonResourceURLs, func(url string) bool {
			prefix, open := strings.CutSuffix(url, "*")
			return url == rbacv1.NonResourceAll || url == a.GetPath() || open && strings.HasPrefix(a.GetPath(), strings.TrimRight(prefix, "*"))
		})
	}
	named := len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, a.GetName())
	group := slices.Contains(r.APIGroups, rbacv1.APIGroupAll) || slices.Contains(r.APIGroups, a.GetAPIGroup())
	return named && group && slices.ContainsFunc(r.Resources, func(res string) bool {
		sub := a.GetSubresource()
		switch {
		case res == rbacv1.ResourceAll:
			return true
		case sub == "":
			return res == a.GetResource()
		}
		return res == a.GetResource()+"/"+sub || res == "*/"+sub
	})
}
