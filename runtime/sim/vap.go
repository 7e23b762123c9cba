package sim

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"

	"rutter.dev/rutter/runtime/sim/policy"
)

var (
	grPolicies       = schema.GroupResource{Group: grMutating.Group, Resource: "validatingadmissionpolicies"}
	grPolicyBindings = schema.GroupResource{Group: grMutating.Group, Resource: "validatingadmissionpolicybindings"}
)

// policyHook is a ValidatingAdmissionPolicy with its bindings, in the order of
// their names.
type policyHook struct {
	policy   *policy.Policy
	bindings []*admissionregistrationv1.ValidatingAdmissionPolicyBinding
}

// policyHooks reads and compiles the stored policies when they are first asked
// for, and again after one changed. The lock is held.
func (c *Cluster) policyHooks() []policyHook {
	if c.policies != nil {
		return *c.policies
	}
	var out []policyHook
	w := &world{c: c}
	for _, u := range w.List(grPolicies, "") {
		var def admissionregistrationv1.ValidatingAdmissionPolicy
		if runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &def) != nil {
			continue // the server would not have stored it
		}
		h := policyHook{}
		for _, b := range w.List(grPolicyBindings, "") {
			var binding admissionregistrationv1.ValidatingAdmissionPolicyBinding
			if runtime.DefaultUnstructuredConverter.FromUnstructured(b.Object, &binding) == nil && binding.Spec.PolicyName == def.Name {
				h.bindings = append(h.bindings, &binding)
			}
		}
		if len(h.bindings) > 0 { // one without bindings says nothing
			h.policy = policy.Compile(&def)
			out = append(out, h)
		}
	}
	c.policies = &out
	return out
}

// admissionPolicies refuses what a ValidatingAdmissionPolicy denies, with the
// first denial (admission/plugin/policy/validating). Policies are not asked
// about policies and bindings.
func (c *Cluster) admissionPolicies(v *review) error {
	if t := c.st.read(grPolicies, ""); t == nil || len(t.keys) == 0 || v.res.gr() == grPolicies || v.res.gr() == grPolicyBindings {
		return nil
	}
	for _, h := range c.policyHooks() {
		def := h.policy.Definition
		if def.Spec.MatchConstraints == nil || !v.matches(*def.Spec.MatchConstraints) {
			continue
		}
		for _, b := range h.bindings {
			if b.Spec.MatchResources != nil && !v.matches(*b.Spec.MatchResources) {
				continue
			}
			if err := c.bindingDenies(v, h.policy, b); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Cluster) bindingDenies(v *review, p *policy.Policy, b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) error {
	def := p.Definition
	params, err := c.policyParams(v, def.Spec.ParamKind, b.Spec.ParamRef)
	if err != nil {
		if f := def.Spec.FailurePolicy; f != nil && *f == admissionregistrationv1.Ignore {
			return nil
		}
		return v.policyDenial(def.Name, b.Name, policy.Denial{Message: fmt.Sprintf("failed to configure binding: %v", err)})
	}
	r, err := v.request()
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	for _, param := range params {
		for _, d := range p.Validate(context.Background(), r, param) {
			if slices.Contains(b.Spec.ValidationActions, admissionregistrationv1.Warn) {
				v.o.warn(fmt.Sprintf("Validation failed for ValidatingAdmissionPolicy '%s' with binding '%s': %s", def.Name, b.Name, d.Message))
			}
			if slices.Contains(b.Spec.ValidationActions, admissionregistrationv1.Deny) {
				return v.policyDenial(def.Name, b.Name, d)
			}
		}
	}
	return nil
}

func (v *review) policyDenial(name, binding string, d policy.Denial) error {
	msg := fmt.Sprintf("ValidatingAdmissionPolicy '%s' with binding '%s' denied request: %s", name, binding, d.Message)
	err := apierrors.NewForbidden(v.res.gr(), v.some().GetName(), fmt.Errorf("%s", msg))
	err.ErrStatus.Reason = d.Reason
	if d.Reason == "" {
		err.ErrStatus.Reason = metav1.StatusReasonInvalid
	}
	err.ErrStatus.Code = http.StatusUnprocessableEntity
	switch err.ErrStatus.Reason {
	case metav1.StatusReasonForbidden:
		err.ErrStatus.Code = http.StatusForbidden
	case metav1.StatusReasonUnauthorized:
		err.ErrStatus.Code = http.StatusUnauthorized
	case metav1.StatusReasonRequestEntityTooLarge:
		err.ErrStatus.Code = http.StatusRequestEntityTooLarge
	}
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Message: msg})
	return err
}

// matches reports whether match constraints concern the request.
func (v *review) matches(m admissionregistrationv1.MatchResources) bool {
	if !v.selected(asSelector(m.NamespaceSelector), asSelector(m.ObjectSelector)) {
		return false
	}
	match := func(rules []admissionregistrationv1.NamedRuleWithOperations) bool {
		attrs := v.byVersion(m.MatchPolicy)
		return slices.ContainsFunc(rules, func(r admissionregistrationv1.NamedRuleWithOperations) bool {
			named := len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, v.some().GetName())
			return named && slices.ContainsFunc(attrs, func(a admission.Attributes) bool { return policy.RuleMatches(r.RuleWithOperations, a) })
		})
	}
	return !match(m.ExcludeResourceRules) && (len(m.ResourceRules) == 0 || match(m.ResourceRules))
}

func asSelector(s *metav1.LabelSelector) labels.Selector {
	if s == nil {
		return labels.Everything()
	}
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return sel
}

// policyParams are the objects that a binding gives its policy; one nil
// without any.
func (c *Cluster) policyParams(v *review, kind *admissionregistrationv1.ParamKind, ref *admissionregistrationv1.ParamRef) ([]runtime.Object, error) {
	if kind == nil || ref == nil {
		return []runtime.Object{nil}, nil
	}
	gvk := schema.FromAPIVersionAndKind(kind.APIVersion, kind.Kind)
	res := c.reg.byKind[gvk.GroupKind()]
	if res == nil || !res.serves(gvk.Version) {
		return nil, fmt.Errorf("paramKind kind `%v` not known", kind.String())
	}
	ns := ref.Namespace
	switch {
	case !res.namespaced && ns != "":
		return nil, fmt.Errorf("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
	case res.namespaced && ns == "":
		if ns = v.attributes().GetNamespace(); ns == "" {
			return nil, fmt.Errorf("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
		}
	}
	var out []runtime.Object
	sel := asSelector(ref.Selector)
	for _, u := range (&world{c: c}).List(res.gr(), ns) {
		if ref.Name == "" && sel.Matches(labels.Set(u.GetLabels())) || u.GetName() == ref.Name {
			out = append(out, u)
		}
	}
	if len(out) == 0 && (ref.ParameterNotFoundAction == nil || *ref.ParameterNotFoundAction == admissionregistrationv1.DenyAction) {
		return nil, fmt.Errorf("no params found for policy binding with `Deny` parameterNotFoundAction")
	}
	return out, nil
}

// admissionErrors judges the expressions of a policy or webhook configuration
// that is to be stored.
func admissionErrors(res *resource, obj *unstructured.Unstructured) field.ErrorList {
	if res.group != grMutating.Group {
		return nil
	}
	decode := func(into any) field.ErrorList {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, into); err != nil {
			return field.ErrorList{field.InternalError(nil, err)}
		}
		return nil
	}
	switch res.gr() {
	case grPolicies:
		var def admissionregistrationv1.ValidatingAdmissionPolicy
		if errs := decode(&def); errs != nil {
			return errs
		}
		return policy.Check(&def)
	case grPolicyBindings:
		var b admissionregistrationv1.ValidatingAdmissionPolicyBinding
		if errs := decode(&b); errs != nil {
			return errs
		}
		return policy.CheckBinding(&b)
	}
	var cfg admissionregistrationv1.MutatingWebhookConfiguration // a validating one has a part of its fields
	errs := decode(&cfg)
	for i, h := range cfg.Webhooks {
		if len(h.MatchConditions) > 0 {
			errs = append(errs, policy.CheckConditions(h.MatchConditions, field.NewPath("webhooks").Index(i).Child("matchConditions"))...)
		}
	}
	return errs
}
