package policy

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	gocel "github.com/google/cel-go/cel"
)

// Check judges a ValidatingAdmissionPolicy that is to be stored, as the API
// server does (pkg/apis/admissionregistration/validation).
func Check(def *admissionregistrationv1.ValidatingAdmissionPolicy) field.ErrorList {
	spec := field.NewPath("spec")
	var errs field.ErrorList
	if def.Spec.MatchConstraints == nil {
		errs = append(errs, field.Required(spec.Child("matchConstraints"), ""))
	} else if len(def.Spec.MatchConstraints.ResourceRules) == 0 {
		errs = append(errs, field.Required(spec.Child("matchConstraints", "resourceRules"), ""))
	}
	if len(def.Spec.Validations) == 0 && len(def.Spec.AuditAnnotations) == 0 {
		const text = "validations or auditAnnotations must contain at least one item"
		return append(errs, field.Required(spec.Child("validations"), text), field.Required(spec.Child("auditAnnotations"), text))
	}
	compiler, err := cel.NewCompositedCompiler(environments())
	if err != nil {
		return append(errs, field.InternalError(spec, err))
	}
	with := cel.OptionalVariableDeclarations{HasParams: def.Spec.ParamKind != nil, HasAuthorizer: true}
	compile := func(path *field.Path, e cel.ExpressionAccessor) {
		errs = append(errs, invalid(path, e, compiler.CompileCELExpression(e, with, environment.NewExpressions))...)
	}
	for i, v := range def.Spec.Variables {
		e := &expression{text: v.Expression, name: v.Name}
		res := compiler.CompileAndStoreVariable(e, with, environment.NewExpressions)
		errs = append(errs, invalid(spec.Child("variables").Index(i).Child("expression"), e, res)...)
	}
	for i := range def.Spec.MatchConditions {
		compile(spec.Child("matchConditions").Index(i).Child("expression"), (*matchconditions.MatchCondition)(&def.Spec.MatchConditions[i]))
	}
	for i, v := range def.Spec.Validations {
		path := spec.Child("validations").Index(i)
		compile(path.Child("expression"), &expression{text: v.Expression, typ: gocel.BoolType})
		if v.MessageExpression != "" {
			e := &expression{text: v.MessageExpression, typ: gocel.StringType}
			res := compiler.CompileCELExpression(e, cel.OptionalVariableDeclarations{HasParams: with.HasParams}, environment.NewExpressions)
			errs = append(errs, invalid(path.Child("messageExpression"), e, res)...)
		}
		if r := v.Reason; r != nil && !reasons[*r] {
			errs = append(errs, field.NotSupported(path.Child("reason"), *r, []string{"Forbidden", "Invalid", "RequestEntityTooLarge"}))
		}
	}
	return errs
}

var reasons = map[metav1.StatusReason]bool{
	metav1.StatusReasonForbidden: true, metav1.StatusReasonInvalid: true, metav1.StatusReasonRequestEntityTooLarge: true,
}

// CheckBinding judges a ValidatingAdmissionPolicyBinding that is to be stored.
func CheckBinding(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) field.ErrorList {
	spec := field.NewPath("spec")
	var errs field.ErrorList
	if b.Spec.PolicyName == "" {
		errs = append(errs, field.Required(spec.Child("policyName"), ""))
	}
	if len(b.Spec.ValidationActions) == 0 {
		errs = append(errs, field.Required(spec.Child("validationActions"), "at least one validation action is required"))
	}
	return errs
}

// CheckConditions judges the match conditions of a webhook at path.
func CheckConditions(list []admissionregistrationv1.MatchCondition, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range list {
		e := (*matchconditions.MatchCondition)(&list[i])
		res := cel.NewCompiler(environments()).CompileCELExpression(e, cel.OptionalVariableDeclarations{HasAuthorizer: true}, environment.NewExpressions)
		errs = append(errs, invalid(path.Index(i).Child("expression"), e, res)...)
	}
	return errs
}

func invalid(path *field.Path, e cel.ExpressionAccessor, res cel.CompilationResult) field.ErrorList {
	switch {
	case res.Error == nil:
		return nil
	case res.Error.Type == apiservercel.ErrorTypeRequired:
		return field.ErrorList{field.Required(path, res.Error.Detail)}
	case res.Error.Type == apiservercel.ErrorTypeInternal:
		return field.ErrorList{field.InternalError(path, res.Error)}
	}
	return field.ErrorList{field.Invalid(path, e.GetExpression(), res.Error.Detail)}
}
