package gate

import (
	"testing"

	"rutter.dev/rutter/runtime/effect"
)

// approved is a saved plan that holds some objects.
type approved map[string]bool

func (a approved) Allows(_ string, e *effect.Effect, _ []*effect.Effect, _ bool) []Finding {
	if a[e.Ref.ID()] {
		return nil
	}
	return block("it is not in the plan", "an effect of the plan", "")
}

func (a approved) Made(string, *effect.Effect) {}

func TestPlanConformance(t *testing.T) {
	e := applied(t, "", configMap)
	for name, c := range map[string]struct {
		plan     Conformance
		rollback bool
		want     Verdict
	}{
		"no plan is in force":     {nil, false, Pass},
		"in the plan":             {approved{e.Ref.ID(): true}, false, Pass},
		"not in the plan":         {approved{}, false, Block},
		"a rollback is a way out": {approved{}, true, Pass},
	} {
		t.Run(name, func(t *testing.T) {
			judge(t, planConformance, &fake{}, &Run{Plan: c.plan, Rollback: c.rollback, Policy: &Policy{}}, e, c.want)
		})
	}
}
