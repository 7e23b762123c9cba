package sweep

import "context"

// shrunk looks for the first point at which the run fails as in the first case
// that failed: a sample leaves points out before it. The points before it are
// tried in order with the same fault, at most tries of them, those nearest to it.
func (ref *reference) shrunk(ctx context.Context, s *Subject, o Options, first Case, tried func(Case) bool) (Result, bool) {
	n := order(first)
	for at := max(1, n-tries); at < n; at++ {
		c := first.at(at)
		if tried(c) || !ref.fits(c) {
			continue
		}
		if ctx.Err() != nil {
			return Result{}, false
		}
		found := Result{}
		pool := newPool(ctx, 1)
		ref.try(s, o, []Case{c}, pool, func(r Result) { found = r })
		pool.wait()
		if len(found.Broken) > 0 {
			return found, true
		}
	}
	return Result{}, false
}

// tries bounds what is tried to find the first point that fails.
const tries = 100

// at is the same case at another point.
func (c Case) at(n int) Case {
	switch {
	case c.Request > 0:
		c.Request = n
	case c.Watch > 0:
		c.Watch = n
	default:
		c.Disk = n
	}
	return c
}

// fits reports whether the fault can strike at the point.
func (ref *reference) fits(c Case) bool {
	return c.Request == 0 || strikes(*faultOf(c.Fault), ref.points[c.Request-1])
}
