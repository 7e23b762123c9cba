package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/journal"
)

// ledger is what the journal says of a run, indexed: which steps are finished,
// what their calls returned, which effects were begun and how they ended. It
// is built from the records on resume and kept up as the run goes on, so that
// a retried step and a resumed one find what was already done in the same way.
type ledger struct {
	steps   map[string]*stepRecord
	effects map[string]*effectRecord
	created map[string]bool     // Ref.ID() of objects that this run created
	order   []string            // step paths in the order of their first start
	last    map[string]string   // Ref.ID() to the key of the last effect made on it
	changed int                 // effects made
	leavers map[string][]string // who gave leave where a gate asked, by leaveFor
	// signatures are approvals of single people, by step.
	signatures map[string][]signature
	facts      []effect.Fact // of every call
	// failures counts the files of evidence.
	failures int
	foreign  map[string]bool // whether what others changed of an object is overwritten

	// rollback: the run is being undone. From then on the records are the
	// rollback's own, and until is the step after which it undoes.
	rollback bool
	until    string
	ended    journal.RunStatus // how it ended last; "" while it has not
}

// made enters an effect that happened.
func (l *ledger) made(key string, ef *effect.Effect) {
	l.changed++
	id := ef.Ref.ID()
	l.last[id] = key
	switch {
	case ef.Verb == effect.Delete:
		delete(l.created, id) // what comes after it under this name is not this run's
	case ef.Absent:
		l.created[id] = true
	}
}

type stepRecord struct {
	seq     uint64 // of the last StepStart
	attempt int
	ended   bool
	ok      bool
	handled bool // the failure was handled by the script: it replays
	value   json.RawMessage
	err     string
	calls   []*callRecord
	// frontier is the sequence number of the last Intent, or end of an inner
	// step, below this step: reads before it are replayed, later ones are live
	// (DESIGN §8 ruling 11).
	frontier uint64
	intent   uint64 // the last Intent of its own
	last     uint64 // the last Call of its own
	restored bool   // its facts are back
	args     string // digest of function and arguments
	undo     json.RawMessage
	end      uint64 // of the StepEnd that finished it
}

type callRecord struct {
	seq     uint64
	n       int
	builtin string
	args    string
	plan    *effect.Plan
	planned json.RawMessage // plan, not yet decoded
	value   json.RawMessage
	err     string
	done    bool
	facts   []effect.Fact
}

type effectRecord struct {
	seq     uint64
	attempt int
	effect  *effect.Effect
	status  journal.Status // "" while in doubt
	result  *effect.Result

	key, step string
	undoes    bool           // made by a rollback
	uid       string         // the target's, after it
	delta     map[string]any // what it changed of its before-image
	known     bool           // delta is known
	earlier   *effectRecord  // the same effect, made before and undone by somebody
}

func newLedger() *ledger {
	return &ledger{steps: map[string]*stepRecord{}, effects: map[string]*effectRecord{}, created: map[string]bool{}, last: map[string]string{}, leavers: map[string][]string{}, signatures: map[string][]signature{}, foreign: map[string]bool{}}
}

// step returns the record of path, making an empty one.
func (l *ledger) step(path string) *stepRecord {
	s := l.steps[path]
	if s == nil {
		s = &stepRecord{}
		l.steps[path] = s
		l.order = append(l.order, path)
	}
	return s
}

// call returns the record of the n-th call of a step if it is to be replayed.
func (s *stepRecord) call(n int) *callRecord {
	for _, c := range s.calls {
		if c.n == n && c.seq < s.frontier {
			return c
		}
	}
	return nil
}

// advance moves the frontier of path and of every step around it.
func (l *ledger) advance(path string, seq uint64) {
	for p := path; ; p = parentPath(p) {
		l.step(p).frontier = seq
		if p == "" {
			return
		}
	}
}

// effectKey identifies an effect within a run: by step path, verb, target and
// digest (Engine.digest), and by occurrence among equals; never by a global counter.
func effectKey(step, digest string, occurrence int) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d", step, digest, occurrence))
	return hex.EncodeToString(h[:10])
}

func parentPath(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[:i]
		}
	}
	return ""
}

// madeBefore takes the oldest effect like this that an earlier execution of f's
// step made.
func (e *Engine) madeBefore(f *frame, like func(*effect.Effect) bool) bool {
	var found *effectRecord
	for _, r := range e.ledger.effects {
		if r.step == f.path && r.seq < f.began && happened(r.status) && !r.undoes && !f.given[r.key] &&
			(found == nil || r.seq < found.seq) && like(r.effect) {
			found = r
		}
	}
	if found == nil {
		return false
	}
	if f.given == nil {
		f.given = map[string]bool{}
	}
	f.given[found.key] = true
	return true
}
