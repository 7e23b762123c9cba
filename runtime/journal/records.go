package journal

import (
	"encoding/json"
	"fmt"
	"time"

	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
)

// Type names the kind of a record. The words are part of the format: they are
// never renamed, only added to.
type Type string

// The types of records.
const (
	TypeBegin     Type = "begin"
	TypeResume    Type = "resume"
	TypeStepStart Type = "step-start"
	TypeStepEnd   Type = "step-end"
	TypeCall      Type = "call"
	TypePlan      Type = "plan"
	TypeIntent    Type = "intent"
	TypeOutcome   Type = "outcome"
	TypeRefused   Type = "refused"
	TypeApproval  Type = "approval"
	TypeLog       Type = "log"
	TypeWarn      Type = "warn"
	TypeUndo      Type = "undo"
	TypeEvidence  Type = "evidence"
	TypeEnd       Type = "end"
)

// Body is the typed content of a record: one of the structs below, by pointer.
type Body interface{ RecordType() Type }

// Record is one entry of a journal.
type Record struct {
	Seq  uint64          // counts from 1 without gaps
	Time time.Time       // on the run's clock (virtual on a simulated cluster)
	Type Type            // which Body
	Body json.RawMessage // its JSON; Decode gives the struct
}

// Decode returns the record's typed body. An unknown type is ErrNewer: a later
// rutter wrote it, and going on without understanding it could repeat a change.
func (r *Record) Decode() (Body, error) {
	b := newBody(r.Type)
	if b == nil {
		return nil, fmt.Errorf("record %d of type %q: %w", r.Seq, r.Type, ErrNewer)
	}
	if err := json.Unmarshal(r.Body, b); err != nil {
		return nil, fmt.Errorf("record %d (%s): %w", r.Seq, r.Type, err)
	}
	return b, nil
}

func newBody(t Type) Body {
	switch t {
	case TypeBegin:
		return new(Begin)
	case TypeResume:
		return new(Resume)
	case TypeStepStart:
		return new(StepStart)
	case TypeStepEnd:
		return new(StepEnd)
	case TypeCall:
		return new(Call)
	case TypePlan:
		return new(Plan)
	case TypeIntent:
		return new(Intent)
	case TypeOutcome:
		return new(Outcome)
	case TypeRefused:
		return new(Refused)
	case TypeApproval:
		return new(Approval)
	case TypeLog:
		return new(Log)
	case TypeWarn:
		return new(Warn)
	case TypeUndo:
		return new(Undo)
	case TypeEvidence:
		return new(Evidence)
	case TypeEnd:
		return new(End)
	}
	return nil
}

// Begin is the first record: everything that a resume needs to run the same
// runbook against the same cluster again.
type Begin struct {
	Run            string `json:"run"`
	Runbook        string `json:"runbook"`                  // its name
	RunbookVersion string `json:"runbookVersion,omitempty"` // its own version
	RunbookDigest  string `json:"runbookDigest,omitempty"`  // of all its modules
	Path           string `json:"path,omitempty"`           // entry module inside the bundle
	Bundle         string `json:"bundle,omitempty"`         // digest of the blob with the pinned sources
	// Params are the parameters as given and defaulted, without the secret ones.
	Params json.RawMessage `json:"params,omitempty"`
	// Secrets are salted digests of the secret parameters that were given, by name.
	Secrets    map[string]string `json:"secrets,omitempty"`
	Context    string            `json:"context,omitempty"`    // kubeconfig context
	ClusterUID string            `json:"clusterUID,omitempty"` // UID of kube-system
	From       string            `json:"from,omitempty"`       // Istio version at the start
	To         string            `json:"to,omitempty"`         // target Istio version
	Rutter     string            `json:"rutter,omitempty"`     // version of rutter
	Policy     string            `json:"policy,omitempty"`     // digest of the policy in force
	Plan       string            `json:"plan,omitempty"`       // digest of the blob with the saved plan in force
	// Key is the public age key to which the run's Secrets are sealed.
	Key string `json:"key,omitempty"`
	// Marked: the digests of effects on Secrets are keyed by it. Earlier journals
	// have plain ones.
	Marked bool `json:"marked,omitempty"`
	// Lock is by what the process that began holds the mesh.
	Lock *Lock `json:"lock,omitempty"`
	// Invocation is what a later command needs to reach the same cluster and
	// options again; owned by the command line, opaque here.
	Invocation json.RawMessage `json:"invocation,omitempty"`
}

// Resume marks that another process took the run up.
type Resume struct {
	Rutter string `json:"rutter,omitempty"`
	Policy string `json:"policy,omitempty"`
	// Istio is the control plane version found when resuming.
	Istio string `json:"istio,omitempty"`
	Lock  *Lock  `json:"lock,omitempty"` // of the process that resumes
	// Rollback: the run is being undone, not finished; from here on every record
	// is the rollback's.
	Rollback bool `json:"rollback,omitempty"`
	// Until is the step after which a rollback undoes; "" for the whole run.
	Until string `json:"until,omitempty"`
	// Bundle, RunbookDigest, Params and Secrets are those of a changed runbook that
	// was adopted: they are in force from here on in the place of Begin's.
	Bundle        string            `json:"bundle,omitempty"`
	RunbookDigest string            `json:"runbookDigest,omitempty"`
	Params        json.RawMessage   `json:"params,omitempty"`
	Secrets       map[string]string `json:"secrets,omitempty"`
}

// Lock is the Lease by which a process holds the mesh. Who knows the nonce may
// take it away (rutter unlock).
type Lock struct {
	Namespace string `json:"namespace"`
	Nonce     string `json:"nonce"`
	Holder    string `json:"holder,omitempty"`
	Host      string `json:"host,omitempty"`
}

// StepStart marks that a step began (or began again, after a resume or retry).
type StepStart struct {
	Path    string `json:"path"` // names of the enclosing steps and its own, joined with "/"
	Name    string `json:"name"`
	Args    string `json:"args,omitempty"` // digest of function and arguments
	Attempt int    `json:"attempt,omitempty"`
	// Undo is the step's undo= recorded as data (a bound method of a handle).
	Undo json.RawMessage `json:"undo,omitempty"`
}

// StepEnd marks that a step finished. It never runs again.
type StepEnd struct {
	Path string `json:"path"`
	OK   bool   `json:"ok"`
	// Value is the encoded value of a step that is OK.
	Value Value  `json:"value"`
	Error string `json:"error,omitempty"` // of one that is not
	// Handled: the script handled the failure (attempt, retry), so the step is
	// finished and replays its error. Written as a second StepEnd.
	Handled bool `json:"handled,omitempty"`
}

// Call is one read (or finished write) of a builtin inside a step, replayed
// when the step is interrupted and runs again (ruling 11).
type Call struct {
	Step    string        `json:"step"`
	Seq     int           `json:"seq"` // among the calls of this execution of the step, from 0
	Builtin string        `json:"builtin"`
	Args    string        `json:"args"` // digest
	Value   Value         `json:"value"`
	Error   string        `json:"error,omitempty"`
	Facts   []effect.Fact `json:"facts,omitempty"`
}

// Plan is the forecast of one call of a write builtin; used again on resume.
type Plan struct {
	Step    string `json:"step"`
	Seq     int    `json:"seq"`
	Builtin string `json:"builtin"`
	Args    string `json:"args"` // digest
	// Plan may be large; then Inline is nil and Blob names it.
	Plan Value `json:"plan"`
}

// Intent is written and synced before an effect is made. An Intent without an
// Outcome is in doubt.
type Intent struct {
	// Key identifies the effect within the run: step path, verb, target and
	// digest, and the occurrence among equals.
	Key     string `json:"key"`
	Step    string `json:"step"`
	Attempt int    `json:"attempt,omitempty"` // 1 for the first
	// Effect carries body, preconditions, before-image and undo. The
	// before-image of a Secret is left out here and named by Sealed.
	Effect *effect.Effect `json:"effect"`
	// Sealed is the digest of the blob with the age-encrypted before-image and body.
	Sealed string `json:"sealed,omitempty"`
	// Observe is whatever else helps to find out whether it happened.
	Observe  json.RawMessage `json:"observe,omitempty"`
	Findings []gate.Finding  `json:"findings,omitempty"` // of the gates that let it pass
}

// Status is how an effect came out.
type Status string

// The outcomes of an effect.
const (
	Done        Status = "done"         // made and answered
	Failed      Status = "failed"       // answered with an error: it did not happen
	Observed    Status = "observed"     // found in the cluster on resume
	NotHappened Status = "not-happened" // found absent on resume; free to be made again
	InDoubt     Status = "in-doubt"     // sent, not answered, and a look did not settle it
)

// Outcome is what became of an Intent; synced.
type Outcome struct {
	Key    string         `json:"key"`
	Status Status         `json:"status"`
	Result *effect.Result `json:"result,omitempty"`
	Error  string         `json:"error,omitempty"`
	// Findings are those of the gates after the effect.
	Findings []gate.Finding `json:"findings,omitempty"`
	// UID is the target's, and Delta what the effect changed of its before-image
	// (effect.Delta): what a rollback takes back. Of a Secret the delta is
	// age-encrypted in the blob Sealed instead.
	UID    string `json:"uid,omitempty"`
	Delta  Value  `json:"delta,omitzero"`
	Sealed string `json:"sealed,omitempty"`
}

// Refused records that gates refused a call or an effect.
type Refused struct {
	Step     string         `json:"step,omitempty"`
	Builtin  string         `json:"builtin,omitempty"`
	Key      string         `json:"key,omitempty"`
	Forecast bool           `json:"forecast,omitempty"`
	Findings []gate.Finding `json:"findings"`
}

// Approval records an answer to approve() or to a gate that asks.
type Approval struct {
	Step    string   `json:"step"`
	Message string   `json:"message"`
	Granted bool     `json:"granted"`
	By      string   `json:"by"`              // person or "--yes", "--approve NAME"
	Diffs   []string `json:"diffs,omitempty"` // ids of the diffs it covers
	Gate    string   `json:"gate,omitempty"`  // code of the gate that asked, for leave given to one
	// Object and Effect are what leave was given for: the target (Ref.ID) and the
	// digest of the effect. A resume does not ask again for the same.
	Object string `json:"object,omitempty"`
	Effect string `json:"effect,omitempty"`
}

// Log is a line from the runbook's log().
type Log struct {
	Step    string `json:"step,omitempty"`
	Message string `json:"message"`
}

// Warn is something that the host wants a reader of the journal to know.
type Warn struct {
	Step    string `json:"step,omitempty"`
	Message string `json:"message"`
}

// Undo marks where a rollback stands: the effects of Key are being (Done
// false) or have been (Done true) undone. The writes that undo them have
// Intents and Outcomes of their own.
type Undo struct {
	Key    string `json:"key,omitempty"`  // of the effect that is undone
	Step   string `json:"step,omitempty"` // of the step whose undo= replaces before-images
	Done   bool   `json:"done"`
	Reason string `json:"reason,omitempty"` // why it could not be undone
}

// Evidence names the file beside the journal in which the host wrote down what
// it found when a step failed.
type Evidence struct {
	Step string `json:"step,omitempty"`
	File string `json:"file"`
	// Objects are what it is about.
	Objects []string `json:"objects,omitempty"`
}

// RunStatus is how a run stands.
type RunStatus string

// The states of a run. The last four are never written: they are read off the
// journal and its lock.
const (
	RunDone        RunStatus = "done"
	RunFailed      RunStatus = "failed"
	RunRefused     RunStatus = "refused" // a gate or an operator refused
	RunInterrupted RunStatus = "interrupted"
	RunInDoubt     RunStatus = "in-doubt"
	RunRolledBack  RunStatus = "rolled-back"
	RunRunning     RunStatus = "running"   // another process holds it
	RunNotBegun    RunStatus = "not-begun" // died before its first record
	RunDamaged     RunStatus = "damaged"
	RunNewer       RunStatus = "newer-format"
)

// End closes a run, or an attempt at it: a Resume may follow one that is not done.
type End struct {
	Status RunStatus `json:"status"`
	Error  string    `json:"error,omitempty"`
	Exit   int       `json:"exit"`
}

// RecordType implements Body.
func (*Begin) RecordType() Type { return TypeBegin }

// RecordType implements Body.
func (*Resume) RecordType() Type { return TypeResume }

// RecordType implements Body.
func (*StepStart) RecordType() Type { return TypeStepStart }

// RecordType implements Body.
func (*StepEnd) RecordType() Type { return TypeStepEnd }

// RecordType implements Body.
func (*Call) RecordType() Type { return TypeCall }

// RecordType implements Body.
func (*Plan) RecordType() Type { return TypePlan }

// RecordType implements Body.
func (*Intent) RecordType() Type { return TypeIntent }

// RecordType implements Body.
func (*Outcome) RecordType() Type { return TypeOutcome }

// RecordType implements Body.
func (*Refused) RecordType() Type { return TypeRefused }

// RecordType implements Body.
func (*Approval) RecordType() Type { return TypeApproval }

// RecordType implements Body.
func (*Log) RecordType() Type { return TypeLog }

// RecordType implements Body.
func (*Warn) RecordType() Type { return TypeWarn }

// RecordType implements Body.
func (*Undo) RecordType() Type { return TypeUndo }

// RecordType implements Body.
func (*Evidence) RecordType() Type { return TypeEvidence }

// RecordType implements Body.
func (*End) RecordType() Type { return TypeEnd }
