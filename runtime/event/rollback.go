package event

import (
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
)

// RollbackPlan: what a rollback is about to do, for a person to approve as one.
type RollbackPlan struct {
	Run string `json:"run"`
	// Until is the step after which everything is undone; "" for the whole run.
	Until string    `json:"until,omitempty"`
	Parts []Undoing `json:"parts"` // in the order in which they are carried out
	// Left is what stays as the run made it, and why.
	Left []Left `json:"left,omitempty"`
	// Foreign are the fields that somebody else has changed since the run.
	Foreign []ForeignField `json:"foreign,omitempty"`
	// Findings of the gates over all of it, those that only warn included.
	Findings []gate.Finding `json:"findings,omitempty"`
	// Digest identifies the plan.
	Digest string `json:"digest"`
}

// Undoing is one part of a rollback: what is undone of one step.
type Undoing struct {
	Name    string   `json:"name"`
	How     string   `json:"how"` // "before-images", or the step's own undo
	Changes []Change `json:"changes"`
	Notes   []string `json:"notes,omitempty"`
}

// Left is an object that a rollback leaves.
type Left struct {
	Ref cluster.Ref `json:"ref"`
	Why string      `json:"why"`
}

// ForeignField is a field that the run changed and somebody else has changed
// since. The values of a Secret are masked.
type ForeignField struct {
	Ref cluster.Ref `json:"ref"`
	effect.Foreign
	Overwrite bool `json:"overwrite"`
}

// Compared: after a rollback, what was undone was compared with what it was.
type Compared struct {
	Objects  int    `json:"objects"`            // that were compared
	Excepted []Left `json:"excepted,omitempty"` // that differ with reason
	Differ   []Left `json:"differ,omitempty"`   // that differ without
	Text     string `json:"text"`
}

// Drift: before a resumed run does anything, what others have changed since of
// what it did.
type Drift struct {
	Changed []Left `json:"changed"`
}

// EvidenceKept: a step failed, and what was found is in a file of the run.
type EvidenceKept struct {
	File    string   `json:"file"`
	Objects []string `json:"objects,omitempty"`
}

// EventType implements Body.
func (*RollbackPlan) EventType() Type { return "rollback-plan" }

// EventType implements Body.
func (*Compared) EventType() Type { return "compared" }

// EventType implements Body.
func (*Drift) EventType() Type { return "drift" }

// EventType implements Body.
func (*EvidenceKept) EventType() Type { return "evidence" }
