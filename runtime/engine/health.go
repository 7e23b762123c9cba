package engine

import (
	"time"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
)

// health is Call.Health of a call: RUT014 between the effects of a builtin that
// takes its time over them. Its refusal is the run's end, whatever the builtin
// makes of it.
func (e *Engine) health(f *frame, spec *builtin.Spec) func(effect.Look) error {
	return func(l effect.Look) error {
		if err := e.before(f); err != nil {
			return err
		}
		run := e.run
		run.Now, run.Seen, run.Step = e.o.Env.Clock.Now(), &gate.Seen{}, f.path
		fs := gate.JudgeHealth(f.asking(f.ctx, spec.Name), e.readerOf(f), &run, l)
		if err := e.interrupted(); err != nil {
			return e.doomed(err) // what could not be found out was for the interrupt
		}
		return e.judged(f, spec.Name, "", e.withLeave(e.wayOut(fs), nil), nil, false)
	}
}

// healthEvery is Call.HealthEvery.
func (e *Engine) healthEvery(of []effect.Health) time.Duration {
	if e.rollback != nil {
		return 0
	}
	return gate.HealthEvery(e.run.Policy, of)
}
