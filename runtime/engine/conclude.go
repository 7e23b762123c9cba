package engine

import (
	"errors"
	"fmt"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/journal"
)

// conclude journals the outcomes with one sync and runs the gates' second half.
// With again, an effect whose target changed under it is no failure yet, nor
// are those that were held back for it.
func (s *submitter) conclude(ps []*pending, again bool) error {
	var first error
	for _, p := range ps {
		out := &journal.Outcome{Key: p.key, Status: journal.Done}
		switch {
		case p.err == nil && p.result.Observed:
			out.Status = journal.Observed
		case errors.Is(p.err, ErrInDoubt):
			out.Status, out.Error = journal.InDoubt, p.ef.Redact(p.err.Error())
		case errors.Is(p.err, errNotSent):
			out.Status = journal.NotHappened
		case p.err != nil:
			out.Status, out.Error = journal.Failed, p.ef.Redact(p.err.Error())
		}
		if first == nil && p.err != nil && !errors.Is(p.err, errNotSent) && (!again || !stale(p.err)) {
			first = p.redacted()
		}
		if p.err == nil {
			out.Findings = s.after(p)
			if first == nil && gate.Worst(out.Findings) == gate.Block {
				first = &gate.Refusal{Findings: out.Findings, Made: true, Effect: p.ef}
			}
			if err := s.e.changed(out, p.ef, p.result.Object); err != nil {
				return err
			}
		}
		if _, err := s.e.append(out); err != nil {
			return err
		}
		s.account(p, out, again && stale(p.err))
	}
	if err := s.e.o.Journal.Sync(); err != nil {
		return s.e.journalError(err)
	}
	for _, p := range ps {
		if !again || !stale(p.err) {
			s.tell(p)
		}
	}
	if first != nil {
		return s.failure(first)
	}
	return s.e.doomed(s.e.interrupted())
}

// after runs the gates' second half and shows what it finds. A rollback is not
// stopped half-way by it.
func (s *submitter) after(p *pending) []gate.Finding {
	if s.e.interrupted() != nil {
		return nil // what can't be looked at for that is no finding
	}
	run := s.e.run
	run.Now, run.Step = s.e.o.Env.Clock.Now(), s.f.path
	fs := worse(s.e.wayOut(gate.JudgeAfter(s.f.asking(s.f.ctx, s.spec.Name), s.e.view, &run, p.ef)))
	for i := range fs {
		if s.e.rollback != nil {
			fs[i].Verdict = min(fs[i].Verdict, gate.Warn)
		}
	}
	if len(fs) > 0 {
		s.e.emit(s.f.path, &event.Findings{Findings: fs})
	}
	return fs
}

// redacted is the effect's error without Secret material in its text.
func (p *pending) redacted() error {
	text := p.err.Error()
	if clean := p.ef.Redact(text); clean != text {
		return &retold{text: clean, err: p.err}
	}
	return p.err
}

// account enters an outcome into the ledger and the counts.
func (s *submitter) account(p *pending, out *journal.Outcome, again bool) {
	rec := s.e.ledger.effects[p.key]
	if out.Status != journal.InDoubt {
		rec.status = out.Status
	}
	if p.err != nil {
		if !again && !errors.Is(p.err, errNotSent) {
			s.f.counts.Failed++
		}
		return
	}
	s.e.ledger.made(p.key, p.ef)
	if s.e.o.Plan != nil {
		s.e.o.Plan.Made(s.f.path, p.ef)
	}
	c := event.Counts{}
	switch {
	case out.Status == journal.Observed:
		c.Observed = 1
	case p.ef.Verb == effect.Delete:
		c.Pruned = 1
	case p.ef.Verb == effect.Evict:
		c.Evicted = 1
	case p.ef.Class == effect.Restart:
		c.Restarted = 1
	default:
		c.Applied = 1
	}
	s.f.counts = sum(s.f.counts, c)
	s.e.counts = sum(s.e.counts, c)
}

func (s *submitter) tell(p *pending) {
	change := event.ChangeOf(p.key, Summary(p.ef), p.ef)
	switch {
	case errors.Is(p.err, errNotSent):
	case p.err != nil:
		s.e.emit(s.f.path, &event.EffectFailed{Change: change, Error: p.ef.Redact(p.err.Error()), InDoubt: errors.Is(p.err, ErrInDoubt)})
	case p.result.Observed:
		s.e.emit(s.f.path, &event.EffectObserved{Change: change, Observation: effect.Happened})
	default:
		s.e.emit(s.f.path, &event.EffectDone{Change: change})
	}
}

func (s *submitter) failure(err error) error {
	var refusal *gate.Refusal
	if errors.As(err, &refusal) {
		return s.e.doomed(refusal)
	}
	if errors.Is(err, ErrInDoubt) {
		return s.e.doomed(&diag.Error{
			Code: diag.InDoubt, Subject: s.spec.Name, Problem: "a change may or may not have happened", Err: err,
			Next: "rutter resume " + s.e.run.ID,
		})
	}
	return fmt.Errorf("%s: %w", s.spec.Name, err)
}
