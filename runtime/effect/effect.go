// Package effect is the vocabulary of change: one Effect is one mutation of
// the outside world, held as data, so that it can be shown, judged by gates,
// written to the journal before it is made, observed afterwards and undone.
package effect

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"rutter.dev/rutter/runtime/cluster"
)

// Verb is what is done to the target.
type Verb string

// The verbs. Apply is server-side apply; Replace is a PUT of the whole object
// (a restore); the others are the API's own.
const (
	Apply   Verb = "apply"
	Create  Verb = "create"
	Replace Verb = "replace"
	Patch   Verb = "patch"
	Delete  Verb = "delete"
	Evict   Verb = "evict"
)

// Verbs lists all verbs.
func Verbs() []Verb { return []Verb{Apply, Create, Replace, Patch, Delete, Evict} }

// Class says what kind of change it is for the gates. The host derives it from
// the request itself (Classify), never from the script.
type Class string

// The classes of effects.
const (
	CRD          Class = "crd"           // a CustomResourceDefinition
	Webhook      Class = "webhook"       // an admission webhook configuration
	Tag          Class = "tag"           // the webhook of a revision tag
	ControlPlane Class = "control-plane" // istiod, CNI, ztunnel and what they run with
	Gateway      Class = "gateway"       // a gateway's workload: data plane that a manifest brings along
	MeshConfig   Class = "mesh-config"   // Istio and Gateway API resources, mesh ConfigMaps
	Relabel      Class = "relabel"       // injection labels of a namespace
	Restart      Class = "restart"       // a rollout of a workload's pods
	Eviction     Class = "evict"         // one pod
	Plain        Class = "object"        // any other object
)

// Effect is one mutation. It is plain data and JSON-encodable; after Submit
// nobody changes it.
type Effect struct {
	Verb  Verb        `json:"verb"`
	Ref   cluster.Ref `json:"ref"`
	Class Class       `json:"class"`

	// Body is the request body: the object to apply, create or replace, or the
	// patch; canonical JSON without wall-clock time and without the run
	// annotations (ruling 10), so that its digest is stable.
	Body      json.RawMessage `json:"body,omitempty"`
	PatchType string          `json:"patchType,omitempty"` // media type, for Patch
	Adopt     []string        `json:"adopt,omitempty"`     // managers whose fields an Apply takes over
	// UID and ResourceVersion are preconditions: the fence against a stale
	// holder (ruling 9).
	UID             string `json:"uid,omitempty"`
	ResourceVersion string `json:"resourceVersion,omitempty"`
	Propagation     string `json:"propagation,omitempty"`

	// Before is the object as it was; nil with Absent set when it did not exist.
	Before *cluster.Object `json:"before,omitempty"`
	Absent bool            `json:"absent,omitempty"`
	// After is the predicted object (dry-run), nil for deletions.
	After *cluster.Object `json:"after,omitempty"`

	Undo Undo   `json:"undo"`
	Why  string `json:"why,omitempty"`  // the reason, for a person
	Wave string `json:"wave,omitempty"` // of a data-plane restart
	// Health are the runbook's questions about the services, asked before the
	// wave and while it rolls.
	Health []Health `json:"health,omitempty"`
	// Builtin is the full name of the builtin that made it ("kube.apply").
	Builtin string `json:"builtin"`
	// Reviewable: a person can review this change beforehand (ruling 6), so
	// RUT007 wants its digest approved.
	Reviewable bool `json:"reviewable,omitempty"`
	// Marks go out with the request, and with its dry-run. A run sets them anew.
	Marks Marks `json:"-"`
}

// UndoKind is how an effect can be undone.
type UndoKind string

// How an effect is undone on rollback.
const (
	UndoDelete   UndoKind = "delete-created" // it was absent: delete it again
	UndoRestore  UndoKind = "restore-before" // put the before-image's fields back
	UndoRecreate UndoKind = "recreate"       // it was deleted: create it from the before-image
	UndoRestart  UndoKind = "restart-again"  // the old pod template comes back by another rollout
	UndoNone     UndoKind = "none"           // nothing to undo, or it can't be undone: see Reason
)

// Undo is the way back from an effect.
type Undo struct {
	Kind   UndoKind `json:"kind"`
	Reason string   `json:"reason,omitempty"` // why it can't be undone
}

// Digest is the sha256 of verb, target and body, and of the managers whose
// fields are taken over: what a review or a saved plan binds. It is the same before
// and after the effect went through the journal, whose encoder escapes <, > and & in
// the body. Of a Secret it is not for others to read, who could try guesses on it: a
// run writes a keyed one.
func (e *Effect) Digest() string {
	h := sha256.New()
	var body bytes.Buffer
	json.HTMLEscape(&body, e.Body)
	for _, s := range append([]string{string(e.Verb), e.Ref.ID(), e.PatchType, body.String()}, e.Adopt...) {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// Result is what an effect gave.
type Result struct {
	// Object is the target after the effect; nil for deletions.
	Object *cluster.Object `json:"object,omitempty"`
	// Observed: on resume it was found to have happened already.
	Observed bool `json:"observed,omitempty"`
	// Replayed: its outcome was already in the journal; nothing was sent.
	Replayed bool `json:"replayed,omitempty"`
}

// Observation is what a look at the cluster says of an effect in doubt.
type Observation string

// What an observation can say.
const (
	Happened    Observation = "happened"
	NotHappened Observation = "not-happened"
	Unknown     Observation = "unknown"
)

// Plan is the forecast of one call of a write builtin: every effect that it
// means to make, in order. It is JSON-encodable; on resume the recorded plan is
// used again.
type Plan struct {
	Effects []*Effect `json:"effects"`
	// Notes are for the person who reads the plan: what is assumed, what is
	// left alone and why.
	Notes []string `json:"notes,omitempty"`
	// Awaits are objects, changed by this call or not, that Drive waits for to be
	// ready before the effects that need them. Whether they are is for the gates to
	// see live.
	Awaits []cluster.Ref `json:"awaits,omitempty"`
	// Data is the builtin's own, handed to Drive.
	Data json.RawMessage `json:"data,omitempty"`
}

// Submitter takes effects through gates, journal and the write itself. Only
// the engine implements it.
type Submitter interface {
	// Submit makes one effect. An error means that it was refused by a gate,
	// failed, or is in doubt; the journal says which. If the journal already
	// holds its outcome, that is returned and nothing is sent.
	Submit(ctx context.Context, e *Effect) (*Result, error)
	// SubmitAll makes effects that do not depend on one another, concurrently
	// within the engine's bound; journal syncs are grouped. Results are in the
	// order of the effects, nil for those not made. It starts no further
	// effect after the first error and returns that.
	SubmitAll(ctx context.Context, es []*Effect) ([]*Result, error)
	// Progress tells the views how far a wait or a wave is.
	Progress(done, total int, message string)
}
