package event

import (
	"encoding/json"
	"fmt"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
)

// Type is the stable "type" field of an event in JSON. Types are only added.
type Type string

// Event is something that happened at Time (the run's clock) inside Step (its
// path; "" outside of every step).
type Event struct {
	Time time.Time
	Step string
	Body Body
}

// Body is one of the structs below, by pointer.
type Body interface{ EventType() Type }

// RunStarted opens the stream, again on every resume.
type RunStarted struct {
	Run        string `json:"run"`
	Runbook    string `json:"runbook"`
	Version    string `json:"version,omitempty"` // of the runbook
	Context    string `json:"context,omitempty"`
	ClusterUID string `json:"clusterUID,omitempty"`
	From       string `json:"from,omitempty"`
	To         string `json:"to,omitempty"`
	Resumed    bool   `json:"resumed,omitempty"`
	Rollback   bool   `json:"rollback,omitempty"`
	Rehearsal  bool   `json:"rehearsal,omitempty"` // on the twin: nothing real is changed
}

// StepStarted: a step begins. The event's Step is its path.
type StepStarted struct {
	Name    string `json:"name"`
	Depth   int    `json:"depth"`             // 0 for an outermost step
	Attempt int    `json:"attempt,omitempty"` // from 2: a retry
	Pos     string `json:"pos,omitempty"`     // file:line:col of the call
}

// Counts are a step's effects by what became of them.
type Counts struct {
	Applied   int `json:"applied,omitempty"` // created or changed
	Unchanged int `json:"unchanged,omitempty"`
	Pruned    int `json:"pruned,omitempty"` // deleted
	Restarted int `json:"restarted,omitempty"`
	Evicted   int `json:"evicted,omitempty"`
	Failed    int `json:"failed,omitempty"`
	Replayed  int `json:"replayed,omitempty"` // taken from the journal
	Observed  int `json:"observed,omitempty"` // found to have happened
}

// StepEnded: a step finished.
type StepEnded struct {
	Name     string        `json:"name"`
	Depth    int           `json:"depth"`
	OK       bool          `json:"ok"`
	Error    string        `json:"error,omitempty"`
	Duration time.Duration `json:"durationNanos"`
	Replayed bool          `json:"replayed,omitempty"` // its value came from the journal
	Counts   Counts        `json:"counts"`
	Note     string        `json:"note,omitempty"` // one line about its value, for a person
}

// PlanMade: the forecast of one call of a write builtin is ready.
type PlanMade struct {
	Builtin   string   `json:"builtin"`
	Effects   int      `json:"effects"`
	Unchanged int      `json:"unchanged,omitempty"`
	Notes     []string `json:"notes,omitempty"`
}

// Change says which effect an event is about.
type Change struct {
	Key     string       `json:"key,omitempty"`
	Verb    effect.Verb  `json:"verb"`
	Ref     cluster.Ref  `json:"ref"`
	Class   effect.Class `json:"class"`
	Created bool         `json:"created,omitempty"` // the target did not exist
	// Summary is what changes, in a few words: "image pilot:1.30.3 → pilot:1.31.0".
	Summary string `json:"summary,omitempty"`
	Why     string `json:"why,omitempty"`
	Wave    string `json:"wave,omitempty"`
}

// ChangeOf describes e.
func ChangeOf(key, summary string, e *effect.Effect) Change {
	return Change{
		Key: key, Verb: e.Verb, Ref: e.Ref, Class: e.Class, Created: e.Absent,
		Summary: summary, Why: e.Why, Wave: e.Wave,
	}
}

// EffectPlanned: an effect is in a forecast.
type EffectPlanned struct{ Change }

// EffectIntent: its Intent is durable; the request goes out next.
type EffectIntent struct{ Change }

// EffectDone: it was made.
type EffectDone struct{ Change }

// EffectReplayed: its outcome was already in the journal.
type EffectReplayed struct{ Change }

// EffectObserved: it was in doubt and a look at the cluster settled it.
type EffectObserved struct {
	Change
	Observation effect.Observation `json:"observation"`
}

// EffectFailed: it did not happen, or (InDoubt) nobody knows.
type EffectFailed struct {
	Change
	Error   string `json:"error"`
	InDoubt bool   `json:"inDoubt,omitempty"`
}

// Findings are what gates found about a call (forecast) or an effect. Only
// findings worse than pass are sent.
type Findings struct {
	Forecast bool           `json:"forecast,omitempty"`
	After    bool           `json:"after,omitempty"` // judged after the effect
	Findings []gate.Finding `json:"findings"`
}

// ApprovalAsked: the run waits for a person.
type ApprovalAsked struct {
	Message string   `json:"message"`
	Covers  []string `json:"covers,omitempty"`
}

// ApprovalAnswered: the answer came (or came from the journal).
type ApprovalAnswered struct {
	Message  string `json:"message"`
	Granted  bool   `json:"granted"`
	By       string `json:"by,omitempty"`
	Replayed bool   `json:"replayed,omitempty"`
}

// Log is a line from the runbook, or from the host when Level is not "info".
type Log struct {
	Level   string `json:"level"` // "info", "warn"
	Message string `json:"message"`
}

// Progress says how far a wait or wave is. Total 0 means not known.
type Progress struct {
	Done    int    `json:"done"`
	Total   int    `json:"total"`
	Message string `json:"message"`
}

// WaveStarted: a wave of restarts begins.
type WaveStarted struct {
	Name      string   `json:"name"`  // "canary", "2 of 4"
	Size      int      `json:"size"`  // workloads in it
	Total     int      `json:"total"` // workloads in all waves
	Workloads []string `json:"workloads,omitempty"`
}

// WaveEnded: a wave is over.
type WaveEnded struct {
	Name     string        `json:"name"`
	OK       bool          `json:"ok"`
	Error    string        `json:"error,omitempty"`
	Duration time.Duration `json:"durationNanos"`
}

// Diff is a block of unified diff, secrets already masked.
type Diff struct {
	ID    string `json:"id,omitempty"`
	Title string `json:"title"`
	Text  string `json:"text"`
}

// RunEnded closes the stream.
type RunEnded struct {
	Run      string        `json:"run"`
	Status   string        `json:"status"` // as in the journal: "done", "failed", "refused", "interrupted", "in-doubt"
	Exit     diag.Code     `json:"exit"`
	Error    string        `json:"error,omitempty"`
	Duration time.Duration `json:"durationNanos"`
	Counts   Counts        `json:"counts"`
	Next     string        `json:"next,omitempty"` // the command to type next
}

// EventType implements Body.
func (*RunStarted) EventType() Type { return "run-started" }

// EventType implements Body.
func (*StepStarted) EventType() Type { return "step-started" }

// EventType implements Body.
func (*StepEnded) EventType() Type { return "step-ended" }

// EventType implements Body.
func (*PlanMade) EventType() Type { return "plan-made" }

// EventType implements Body.
func (*EffectPlanned) EventType() Type { return "effect-planned" }

// EventType implements Body.
func (*EffectIntent) EventType() Type { return "effect-intent" }

// EventType implements Body.
func (*EffectDone) EventType() Type { return "effect-done" }

// EventType implements Body.
func (*EffectReplayed) EventType() Type { return "effect-replayed" }

// EventType implements Body.
func (*EffectObserved) EventType() Type { return "effect-observed" }

// EventType implements Body.
func (*EffectFailed) EventType() Type { return "effect-failed" }

// EventType implements Body.
func (*Findings) EventType() Type { return "findings" }

// EventType implements Body.
func (*ApprovalAsked) EventType() Type { return "approval-asked" }

// EventType implements Body.
func (*ApprovalAnswered) EventType() Type { return "approval-answered" }

// EventType implements Body.
func (*Log) EventType() Type { return "log" }

// EventType implements Body.
func (*Progress) EventType() Type { return "progress" }

// EventType implements Body.
func (*WaveStarted) EventType() Type { return "wave-started" }

// EventType implements Body.
func (*WaveEnded) EventType() Type { return "wave-ended" }

// EventType implements Body.
func (*Diff) EventType() Type { return "diff" }

// EventType implements Body.
func (*RunEnded) EventType() Type { return "run-ended" }

// bodies lists every kind of event once, for decoding.
func bodies() []Body {
	return []Body{
		new(RunStarted), new(StepStarted), new(StepEnded), new(PlanMade),
		new(EffectPlanned), new(EffectIntent), new(EffectDone), new(EffectReplayed), new(EffectObserved), new(EffectFailed),
		new(Findings), new(ApprovalAsked), new(ApprovalAnswered), new(Log), new(Progress),
		new(WaveStarted), new(WaveEnded), new(Diff), new(RunEnded),
		new(RollbackPlan), new(Compared), new(Drift), new(EvidenceKept),
	}
}

type header struct {
	Type Type      `json:"type"`
	Time time.Time `json:"time"`
	Step string    `json:"step,omitempty"`
}

// MarshalJSON writes type, time and step first, then the body's own fields, in
// one flat object.
func (e Event) MarshalJSON() ([]byte, error) {
	h, err := json.Marshal(header{e.Body.EventType(), e.Time.UTC(), e.Step})
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(e.Body)
	if err != nil {
		return nil, err
	}
	if len(b) > len("{}") {
		h = append(append(h[:len(h)-1], ','), b[1:]...)
	}
	return h, nil
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (e *Event) UnmarshalJSON(b []byte) error {
	var h header
	if err := json.Unmarshal(b, &h); err != nil {
		return err
	}
	for _, body := range bodies() {
		if body.EventType() == h.Type {
			*e = Event{Time: h.Time, Step: h.Step, Body: body}
			return json.Unmarshal(b, body)
		}
	}
	return fmt.Errorf("event of type %q: not known", h.Type)
}
