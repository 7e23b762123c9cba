package policy

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/cel-go/common/types"

	gocel "github.com/google/cel-go/cel"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// Policy is a compiled ValidatingAdmissionPolicy. Its audit annotations are
// not evaluated, as nothing simulated audits. It is safe for concurrent use.
type Policy struct {
	Definition  *admissionregistrationv1.ValidatingAdmissionPolicy
	conditions  matchconditions.Matcher
	validations cel.ConditionEvaluator
	messages    cel.ConditionEvaluator
	err         error
}

// Denial is one validation that failed.
type Denial struct {
	Message string
	Reason  metav1.StatusReason
}

// expression is one CEL expression that has to give a type.
type expression struct {
	text string
	typ  *gocel.Type
	of   *admissionregistrationv1.Validation
	name string
}

// GetExpression implements cel.ExpressionAccessor.
func (e *expression) GetExpression() string { return e.text }

// ReturnTypes implements cel.ExpressionAccessor.
func (e *expression) ReturnTypes() []*gocel.Type {
	if e.typ == nil { // a variable may be anything
		return []*gocel.Type{gocel.AnyType, gocel.DynType}
	}
	return []*gocel.Type{e.typ}
}

// GetName implements cel.NamedExpressionAccessor.
func (e *expression) GetName() string { return e.name }

// Compile makes a policy ready to be asked. What does not compile is an error
// of each evaluation, to which the failure policy applies.
func Compile(def *admissionregistrationv1.ValidatingAdmissionPolicy) *Policy {
	p := &Policy{Definition: def}
	compiler, err := cel.NewCompositedCompiler(environments())
	if err != nil {
		p.err = err
		return p
	}
	with := cel.OptionalVariableDeclarations{HasParams: def.Spec.ParamKind != nil, HasAuthorizer: true}
	var variables []cel.NamedExpressionAccessor
	for _, v := range def.Spec.Variables {
		variables = append(variables, &expression{text: v.Expression, name: v.Name})
	}
	compiler.CompileAndStoreVariables(variables, with, environment.StoredExpressions)
	if len(def.Spec.MatchConditions) > 0 {
		p.conditions = matchconditions.NewMatcher(compiler.CompileCondition(accessors(def.Spec.MatchConditions), with, environment.StoredExpressions), def.Spec.FailurePolicy, "policy", "validate", def.Name)
	}
	n := len(def.Spec.Validations)
	checks, messages := make([]cel.ExpressionAccessor, n), make([]cel.ExpressionAccessor, n)
	for i := range def.Spec.Validations {
		v := &def.Spec.Validations[i]
		checks[i] = &expression{text: v.Expression, typ: gocel.BoolType, of: v}
		if v.MessageExpression != "" {
			messages[i] = &expression{text: v.MessageExpression, typ: gocel.StringType, of: v}
		}
	}
	p.validations = compiler.CompileCondition(checks, with, environment.StoredExpressions)
	with.HasAuthorizer = false
	p.messages = compiler.CompileCondition(messages, with, environment.StoredExpressions)
	return p
}

// CompileErrors are what is wrong with the policy's expressions.
func (p *Policy) CompileErrors() []error {
	if p.err != nil {
		return []error{p.err}
	}
	return append(p.validations.CompilationErrors(), p.messages.CompilationErrors()...)
}

// Validate evaluates the policy for one request and one parameter object, nil
// without one, and returns the validations that failed.
func (p *Policy) Validate(ctx context.Context, r Request, param runtime.Object) []Denial {
	if p.err != nil {
		return p.failed(p.err)
	}
	if p.conditions != nil {
		m := p.conditions.Match(ctx, r.Attributes, param, r.Authorizer)
		if m.Error != nil {
			return p.failed(m.Error)
		}
		if !m.Matches {
			return nil
		}
	}
	ns, request := cel.CreateNamespaceObject(r.Namespace), r.admission()
	results, budget, err := p.validations.ForInput(ctx, r.Attributes, request, cel.OptionalVariableBindings{VersionedParams: param, Authorizer: r.Authorizer}, ns, celconfig.RuntimeCELCostBudget)
	if err != nil {
		return p.failed(err)
	}
	messages, _, messagesErr := p.messages.ForInput(ctx, r.Attributes, request, cel.OptionalVariableBindings{VersionedParams: param}, ns, budget)
	var out []Denial
	for i, res := range results {
		switch {
		case res.Error != nil:
			out = append(out, p.failed(res.Error)...)
		case res.EvalResult == types.True:
		case messagesErr != nil:
			out = append(out, p.failed(fmt.Errorf("failed messageExpression: %w", messagesErr))...)
		default:
			out = append(out, denial(p.Definition.Spec.Validations[i], messages, i))
		}
	}
	return out
}

// failed is the denial that an error amounts to, unless the policy ignores
// errors.
func (p *Policy) failed(err error) []Denial {
	if f := p.Definition.Spec.FailurePolicy; f != nil && *f == admissionregistrationv1.Ignore {
		return nil
	}
	return []Denial{{Message: err.Error()}}
}

// denial words a failed validation: by its message expression, its message, or
// the expression itself.
func denial(v admissionregistrationv1.Validation, messages []cel.EvaluationResult, i int) Denial {
	d := Denial{Reason: metav1.StatusReasonInvalid}
	if v.Reason != nil {
		d.Reason = *v.Reason
	}
	if i < len(messages) && messages[i].Error == nil && messages[i].EvalResult != nil {
		if s, ok := messages[i].EvalResult.Value().(string); ok {
			s = strings.TrimSpace(s)
			if len(s) <= celconfig.MaxEvaluatedMessageExpressionSizeBytes && !strings.Contains(s, "\n") {
				d.Message = s
			}
		}
	}
	if d.Message == "" {
		d.Message = strings.TrimSpace(v.Message)
	}
	if d.Message == "" {
		d.Message = fmt.Sprintf("failed expression: %v", strings.TrimSpace(v.Expression))
	}
	return d
}
