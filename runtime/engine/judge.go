package engine

import (
	"fmt"
	"maps"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/journal"
)

// forecast judges every effect of a call before its first write, assuming that
// the earlier ones succeed (ruling 3).
func (e *Engine) forecast(f *frame, spec *builtin.Spec, es []*effect.Effect, awaits []cluster.Ref) error {
	run := e.run
	run.Now, run.Forecast, run.Seen, run.Awaits, run.Step = e.o.Env.Clock.Now(), true, &gate.Seen{}, awaits, f.path
	all := append(undeclared(spec, es), e.unsealed(es)...)
	e.expect(f, es)
	found := make([][]gate.Finding, len(es))
	e.sideBySide(len(es), func(i int) {
		r := run
		r.Earlier, r.Call = es[:i], es
		found[i] = gate.Judge(f.asking(f.ctx, spec.Name), e.readerOf(f), &r, es[i])
	})
	if err := e.interrupted(); err != nil {
		return err // what gates could not find out was for the interrupt
	}
	for _, fs := range found {
		all = append(all, fs...)
	}
	return e.judged(f, spec.Name, "", e.withLeave(e.wayOut(all), es), es, true)
}

// expect marks effects as they will be when they are made, in this order, so that
// what the server is asked beforehand is what it gets.
func (e *Engine) expect(f *frame, es []*effect.Effect) {
	equals := maps.Clone(f.equals)
	for _, ef := range es {
		digest := e.digest(ef)
		ef.Marks = e.marks(f, digest, equals)
		equals[digest]++
	}
}

// marks are those of an effect that comes after so many equal ones.
func (e *Engine) marks(f *frame, digest string, equals map[string]int) effect.Marks {
	return effect.Marks{Run: e.run.ID, Key: effectKey(f.path, digest, equals[digest])}
}

// undeclared finds effects of a class that the builtin did not declare: a
// defect of the builtin, which must not become a hole in the gates.
func undeclared(spec *builtin.Spec, es []*effect.Effect) []gate.Finding {
	var out []gate.Finding
	for _, ef := range es {
		if !spec.Declares(ef.Class) {
			out = append(out, gate.Finding{
				Code: gate.Scope, Verdict: gate.Block, Ref: ef.Ref,
				Problem: fmt.Sprintf("%s made an effect of class %q, which it does not declare", spec.Name, ef.Class),
			})
		}
	}
	return out
}

// judged acts on findings: shows them, asks for leave where a gate asks, and
// refuses where one blocks.
func (e *Engine) judged(f *frame, name, key string, all []gate.Finding, es []*effect.Effect, forecast bool) error {
	shown := worse(all)
	e.wantLeave(shown)
	if len(shown) > 0 {
		e.emit(f.path, &event.Findings{Forecast: forecast, Findings: shown})
	}
	verdict := gate.Worst(all)
	if verdict == gate.Ask {
		by, granted, err := e.o.Approver.Leave(f.ctx, shown)
		if err == nil && granted {
			if enough, err := e.left(f, by, shown, es); enough || err != nil {
				return err
			}
		}
		if err := e.interrupted(); err != nil {
			return err
		}
	}
	if verdict < gate.Ask {
		return nil
	}
	if _, err := e.o.Journal.Append(&journal.Refused{Step: f.path, Builtin: name, Key: key, Forecast: forecast, Findings: shown}, true); err != nil {
		return e.journalError(err)
	}
	refusal := &gate.Refusal{Findings: shown, Forecast: forecast}
	if !forecast && len(es) == 1 {
		refusal.Effect = es[0]
	}
	return e.doomed(refusal)
}

// leaveKey is what one leave covers: this gate, this object.
func leaveKey(f gate.Finding) string { return string(f.Code) + " " + f.Ref.ID() }

func worse(all []gate.Finding) []gate.Finding {
	var out []gate.Finding
	for _, f := range all {
		if f.Verdict > gate.Pass {
			out = append(out, f)
		}
	}
	return out
}

// unsealed finds Secrets that could not be journaled: without a key no
// before-image of one may be written, and so nothing done to it (ruling 9).
func (e *Engine) unsealed(es []*effect.Effect) []gate.Finding {
	var out []gate.Finding
	for _, ef := range es {
		if ef.HoldsSecret() && e.o.Sealer == nil {
			out = append(out, gate.Finding{
				Code: gate.BackupCovers, Verdict: gate.Block, Ref: ef.Ref,
				Problem: "a Secret's before-image must be encrypted, and this run has no key", Expect: "an age key in the state folder",
			})
		}
	}
	return out
}
