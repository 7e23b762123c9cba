package engine

import "strings"

// FailurePolicy is what happens after a run failed.
type FailurePolicy string

// The failure policies. A step's own holds for what fails inside of it, the
// innermost one first; the runbook's for everything else.
const (
	OnFailureStop     FailurePolicy = "stop"     // the run stays as it is: resume it, or roll it back
	OnFailureRollback FailurePolicy = "rollback" // it is rolled back at once
	OnFailureAsk      FailurePolicy = "ask"      // the operator is asked whether to roll it back
)

// policyOf is the policy for a failure in the step at path.
func (e *Engine) policyOf(path string) FailurePolicy {
	for p := path; p != ""; p = parentPath(p) {
		if policy := e.policies[p]; policy != "" {
			return policy
		}
	}
	if e.o.OnFailure != "" {
		return e.o.OnFailure
	}
	return OnFailureStop
}

// tellFailed hands a failure to who carries out the policy.
func (e *Engine) tellFailed(err error) {
	if e.o.Failed == nil {
		return
	}
	step := failedStep(err)
	e.o.Failed(strings.TrimPrefix(step, "/"), e.policyOf(step))
}
