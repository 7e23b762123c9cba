package sweep

import (
	"fmt"
	"sync"

	"rutter.dev/rutter/runtime/journal"
)

// stretch is the undisturbed run from the end of one outer step on, for cases
// whose request comes in it: they begin with a host that was killed there and a
// resume, which makes the same requests. One case in carriedOn begins at the
// beginning nevertheless.
type stretch struct {
	mu    sync.Mutex
	from  *world
	first int          // request of the undisturbed run
	at    map[int]*nth // its requests by number, as a resume from there makes them
}

// stretch notes the stretches of the undisturbed run if there are cases for them.
func (ref *reference) stretch(s *Subject, cases []Case) error {
	last := 0
	for _, c := range cases {
		last = max(last, c.Request)
	}
	if ref.whole || last == 0 {
		return nil
	}
	w := newWorld(s)
	_, err := w.start(plan{onStep: func(p *process, e *journal.StepEnd) {
		if outer(e) && p.requests < last {
			ref.stretches = append(ref.stretches, &stretch{from: w.fork(), first: p.requests + 1})
		}
	}})
	if err != nil {
		return fmt.Errorf("%s: the undisturbed run, again: %w", s.Name, err)
	}
	for i, st := range ref.stretches {
		s.known.learn(st.from.sim, st.from.had)
		end := len(ref.points)
		if i+1 < len(ref.stretches) {
			end = ref.stretches[i+1].first - 1
		}
		st.number(ref.points, end)
	}
	return nil
}

// number finds the requests up to end, those of one step, in a resume, which
// makes others before: of those that are the same, the last are the step's.
func (st *stretch) number(points []point, end int) {
	w := st.from.fork()
	made, same := map[string]int{}, map[string][]int{}
	// Where the resume stops does not matter: its requests are what is looked for.
	_, _ = w.resume(plan{
		onRequest: func(pt point) { made[pt.what]++ },
		onStep: func(p *process, e *journal.StepEnd) {
			if outer(e) {
				p.leave()
			}
		},
	})
	for no := st.first; no <= end; no++ {
		what := points[no-1].what
		same[what] = append(same[what], no)
	}
	st.at = map[int]*nth{}
	for what, numbers := range same {
		for i, no := range numbers {
			if n := made[what] - len(numbers) + i + 1; n > 0 {
				st.at[no] = &nth{what, n}
			}
		}
	}
}

// shortcut is the world at the beginning of the step in which the case's request
// comes, and the request in a resume from there; nil if the case begins at the
// beginning.
func (ref *reference) shortcut(c Case, seed uint64) (*world, *nth) {
	if !ref.mayStop(c, seed) {
		return nil, nil
	}
	for _, st := range ref.stretches {
		if at, ok := st.at[c.Request]; ok {
			st.mu.Lock()
			defer st.mu.Unlock()
			return st.from.fork(), at
		}
	}
	return nil, nil
}
