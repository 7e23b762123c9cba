package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

// perform sends the requests. After the first error, when an operator asks to
// stop, or when the mesh is not this run's any more, none that has not begun is
// sent.
func (s *submitter) perform(ps []*pending) {
	var failed atomic.Bool
	each := s.e.parallel
	if s.e.oneByOne() {
		each = inOrder
	}
	each(len(ps), func(i int) {
		p := ps[i]
		if failed.Load() || s.e.soft.Err() != nil || s.e.check() != nil {
			p.err = errNotSent
			return
		}
		if p.err = s.send(p); p.err != nil {
			failed.Store(true)
		}
	})
}

var errNotSent = errors.New("not sent: an earlier effect failed")

// Tries of a request that was certainly not executed, so that trying again cannot
// do it twice: one that the server refused (429), and one that never left, because
// nobody listened where the server was, which lasts as long as its restart.
const (
	throttleTries = 6
	refusedTries  = 8
	firstWait     = 500 * time.Millisecond
	longestWait   = 8 * time.Second
)

// send makes one effect. An answer that never came is looked into at once.
func (s *submitter) send(p *pending) error {
	e := s.e
	wait := firstWait
	for try := 1; ; try++ {
		obj, err := perform(s.f.asking(e.hard, s.spec.Name), e.o.Cluster, p.ef)
		if err == nil {
			p.result = &effect.Result{Object: obj}
			return nil
		}
		switch {
		case errors.Is(err, cluster.ErrThrottled) && !errors.Is(err, cluster.ErrDisruption) && try < throttleTries,
			errors.Is(err, cluster.ErrUnreachable) && try < refusedTries:
			if e.o.Env.Clock.Sleep(e.soft, wait) != nil {
				return err // it was not executed: an interrupt needs to wait for nothing
			}
			if e.check() != nil {
				return err
			}
			wait = min(wait*2, longestWait)
			continue
		case errors.Is(err, cluster.ErrUnknown):
			return s.look(p, err)
		}
		return err
	}
}

// look settles an effect whose request was sent and not answered.
func (s *submitter) look(p *pending, cause error) error {
	ctx, cancel := context.WithTimeout(s.f.asking(context.WithoutCancel(s.e.hard), s.spec.Name), 30*time.Second)
	defer cancel()
	wait := time.Second
	for try := 1; ; try++ {
		seen, obj, err := observe(ctx, s.e.o.Cluster, p.key, p.ef)
		switch {
		case seen == effect.Happened:
			p.result = &effect.Result{Object: obj, Observed: true}
			return nil
		case s.e.hard.Err() != nil:
			// Told to stop at once: what was cut off may yet take effect, and the
			// resume will look.
			return fmt.Errorf("%s: %w: %w", p.ef.Ref, ErrInDoubt, cause)
		case seen == effect.NotHappened && try >= 3:
			return cause
		case seen == effect.Unknown && try >= 3:
			return fmt.Errorf("%s: %w: %w; and looking failed: %w", p.ef.Ref, ErrInDoubt, cause, err)
		}
		// A request that is still on its way may take effect after a first look.
		if s.e.o.Env.Clock.Sleep(s.e.hard, wait) != nil {
			return fmt.Errorf("%s: %w: %w", p.ef.Ref, ErrInDoubt, cause)
		}
		wait *= 2
	}
}
