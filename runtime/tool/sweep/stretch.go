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
	first int         // request of the undisturbed run
	at    map[int]int // its requests by number, and their numbers in a resume from there
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
		end := len(ref.points)
		if i+1 < len(ref.stretches) {
			end = ref.stretches[i+1].first - 1
		}
		st.number(ref.points, end)
	}
	return nil
}

// number finds the requests up to end, those of one step, in a resume.
func (st *stretch) number(points []point, end int) {
	w := st.from.fork()
	var made []string
	// Where the resume stops does not matter: its requests are what is looked for.
	_, _ = w.resume(plan{
		onRequest: func(pt point) { made = append(made, pt.what) },
		onStep: func(p *process, e *journal.StepEnd) {
			if outer(e) {
				p.leave()
			}
		},
	})
	st.at = map[int]int{}
	next := 0
	for no := st.first; no <= end; no++ {
		for i := next; i < len(made); i++ {
			if made[i] == points[no-1].what {
				st.at[no], next = i+1, i+1
				break
			}
		}
	}
}

// shortcut is the world at the beginning of the step in which the case's request
// comes, and the number of the request in a resume from there; nil if the case
// begins at the beginning.
func (ref *reference) shortcut(c Case, seed uint64) (*world, int) {
	if !ref.mayStop(c, seed) {
		return nil, 0
	}
	for _, st := range ref.stretches {
		if at, ok := st.at[c.Request]; ok {
			st.mu.Lock()
			defer st.mu.Unlock()
			return st.from.fork(), at
		}
	}
	return nil, 0
}
