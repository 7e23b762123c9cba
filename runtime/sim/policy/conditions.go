// Package policy evaluates the CEL expressions of admission: match conditions
// of webhooks and ValidatingAdmissionPolicies, with the API server's own
// compilers (k8s.io/apiserver/pkg/admission/plugin/cel). It stores nothing: the
// simulated API server gives it what is stored, and the request.
package policy

import (
	"context"
	"sync"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/predicates/rules"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/cel/environment"
)

// Request is what expressions are asked about.
type Request struct {
	Attributes *admission.VersionedAttributes
	Namespace  *corev1.Namespace // of the object; nil for cluster-scoped ones
	Authorizer authorizer.Authorizer
}

func (r Request) admission() *admissionv1.AdmissionRequest {
	return cel.CreateAdmissionRequest(r.Attributes.Attributes, metav1.GroupVersionResource(r.Attributes.GetResource()), metav1.GroupVersionKind(r.Attributes.VersionedKind))
}

// environments is made when the first expression is compiled, which takes
// long; it never changes.
var environments = sync.OnceValue(func() *environment.EnvSet {
	return environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
})

// Conditions are compiled match conditions. They are safe for concurrent use.
type Conditions struct{ matcher matchconditions.Matcher }

// CompileConditions compiles the match conditions of a webhook. One that does
// not compile is an error each time that it is asked.
func CompileConditions(list []admissionregistrationv1.MatchCondition, failure admissionregistrationv1.FailurePolicyType, kind, name string) *Conditions {
	filter := cel.NewConditionCompiler(environments()).CompileCondition(accessors(list), cel.OptionalVariableDeclarations{HasAuthorizer: true}, environment.StoredExpressions)
	return &Conditions{matchconditions.NewMatcher(filter, &failure, "webhook", kind, name)}
}

func accessors(list []admissionregistrationv1.MatchCondition) []cel.ExpressionAccessor {
	out := make([]cel.ExpressionAccessor, len(list))
	for i := range list {
		out[i] = (*matchconditions.MatchCondition)(&list[i])
	}
	return out
}

// Match reports whether all conditions hold. The error is that of an expression
// that failed while the failure policy is Fail.
func (c *Conditions) Match(ctx context.Context, r Request) (bool, error) {
	m := c.matcher.Match(ctx, r.Attributes, nil, r.Authorizer)
	return m.Matches, m.Error
}

// RuleMatches reports whether a rule of a webhook or policy is about the
// request.
func RuleMatches(rule admissionregistrationv1.RuleWithOperations, a admission.Attributes) bool {
	m := rules.Matcher{Rule: rule, Attr: a}
	return m.Matches()
}
