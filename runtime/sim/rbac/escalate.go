package rbac

import (
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/component-helpers/auth/rbac/validation"
)

// ConfirmNoEscalation refuses to let the user grant, in the namespace ("" for
// everywhere), rules that it does not hold there itself. The error is the API
// server's reason, in which roles that were not found are called as the
// resource of the request, as the server does.
func (p *Policy) ConfirmNoEscalation(u user.Info, namespace, resource string, rules []rbacv1.PolicyRule) error {
	var held []rbacv1.PolicyRule
	var unresolved []error
	p.visit(u, namespace, func(b binding, _ rbacv1.Subject, rules []rbacv1.PolicyRule, err error) bool {
		if err != nil {
			unresolved = append(unresolved, apierrors.NewNotFound(schema.GroupResource{Group: Group, Resource: resource}, b.role.Name))
		}
		held = append(held, rules...)
		return true
	})
	ok, missing := validation.Covers(held, rules)
	if ok {
		return nil
	}
	var lines []string
	for _, r := range compact(missing) {
		lines = append(lines, describe(r))
	}
	slices.Sort(lines)
	lines = slices.Compact(lines)
	msg := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s", u.GetName(), u.GetGroups(), strings.Join(lines, "\n"))
	if len(unresolved) > 0 {
		msg += fmt.Sprintf("; resolution errors: %v", []error{utilerrors.NewAggregate(unresolved)})
	}
	return fmt.Errorf("%s", msg)
}

// compact joins the verbs of rules about the same single resource, which is
// how missing rules come.
func compact(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	at := map[string]int{}
	for _, r := range rules {
		simple := len(r.APIGroups) == 1 && len(r.Resources) == 1 && len(r.ResourceNames) <= 1 && len(r.NonResourceURLs) == 0
		key := fmt.Sprintf("%q %q %q", r.APIGroups, r.Resources, r.ResourceNames)
		i, known := at[key]
		switch {
		case simple && known:
			out[i].Verbs = append(out[i].Verbs, r.Verbs...)
			continue
		case simple:
			at[key] = len(out)
		}
		out = append(out, *r.DeepCopy())
	}
	return out
}

// describe is a rule as the API server's messages show it.
func describe(r rbacv1.PolicyRule) string {
	var parts []string
	for _, f := range []struct {
		name string
		list []string
	}{
		{"APIGroups", r.APIGroups}, {"Resources", r.Resources}, {"NonResourceURLs", r.NonResourceURLs}, {"ResourceNames", r.ResourceNames}, {"Verbs", r.Verbs},
	} {
		if len(f.list) > 0 {
			parts = append(parts, fmt.Sprintf("%s:%q", f.name, f.list))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
