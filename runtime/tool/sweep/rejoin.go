package sweep

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"sync"

	"rutter.dev/rutter/runtime/journal"
)

// A disturbed run that was resumed comes back, as a rule, to what the recorded
// run went through: a step ends with the same value, the cluster is in the same
// state, and the same changes were made. From there on it would do what the
// recorded run did, which is known; so it is left there. One case in carriedOn
// is carried on to its end nevertheless, to see that this is so.
const carriedOn = 16

// mark is how the undisturbed run was when a step of the runbook ended.
type mark struct {
	state map[string]string
	sent  []string
	value string
}

// errBack ends a process that is back on the recorded way.
var errBack = errors.New("back on the recorded way")

// marking notes a mark at the end of each outer step.
func (ref *reference) marking(p *process, e *journal.StepEnd) {
	if outer(e) {
		ref.marks[e.Path] = mark{p.w.state(), took(p.w.sent), valueOf(e)}
	}
}

// back reports whether the process, which has just ended a step, is where the
// undisturbed run was then. A script that was told of a failure (attempt) may do
// something else later: it is never back.
func (ref *reference) back(p *process, e *journal.StepEnd) bool {
	if !outer(e) {
		return false
	}
	m, ok := ref.marks[e.Path]
	if !ok || m.value != valueOf(e) {
		p.w.strayed = true // what follows may depend on the value
	}
	if p.w.strayed || len(p.w.broken) > 0 {
		return false
	}
	for _, open := range p.w.open {
		if open {
			return false
		}
	}
	return slices.Equal(took(p.w.sent), m.sent) && len(compare(p.w.state(), m.state)) == 0
}

// outer reports whether e is the good end of a step of the runbook itself.
func outer(e *journal.StepEnd) bool { return e.OK && !strings.Contains(e.Path, "/") }

func valueOf(e *journal.StepEnd) string { return string(e.Value.Inline) + e.Value.Blob }

// leave ends the process, which is back where the undisturbed run was.
func (p *process) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed, p.isBack = true, true
	p.kill(errBack)
}

// toTheEnd works on the run by do (start or resume), and leaves it where it is
// back, what was planned for it having happened, if the case may be left there.
func (ref *reference) toTheEnd(w *world, c Case, seed uint64, pl plan, do func(plan) (*process, error)) (*process, error) {
	if ref.mayStop(c, seed) {
		pl.onStep = func(p *process, e *journal.StepEnd) {
			if p.over() && pl.killAt == 0 && ref.back(p, e) {
				p.leave()
			}
		}
	}
	p, err := do(pl)
	if p.isBack {
		w.isBack = true
		return p, nil
	}
	return p, err
}

// mayStop reports whether the case may be left where it is back.
func (ref *reference) mayStop(c Case, seed uint64) bool {
	if ref.whole {
		return false
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(c.String())) // never fails
	return (h.Sum64()+seed)%carriedOn != 0
}

// ways are the states from which a rollback, or a resume, was seen to its good
// end. It is safe for concurrent use.
type ways struct {
	mu   sync.Mutex
	seen map[[sha256.Size]byte]bool
}

func (w *ways) known(from [sha256.Size]byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[from]
}

func (w *ways) learn(from [sha256.Size]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen == nil {
		w.seen = map[[sha256.Size]byte]bool{}
	}
	w.seen[from] = true
}

// resumable is all that a resume goes by: what a rollback does, and what the
// journal tells it of calls, values and leave. Calls of a step that is neither
// over nor has changed anything are made anew.
func (w *world) resumable() [sha256.Size]byte {
	h := sha256.New()
	from := w.standing()
	fmt.Fprintf(h, "%x strayed %t\n", from, w.strayed)
	for _, k := range slices.Sorted(maps.Keys(w.told)) {
		if step, call := strings.CutPrefix(k, "call "); call {
			step = step[:strings.LastIndexByte(step, ' ')]
			_, changed := w.told["changed "+step]
			if !changed && !strings.HasPrefix(w.steps[step], "ended, well true") {
				continue
			}
		}
		fmt.Fprintf(h, "%q %q\n", k, w.told[k])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// standing is all that a rollback goes by: how far which steps and effects are
// according to the journal, what was changed, and the state of the cluster.
func (w *world) standing() [sha256.Size]byte {
	h := sha256.New()
	line := func(part string, of ...string) { fmt.Fprintf(h, "%s %q\n", part, of) }
	for _, k := range slices.Sorted(maps.Keys(w.steps)) {
		line("step", k, w.steps[k])
	}
	for _, k := range slices.Sorted(maps.Keys(w.intents)) {
		line("effect", k, w.intents[k].Digest(), fmt.Sprint(w.open[k]))
	}
	line("sent", took(w.sent)...)
	state := w.state()
	for _, k := range slices.Sorted(maps.Keys(state)) {
		line("state", k, state[k])
	}
	return [sha256.Size]byte(h.Sum(nil))
}
