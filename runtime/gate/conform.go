package gate

import (
	"context"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

// Conformance is a saved plan that is in force: what a person approved is what
// may be done. Safe for concurrent use.
type Conformance interface {
	// Allows judges an effect of a step that is about to be made, or is forecast.
	// earlier are effects of the same step that are made at the same time, or
	// forecast before it.
	Allows(step string, e *effect.Effect, earlier []*effect.Effect, forecast bool) []Finding
	// Made is told of every effect that happened, those before a resume included.
	Made(step string, e *effect.Effect)
}

var planConformance = &Gate{
	Code: PlanConformance, Name: "plan-conformance",
	Rationale: "Somebody read the saved plan and agreed to it, and to nothing else.",
	Source:    "DESIGN §3 RUT008, §8 ruling 8",
	Before: func(ctx context.Context, _ cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
		if run.Plan == nil || run.Rollback {
			return nil, nil
		}
		return run.Plan.Allows(cluster.AskerOf(ctx).Step, e, run.Earlier, run.Forecast), nil
	},
}
