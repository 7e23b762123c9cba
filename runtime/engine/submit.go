package engine

import (
	"context"
	"errors"
	"slices"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/journal"
)

// submitter is the Submitter of one call.
type submitter struct {
	e    *Engine
	f    *frame
	spec *builtin.Spec
	call []*effect.Effect // every effect that the call means to make
}

var _ effect.Submitter = (*submitter)(nil)

// pending is one effect on its way.
type pending struct {
	ef       *effect.Effect
	key      string
	rec      *effectRecord
	findings []gate.Finding
	result   *effect.Result
	settled  bool // its outcome is known already: nothing to send
	err      error
	// remake makes the effect out anew from its target as it is now (nil: there
	// is nothing left to do), where it depends on it: when something is undone.
	remake func(ctx context.Context, live *cluster.Object) (*effect.Effect, error)
}

// Progress implements effect.Submitter.
func (s *submitter) Progress(done, total int, msg string) { s.e.progress(s.f, done, total, msg) }

// Submit implements effect.Submitter.
func (s *submitter) Submit(ctx context.Context, ef *effect.Effect) (*effect.Result, error) {
	rs, err := s.SubmitAll(ctx, []*effect.Effect{ef})
	if len(rs) == 1 {
		return rs[0], err
	}
	return nil, err
}

// SubmitAll implements effect.Submitter. The effects are refreshed and judged
// side by side; their intents share one sync, then the requests go out, then
// their outcomes share one sync. On a virtual clock the requests go one after
// the other, so that a rehearsal is the same every time.
func (s *submitter) SubmitAll(ctx context.Context, es []*effect.Effect) ([]*effect.Result, error) {
	if err := s.e.before(s.f); err != nil {
		return nil, err
	}
	ps := make([]*pending, len(es))
	for i, ef := range es {
		s.e.classify(s.spec, ef)
		p := &pending{ef: ef}
		digest := s.e.digest(ef)
		p.key = effectKey(s.f.path, digest, s.f.occurrence(digest))
		s.e.narrow(s.f, p)
		p.rec = s.e.ledger.effects[p.key]
		ps[i] = p
	}
	err := s.submit(ctx, ps)
	results := make([]*effect.Result, len(ps))
	for i, p := range ps {
		results[i] = p.result
	}
	return results, err
}

// conflictTries bounds how often an effect whose target changed under it is
// read and judged anew (ruling 8).
const conflictTries = 5

func (s *submitter) submit(ctx context.Context, ps []*pending) error {
	for _, p := range ps {
		p.ef.Marks = effect.Marks{Run: s.e.run.ID, Key: p.key}
		if err := s.settle(ctx, p); err != nil {
			return err
		}
	}
	open := unsettled(ps)
	for try := 1; len(open) > 0; try++ {
		if err := s.judge(ctx, open); err != nil {
			return err
		}
		open = unsettled(open)
		if err := s.intend(open); err != nil {
			return err
		}
		s.perform(open)
		if err := s.conclude(open, try < conflictTries); err != nil {
			return err
		}
		open = slices.DeleteFunc(open, func(p *pending) bool { return p.err == nil })
	}
	return nil
}

// stale reports whether a write was refused because its target is not the one
// that was read any more; who owns which field is another matter.
func stale(err error) bool {
	var fields *cluster.ConflictError
	return errors.Is(err, cluster.ErrConflict) && !errors.As(err, &fields)
}

func unsettled(ps []*pending) []*pending {
	var out []*pending
	for _, p := range ps {
		if !p.settled {
			out = append(out, p)
		}
	}
	return out
}

// settle finds out what the journal already says of an effect.
func (s *submitter) settle(ctx context.Context, p *pending) error {
	if p.rec == nil {
		return nil
	}
	if p.rec.status == "" {
		if err := s.e.doubt(s.f, p.key); err != nil {
			return err
		}
	}
	if p.remake != nil {
		return nil // whether there is anything left to do shows in the cluster
	}
	switch p.rec.status {
	case journal.Done, journal.Observed:
		lost, err := s.e.lost(ctx, p)
		if err != nil || lost {
			return err
		}
		p.settled = true
		p.result = &effect.Result{Replayed: true}
		if p.rec.result != nil {
			p.result.Object = p.rec.result.Object
		}
		s.f.counts.Replayed++
		s.e.emit(s.f.path, &event.EffectReplayed{Change: event.ChangeOf(p.key, Summary(p.ef), p.ef)})
	}
	return nil
}

// judge refreshes the before-images and runs the gates live.
func (s *submitter) judge(ctx context.Context, ps []*pending) error {
	run := s.e.run
	run.Now, run.Seen, run.Step = s.e.o.Env.Clock.Now(), &gate.Seen{}, s.f.path
	r := s.e.readerOf(s.f)
	s.e.sideBySide(len(ps), func(i int) { ps[i].err = s.refresh(ctx, ps[i]) })
	open := unsettled(ps)
	es := make([]*effect.Effect, len(open))
	for i, p := range open {
		es[i] = p.ef
	}
	s.e.sideBySide(len(open), func(i int) {
		if p := open[i]; p.err == nil {
			one := run
			one.Earlier, one.Call = es[:i], s.call
			p.findings = gate.Judge(ctx, r, &one, p.ef)
		}
	})
	if err := s.e.interrupted(); err != nil {
		return s.e.doomed(err)
	}
	var all []gate.Finding
	for _, p := range ps {
		if p.err != nil {
			return s.e.doomed(s.e.wrapCancelled(p.err))
		}
		if p.settled {
			continue
		}
		all = append(all, undeclared(s.spec, []*effect.Effect{p.ef})...)
		all = append(all, s.e.unsealed([]*effect.Effect{p.ef})...)
		all = append(all, s.e.withLeave(s.e.wayOut(p.findings), []*effect.Effect{p.ef})...)
	}
	key := ""
	if len(ps) == 1 {
		key = ps[0].key
	}
	return s.e.judged(s.f, s.spec.Name, key, all, es, false)
}

// refresh reads the target as it is now: the before-image that goes into the
// Intent, and the UID that fences the write. What is to be deleted and is gone
// needs no effect.
func (s *submitter) refresh(ctx context.Context, p *pending) error {
	// What the object is by now counts for its class, too.
	defer func() { s.e.classify(s.spec, p.ef) }()
	live, err := s.e.o.Cluster.Get(ctx, p.ef.Ref)
	gone := errors.Is(err, cluster.ErrNotFound) || errors.Is(err, cluster.ErrNoKind)
	switch {
	case p.remake != nil && (err == nil || gone):
		if gone {
			live = nil
		}
		return s.remade(ctx, p, live)
	case gone:
		p.ef.Before, p.ef.Absent, p.ef.UID = nil, true, ""
		if p.ef.Verb == effect.Delete || p.ef.Verb == effect.Evict {
			p.settled = true
			p.result = &effect.Result{Observed: true}
		}
		return nil
	case err != nil:
		return err
	}
	uid := string(live.GetUID())
	if p.ef.UID != "" && p.ef.UID != uid && (p.ef.Verb == effect.Delete || p.ef.Verb == effect.Evict) {
		// Another object of the same name, as a StatefulSet makes: the one that
		// was meant is gone.
		p.settled = true
		p.result = &effect.Result{Observed: true}
		return nil
	}
	p.ef.Before, p.ef.Absent, p.ef.UID = live, false, uid
	if p.ef.Verb == effect.Replace || p.ef.Verb == effect.Delete {
		p.ef.ResourceVersion = live.GetResourceVersion()
	}
	return nil
}

// remade makes the effect out anew from its target as it is now.
func (s *submitter) remade(ctx context.Context, p *pending, live *cluster.Object) error {
	ef, err := p.remake(ctx, live)
	switch {
	case err != nil:
		return err
	case ef == nil:
		p.settled, p.result = true, &effect.Result{Observed: true}
	default:
		ef.Marks = p.ef.Marks
		p.ef = ef
	}
	return nil
}

// intend journals the intents, then waits once until they are durable.
func (s *submitter) intend(ps []*pending) error {
	intents := make([]*journal.Intent, len(ps))
	for i, p := range ps { // all of them, before the first is on record
		sealed, blob, err := s.e.sealEffect(p.ef)
		if err != nil {
			return s.e.doomed(err)
		}
		attempt := 1
		if p.rec != nil {
			attempt = p.rec.attempt + 1
		}
		intents[i] = &journal.Intent{Key: p.key, Step: s.f.path, Attempt: attempt, Effect: sealed, Sealed: blob, Findings: worse(p.findings)}
	}
	for i, p := range ps {
		seq, err := s.e.append(intents[i])
		if err != nil {
			return err
		}
		p.rec = &effectRecord{seq: seq, attempt: intents[i].Attempt, effect: p.ef, key: p.key, step: s.f.path, undoes: s.e.rollback != nil}
		s.e.ledger.effects[p.key] = p.rec
	}
	if err := s.e.o.Journal.Sync(); err != nil {
		return s.e.journalError(err)
	}
	for _, p := range ps {
		s.e.emit(s.f.path, &event.EffectIntent{Change: event.ChangeOf(p.key, Summary(p.ef), p.ef)})
	}
	return nil
}
