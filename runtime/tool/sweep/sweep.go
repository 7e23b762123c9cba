package sweep

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sort"
	"sync"
	"time"

	"rutter.dev/rutter/runtime/diag"
)

// reference is the undisturbed run, and what cases are compared with.
type reference struct {
	Reference
	points []point
	before map[string]string // the normal form of the cluster, before and after
	after  map[string]string
	sent   []string
	needle [][]byte
	// audited are the budgets that were overdrawn before the run, and overdraws
	// says that the undisturbed run overdraws some itself.
	audited   map[string]string
	overdraws bool
	rolled    map[string]rolling
	undone    map[string]rolling
	marks     map[string]mark // at the end of outer steps, by path
	stretches []*stretch
	ways      ways // of rollbacks
	resumes   ways
	whole     bool // every case goes from the beginning to the end
}

// settle is how long controllers get to come to rest before clusters are compared.
const settle = 2 * time.Minute

func refer(s *Subject) (*reference, error) {
	w := newWorld(s)
	s.known.learn(s.Before, w.had)
	ref := &reference{marks: map[string]mark{}, needle: secrets(s.Before), audited: audited(s.Before)}
	b := s.Before.Clone()
	b.Advance(settle)
	ref.before = stateOf(b, w.had, s.known)
	began := w.sim.Clock().Now()
	p, err := w.start(plan{onStep: ref.marking, onRequest: func(pt point) { ref.points = append(ref.points, pt) }})
	if err != nil {
		return nil, fmt.Errorf("%s: the undisturbed run: %w", s.Name, err)
	}
	if p.ops == 0 || len(w.sent) == 0 {
		return nil, &diag.Error{Code: diag.Usage, Subject: s.Name, Problem: "the run changes nothing: there is nothing to sweep"}
	}
	if len(w.broken) > 0 {
		return nil, fmt.Errorf("%s: the undisturbed run: %s", s.Name, w.broken[0])
	}
	ref.Reference = Reference{Requests: p.requests, Mutations: len(w.sent), Disk: p.ops, Took: w.sim.Clock().Now().Sub(began)}
	ref.sent = took(w.sent)
	ref.rolled = w.limits.most
	if ref.Watches, err = watches(s); err != nil {
		return nil, err
	}
	w.sim.Advance(settle)
	ref.after = w.state()
	if err := ref.undo(w.fork()); err != nil {
		return nil, err
	}
	ref.overdraws = len(audited(w.sim)) > len(ref.audited)
	ref.Overdraws = ref.overdraws
	return ref, nil
}

// took are the requests that changed something, sorted.
func took(all []sent) []string {
	var out []string
	for _, s := range all {
		if s.took() {
			out = append(out, s.what())
		}
	}
	sort.Strings(out)
	return out
}

// Run sweeps a subject and calls each with every result, in no order but one at
// a time. It fails when the undisturbed run does; cases that fail are in the
// report. It returns early only when ctx ends.
func Run(ctx context.Context, s *Subject, o Options, each func(Result)) (rep *Report, err error) {
	began := time.Now()
	own := *s
	own.known = forms{}
	own.Approver = willing{s.Approver}
	if own.Before, err = planted(s.Before); err != nil {
		return nil, err
	}
	s = &own
	ref, err := refer(s)
	if err != nil {
		return nil, err
	}
	ref.whole = len(o.Only) > 0
	cases, err := choose(ref, o)
	if err != nil {
		return nil, err
	}
	if o.Started != nil {
		o.Started(ref.Reference, len(cases))
	}
	if o.Parallel <= 0 {
		o.Parallel = runtime.GOMAXPROCS(0)
	}
	rep = &Report{Subject: s.Name, Reference: ref.Reference}
	var mu sync.Mutex
	done := func(r Result) {
		mu.Lock()
		defer mu.Unlock()
		rep.Tried++
		if r.Stopped {
			rep.Stopped++
		}
		if r.Back {
			rep.Back++
		}
		if len(r.Broken) > 0 {
			rep.Failed = append(rep.Failed, r)
		}
		each(r)
	}
	if err := ref.stretch(s, cases); err != nil {
		return nil, err
	}
	pool := newPool(ctx, o.Parallel)
	ref.try(s, o, cases, pool, done)
	pool.wait()
	slices.SortStableFunc(rep.Failed, func(a, b Result) int { return order(a.Case) - order(b.Case) })
	if len(rep.Failed) > 0 && len(o.Only) == 0 && o.Cases > 0 {
		was := func(c Case) bool { return slices.Contains(cases, c) }
		if r, earlier := ref.shrunk(ctx, s, o, rep.Failed[0].Case, was); earlier {
			done(r)
			slices.SortStableFunc(rep.Failed, func(a, b Result) int { return order(a.Case) - order(b.Case) })
		}
	}
	rep.Took = time.Since(began)
	return rep, ctx.Err()
}

// try gives the pool the cases.
func (ref *reference) try(s *Subject, o Options, cases []Case, pool *pool, done func(Result)) {
	ref.walk(s, o, cases, pool, done)
	for _, c := range cases {
		if c.Disk == 0 {
			pool.do(func() { done(ref.struck(s, c, o.Seed)) })
		}
	}
}

func order(c Case) int { return c.Disk + c.Request + c.Watch }

func choose(ref *reference, o Options) ([]Case, error) {
	if len(o.Only) == 0 {
		return sample(all(ref.points, ref.Watches, ref.Disk), o.Cases, o.Seed), nil
	}
	var out []Case
	for _, id := range o.Only {
		c, err := ParseCase(id)
		if err != nil {
			return nil, err
		}
		if c.Disk > ref.Disk || c.Request > ref.Requests || c.Watch > ref.Watches {
			return nil, &diag.Error{
				Code: diag.Usage, Subject: "--case " + id, Problem: "the run does not come that far",
				Expect: fmt.Sprintf("a request up to r%d, a watch up to w%d or an operation up to j%d", ref.Requests, ref.Watches, ref.Disk),
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// walk goes through the run once more and forks it at each operation on the
// disk that a case is about, so that no case begins at the beginning.
func (ref *reference) walk(s *Subject, o Options, cases []Case, pool *pool, done func(Result)) {
	at := map[int][]Case{}
	for _, c := range cases {
		if c.Disk > 0 {
			at[c.Disk] = append(at[c.Disk], c)
		}
	}
	if len(at) == 0 {
		return
	}
	w := newWorld(s)
	_, err := w.start(plan{onDisk: func(op int, kind string) {
		if len(at[op]) == 0 || pool.ctx.Err() != nil {
			return
		}
		from := w.fork()
		for _, c := range at[op] {
			own := from.fork()
			pool.do(func() { done(ref.died(own, kind, c, o.Seed)) })
		}
	}})
	if err != nil {
		done(Result{Broken: []string{fmt.Sprintf("the walk: %v", err)}})
	}
}

// pool runs cases side by side.
type pool struct {
	ctx   context.Context
	slots chan struct{}
	wg    sync.WaitGroup
}

func newPool(ctx context.Context, n int) *pool { return &pool{ctx: ctx, slots: make(chan struct{}, n)} }

// do runs f as soon as there is room; until then it waits.
func (p *pool) do(f func()) {
	select {
	case p.slots <- struct{}{}:
	case <-p.ctx.Done():
		return
	}
	p.wg.Go(func() {
		defer func() { <-p.slots }()
		f()
	})
}

func (p *pool) wait() { p.wg.Wait() }
