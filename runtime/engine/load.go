package engine

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	utiljson "k8s.io/apimachinery/pkg/util/json"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/journal"
)

// load builds the ledger from the journal.
func (e *Engine) load() error {
	for rec, err := range e.o.Journal.Records() {
		if err != nil {
			return fmt.Errorf("run %s: journal: %w", e.run.ID, err)
		}
		body, err := rec.Decode()
		if err != nil {
			return fmt.Errorf("run %s: journal: %w", e.run.ID, err)
		}
		if err := e.ledger.take(source{e.o.Journal, e.o.Sealer}, rec.Seq, body); err != nil {
			return fmt.Errorf("run %s: journal: record %d (%s): %w", e.run.ID, rec.Seq, rec.Type, err)
		}
	}
	if err := e.ledger.decodePlans(); err != nil {
		return fmt.Errorf("run %s: journal: %w", e.run.ID, err)
	}
	e.conformed()
	return nil
}

// conformed tells the plan in force what was made of it before.
func (e *Engine) conformed() {
	if e.o.Plan == nil {
		return
	}
	var made []*effectRecord
	for _, r := range e.ledger.effects {
		if happened(r.status) && !r.undoes {
			made = append(made, r)
		}
	}
	slices.SortFunc(made, func(a, b *effectRecord) int { return cmp.Compare(a.seq, b.seq) })
	for _, r := range made {
		e.o.Plan.Made(r.step, r.effect)
	}
}

// backed demands that the backups on which the run's gates rely are still there
// and what they were. A rollback does without: it undoes from before-images,
// and only a step whose undo is a restore needs its backup.
func (e *Engine) backed() error {
	for _, f := range e.ledger.facts {
		if f.Backup == nil {
			continue
		}
		if _, err := e.o.Journal.Get(f.Backup.Digest); err != nil {
			return fmt.Errorf("run %s: its backup: %w", e.run.ID, err)
		}
	}
	return nil
}

// source is where a ledger reads what is not in the records themselves.
type source struct {
	journal.Blobs
	sealer builtin.Sealer
}

// unseal opens a sealed blob as JSON. A key that is not the one it was sealed
// with is no error of the journal: what is sealed stays unknown.
func (s source) unseal(digest string, into any) (bool, error) {
	if s.sealer == nil {
		return false, nil
	}
	sealed, err := s.Get(digest)
	if err != nil {
		return false, err
	}
	raw, err := s.sealer.Open(sealed)
	if err != nil {
		return false, nil
	}
	return true, json.Unmarshal(raw, into)
}

// Whole is an intent's effect with what the journal holds sealed of it. opened is
// false where it is without that: sealer is nil, or has another key.
func Whole(blobs journal.Blobs, sealer builtin.Sealer, b *journal.Intent) (ef *effect.Effect, opened bool, err error) {
	if b.Sealed == "" {
		return b.Effect, true, nil
	}
	plain := &effect.Effect{}
	if opened, err = (source{blobs, sealer}).unseal(b.Sealed, plain); err != nil || !opened {
		return b.Effect, false, err
	}
	return plain, true, nil
}

// take enters one record into the ledger.
func (l *ledger) take(blobs source, seq uint64, body journal.Body) error {
	l.ended = ""
	switch b := body.(type) {
	case *journal.Resume:
		if b.Rollback {
			l.rollback, l.until = true, b.Until
		}
	case *journal.End:
		l.ended = b.Status
	case *journal.Evidence:
		l.failures++
	case *journal.Approval:
		switch {
		case b.Gate == foreignGate:
			l.foreign[b.Object] = b.Granted
		case b.Gate != "" && b.Granted:
			key := leaveFor(b.Gate, b.Object, b.Effect)
			l.leavers[key] = append(l.leavers[key], b.By)
		case b.Gate == "" && b.Granted:
			l.signatures[b.Step] = append(l.signatures[b.Step], signature{b.By, b.Diffs})
		}
	case *journal.StepStart:
		s := l.step(b.Path)
		s.begin(seq, b.Attempt)
		s.args, s.undo = b.Args, b.Undo
	case *journal.StepEnd:
		return l.takeEnd(blobs, seq, b)
	case *journal.Call:
		return l.takeCall(blobs, seq, b)
	case *journal.Plan:
		raw, err := journal.LoadValue(blobs, b.Plan)
		if err != nil {
			return err
		}
		c := l.step(b.Step).entry(b.Seq)
		*c = callRecord{seq: seq, n: b.Seq, builtin: b.Builtin, args: b.Args, planned: raw}
	case *journal.Intent:
		whole, _, err := Whole(blobs.Blobs, blobs.sealer, b)
		if err != nil {
			return err
		}
		r := &effectRecord{seq: seq, attempt: b.Attempt, effect: whole, key: b.Key, step: b.Step, undoes: l.rollback}
		if old := l.effects[b.Key]; old != nil && happened(old.status) {
			r.earlier = old // made again, because somebody had undone it
		}
		l.effects[b.Key] = r
		l.advance(b.Step, seq)
		l.step(b.Step).intent = seq
	case *journal.Outcome:
		return l.takeOutcome(blobs, b)
	}
	return nil
}

// begin enters a pass of the step. Another attempt reads everything anew; the
// same attempt, taken up by a resume, keeps what was read before the frontier
// and forgets the rest, because that was read live again.
func (s *stepRecord) begin(seq uint64, attempt int) {
	if attempt != s.attempt || s.ended {
		s.calls = nil // a pass that ended in failure is read anew, too
	}
	kept := s.calls[:0]
	for _, c := range s.calls {
		if c.seq < s.frontier {
			kept = append(kept, c)
		}
	}
	s.calls = kept
	s.seq, s.attempt, s.ended, s.handled = seq, attempt, false, false
}

// decodePlans decodes the plans of calls that are not over. Most are, and nobody
// asks for their plans.
func (l *ledger) decodePlans() error {
	for _, s := range l.steps {
		for _, c := range s.calls {
			if c.planned == nil || c.done {
				continue
			}
			c.plan = &effect.Plan{}
			if err := json.Unmarshal(c.planned, c.plan); err != nil {
				return fmt.Errorf("record %d (plan): %w", c.seq, err)
			}
		}
	}
	return nil
}

func (l *ledger) takeEnd(blobs source, seq uint64, b *journal.StepEnd) error {
	raw, err := journal.LoadValue(blobs, b.Value)
	if err != nil {
		return err
	}
	s := l.step(b.Path)
	s.ended, s.ok, s.handled, s.value, s.err = true, b.OK, b.Handled, raw, b.Error
	if b.OK || b.Handled {
		s.end = seq
		l.advance(parentPath(b.Path), seq)
	}
	return nil
}

func (l *ledger) takeCall(blobs source, seq uint64, b *journal.Call) error {
	raw, err := journal.LoadValue(blobs, b.Value)
	if err != nil {
		return err
	}
	s := l.step(b.Step)
	c := s.entry(b.Seq)
	if c.planned == nil || c.builtin != b.Builtin || c.args != b.Args {
		*c = callRecord{n: b.Seq, builtin: b.Builtin, args: b.Args}
	}
	c.seq, c.value, c.err, c.done, c.facts = seq, raw, b.Error, true, b.Facts
	l.facts = append(l.facts, b.Facts...)
	if s.intent > s.last && b.Error == "" {
		// The call made changes and is over: planned again, it would find nothing
		// left to do and return another value.
		l.advance(b.Step, seq+1)
	}
	s.last = seq
	return nil
}

// entry is the record of the n-th call of the step's present pass. A later
// pass overwrites what an earlier one left at the same place.
func (s *stepRecord) entry(n int) *callRecord {
	for _, c := range s.calls {
		if c.n == n {
			return c
		}
	}
	c := &callRecord{n: n}
	s.calls = append(s.calls, c)
	return c
}

func (l *ledger) takeOutcome(blobs source, b *journal.Outcome) error {
	r := l.effects[b.Key]
	if r == nil || b.Status == journal.InDoubt {
		return nil
	}
	r.status, r.result, r.uid = b.Status, b.Result, b.UID
	switch {
	case b.Sealed != "":
		ok, err := blobs.unseal(b.Sealed, &r.delta)
		if err != nil {
			return err
		}
		r.known = ok
	case b.Delta.Inline != nil || b.Delta.Blob != "":
		raw, err := journal.LoadValue(blobs, b.Delta)
		if err != nil {
			return err
		}
		if err := utiljson.Unmarshal(raw, &r.delta); err != nil {
			return err
		}
		r.known = true
	}
	if happened(b.Status) {
		l.made(b.Key, r.effect)
	}
	return nil
}

// happened: the effect is in the cluster.
func happened(s journal.Status) bool { return s == journal.Done || s == journal.Observed }

// factsBelow lists what the calls of a finished step, and of the steps inside
// it, established, in the order of the journal.
func (l *ledger) factsBelow(path string) []effect.Fact {
	var out []effect.Fact
	for _, p := range l.order {
		if p == path || within(p, path) {
			for _, c := range l.steps[p].calls {
				out = append(out, c.facts...)
			}
		}
	}
	return out
}

func within(path, outer string) bool {
	return len(path) > len(outer) && path[:len(outer)] == outer && path[len(outer)] == '/'
}
