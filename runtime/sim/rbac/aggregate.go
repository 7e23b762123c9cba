package rbac

import (
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
)

// Aggregate returns the rules that the aggregation controller gives role: those
// of the ClusterRoles in all, sorted by name, that its selectors choose, each
// once. changed is false when role does not aggregate, or has these rules.
func Aggregate(role *unstructured.Unstructured, all []*unstructured.Unstructured) (rules []rbacv1.PolicyRule, changed bool, err error) {
	if role.Object["aggregationRule"] == nil {
		return nil, false, nil
	}
	var r rbacv1.ClusterRole
	if err := decode(role, &r); err != nil {
		return nil, false, err
	}
	rules = []rbacv1.PolicyRule{}
	for i := range r.AggregationRule.ClusterRoleSelectors {
		sel, err := metav1.LabelSelectorAsSelector(&r.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			return nil, false, fmt.Errorf("ClusterRole %s: aggregationRule: %w", r.Name, err)
		}
		for _, u := range all {
			if u.GetName() == r.Name || !sel.Matches(labels.Set(u.GetLabels())) {
				continue
			}
			var part rbacv1.ClusterRole
			if err := decode(u, &part); err != nil {
				return nil, false, err
			}
			for _, x := range part.Rules {
				if !slices.ContainsFunc(rules, func(y rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(x, y) }) {
					rules = append(rules, x)
				}
			}
		}
	}
	return rules, !equality.Semantic.DeepEqual(rules, r.Rules), nil
}
