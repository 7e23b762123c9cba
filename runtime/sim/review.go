package sim

import (
	"context"
	"net/http"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// DenyRule makes access reviews answer no, whoever asks and whatever the roles
// say. Empty fields match everything. The requests themselves are not refused:
// use a Fault for that.
type DenyRule struct {
	Verb      string
	Group     string
	Resource  string
	Namespace string
	Name      string
	Reason    string
}

// Deny adds a rule that access reviews answer by.
func (c *Cluster) Deny(rule DenyRule) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.denials = append(c.denials, rule)
}

// review answers the kinds that are created only to be answered.
func (c *Cluster) review(r *http.Request, q *query, body []byte) (reply, error) {
	in, err := decodeBody(r, q, body)
	if err != nil {
		return reply{}, err
	}
	o, err := q.writeOptions(nil)
	if err != nil {
		return reply{}, err
	}
	var status any
	switch q.res.kind {
	case "SelfSubjectRulesReview":
		status, err = c.rulesReview(q, in)
	case "SelfSubjectReview":
		in.Object["metadata"] = map[string]any{"creationTimestamp": c.timestamp()}
		status = authenticationv1.SelfSubjectReviewStatus{UserInfo: userInfo(q.user)}
	case "TokenReview":
		status, err = c.tokenReview(in)
	default:
		status, err = c.accessReview(q, in)
	}
	if err != nil {
		return reply{}, err
	}
	if q.res.kind != "SelfSubjectRulesReview" && q.res.kind != "SelfSubjectReview" {
		if err := c.scopeObject(q.res, q.namespace, in); err != nil {
			return reply{}, err
		}
		if in, err = c.track(q.res, c.blank(q.res, q.version), in, o); err != nil {
			return reply{}, err
		}
	}
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&struct {
		Status any `json:"status"`
	}{status})
	if err != nil {
		return reply{}, apierrors.NewInternalError(err)
	}
	in.Object["status"] = m["status"]
	return jsonReply(http.StatusCreated, in.Object)
}

// fromUnstructured reads an object into its Go type.
func fromUnstructured(obj *unstructured.Unstructured, into any) error {
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, into); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}

func userInfo(u *User) authenticationv1.UserInfo {
	out := authenticationv1.UserInfo{Username: u.Name, UID: u.UID, Groups: u.Groups}
	for k, v := range u.Extra {
		if out.Extra == nil {
			out.Extra = map[string]authenticationv1.ExtraValue{}
		}
		out.Extra[k] = v
	}
	return out
}

// accessReview answers SelfSubjectAccessReview and its two relatives.
func (c *Cluster) accessReview(q *query, in *unstructured.Unstructured) (any, error) {
	var ask authorizationv1.LocalSubjectAccessReview // the spec of the others is a part of it
	if err := fromUnstructured(in, &ask); err != nil {
		return nil, err
	}
	self := q.res.kind == "SelfSubjectAccessReview"
	if errs := validAccessReview(ask.Spec, self, q); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: q.res.group}, "", errs)
	}
	u := q.user
	if !self {
		u = &User{Name: ask.Spec.User, Groups: ask.Spec.Groups, UID: ask.Spec.UID, Extra: map[string][]string{}}
		for k, v := range ask.Spec.Extra {
			u.Extra[k] = v
		}
	}
	a := authorizer.AttributesRecord{User: u}
	if r := ask.Spec.ResourceAttributes; r != nil {
		if d := c.denial(r); d != nil {
			return authorizationv1.SubjectAccessReviewStatus{Reason: d.Reason}, nil
		}
		a.ResourceRequest, a.Verb, a.Namespace, a.Name = true, r.Verb, r.Namespace, r.Name
		a.APIGroup, a.APIVersion, a.Resource, a.Subresource = r.Group, r.Version, r.Resource, r.Subresource
	} else {
		a.Path, a.Verb = ask.Spec.NonResourceAttributes.Path, ask.Spec.NonResourceAttributes.Verb
	}
	p, err := c.rbac()
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	d, reason, err := p.Authorize(context.Background(), a)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return authorizationv1.SubjectAccessReviewStatus{Allowed: d == authorizer.DecisionAllow, Reason: reason}, nil
}

func validAccessReview(s authorizationv1.SubjectAccessReviewSpec, self bool, q *query) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	switch {
	case s.ResourceAttributes != nil && s.NonResourceAttributes != nil:
		errs = append(errs, field.Invalid(path.Child("nonResourceAttributes"), s.NonResourceAttributes, "cannot be specified in combination with resourceAttributes"))
	case s.ResourceAttributes == nil && s.NonResourceAttributes == nil:
		errs = append(errs, field.Invalid(path.Child("resourceAttributes"), s.NonResourceAttributes, "exactly one of nonResourceAttributes or resourceAttributes must be specified"))
	}
	if !self && s.User == "" && len(s.Groups) == 0 {
		errs = append(errs, field.Invalid(path.Child("user"), s.User, "at least one of user or group must be specified"))
	}
	if !q.res.namespaced {
		return errs
	}
	if r := s.ResourceAttributes; r != nil && r.Namespace != q.namespace {
		errs = append(errs, field.Invalid(path.Child("resourceAttributes", "namespace"), r.Namespace, "must match metadata.namespace"))
	}
	if s.NonResourceAttributes != nil {
		errs = append(errs, field.Invalid(path.Child("nonResourceAttributes"), s.NonResourceAttributes, "disallowed on this kind of request"))
	}
	return errs
}

// denial is the rule of Deny that an access review meets.
func (c *Cluster) denial(r *authorizationv1.ResourceAttributes) *DenyRule {
	match := func(want, got string) bool { return want == "" || want == got }
	i := slices.IndexFunc(c.denials, func(d DenyRule) bool {
		return match(d.Verb, r.Verb) && match(d.Group, r.Group) && match(d.Resource, r.Resource) && match(d.Namespace, r.Namespace) && match(d.Name, r.Name)
	})
	if i < 0 {
		return nil
	}
	return &c.denials[i]
}

// rulesReview answers what the user may do in a namespace.
func (c *Cluster) rulesReview(q *query, in *unstructured.Unstructured) (any, error) {
	ns, _, _ := unstructured.NestedString(in.Object, "spec", "namespace")
	if ns == "" {
		return nil, apierrors.NewBadRequest("no namespace on request")
	}
	in.Object["spec"], in.Object["metadata"] = map[string]any{}, map[string]any{}
	p, err := c.rbac()
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	rules, err := p.RulesFor(q.user, ns)
	out := authorizationv1.SubjectRulesReviewStatus{ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{}}
	for _, r := range rules {
		out = withRule(out, r)
	}
	if err != nil {
		out.EvaluationError = err.Error()
	}
	return out, nil
}

func withRule(out authorizationv1.SubjectRulesReviewStatus, r rbacv1.PolicyRule) authorizationv1.SubjectRulesReviewStatus {
	if len(r.Resources) > 0 {
		out.ResourceRules = append(out.ResourceRules, authorizationv1.ResourceRule{Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames})
	}
	if len(r.NonResourceURLs) > 0 {
		out.NonResourceRules = append(out.NonResourceRules, authorizationv1.NonResourceRule{Verbs: r.Verbs, NonResourceURLs: r.NonResourceURLs})
	}
	return out
}

// tokenReview answers who a bearer token stands for.
func (c *Cluster) tokenReview(in *unstructured.Unstructured) (any, error) {
	var ask authenticationv1.TokenReview
	if err := fromUnstructured(in, &ask); err != nil {
		return nil, err
	}
	if ask.Spec.Token == "" {
		return nil, apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	audiences := ask.Spec.Audiences
	if len(audiences) == 0 {
		audiences = []string{issuer}
	}
	u, good, err := c.tokenUser(ask.Spec.Token, audiences)
	switch {
	case err != nil:
		return authenticationv1.TokenReviewStatus{Error: err.Error()}, nil
	case u == nil:
		return authenticationv1.TokenReviewStatus{Error: "invalid bearer token"}, nil
	}
	return authenticationv1.TokenReviewStatus{Authenticated: true, User: userInfo(u), Audiences: good}, nil
}
