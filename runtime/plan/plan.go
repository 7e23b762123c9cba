package plan

import (
	"encoding/json"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/twin"
)

// Plan is what a rehearsal showed. Its JSON is the format of -o json and of
// saved plans: fields are only added.
type Plan struct {
	Runbook Runbook         `json:"runbook"`
	Cluster Cluster         `json:"cluster"`
	From    string          `json:"from,omitempty"` // Istio versions
	To      string          `json:"to,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Policy  string          `json:"policy,omitempty"` // digest of the policy in force
	Rutter  string          `json:"rutter,omitempty"`

	Begins   time.Time     `json:"begins"` // virtual time: that of the rehearsal
	Duration time.Duration `json:"durationNanos"`
	Status   string        `json:"status"` // as of a run: "done", "refused", "failed"
	Exit     int           `json:"exit"`   // what the run would exit with
	Error    string        `json:"error,omitempty"`

	Steps        []Step              `json:"steps"`
	Effects      []Effect            `json:"effects"` // in order
	Findings     []Found             `json:"findings"`
	Asks         []Ask               `json:"asks"`
	Waves        []Wave              `json:"waves"`
	Restarts     []Restart           `json:"restarts"`
	Budgets      []twin.BudgetCourse `json:"budgets"` // that allow no disruption at some time
	Irreversible []Irreversible      `json:"irreversible"`
	Logs         []string            `json:"logs"`
	Renders      []effect.Render     `json:"renders"`
	Assumptions  []twin.Assumption   `json:"assumptions"`
	Relied       []Relied            `json:"relied"`
}

// empty is a plan in which nothing happens: its lists are lists in JSON, too.
func empty() *Plan {
	return &Plan{
		Steps: []Step{}, Effects: []Effect{}, Findings: []Found{}, Asks: []Ask{}, Waves: []Wave{}, Restarts: []Restart{}, Budgets: []twin.BudgetCourse{},
		Irreversible: []Irreversible{}, Logs: []string{}, Renders: []effect.Render{}, Assumptions: []twin.Assumption{}, Relied: []Relied{},
	}
}

// Changes reports whether anything would be changed.
func (p *Plan) Changes() bool { return len(p.Effects) > 0 }

// Runbook is which runbook was rehearsed.
type Runbook struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Digest  string `json:"digest"` // of all its modules
	// Path and Root are where it was read, for a run of the saved plan.
	Path string `json:"path,omitempty"`
	Root string `json:"root,omitempty"`
}

// Cluster is the cluster that the twin began as.
type Cluster struct {
	Context string `json:"context"`
	UID     string `json:"uid"`
}

// Step is one step as it went.
type Step struct {
	Path     string        `json:"path"`
	Name     string        `json:"name"`
	Depth    int           `json:"depth"`
	After    time.Duration `json:"afterNanos"` // from the beginning of the plan
	Duration time.Duration `json:"durationNanos"`
	OK       bool          `json:"ok"`
	Error    string        `json:"error,omitempty"`
	Note     string        `json:"note,omitempty"`
	Effects  int           `json:"effects"` // its own, not those of steps within
}

// Effect is one change that would be made.
type Effect struct {
	Step    string        `json:"step"`
	Verb    effect.Verb   `json:"verb"`
	Ref     cluster.Ref   `json:"ref"`
	Class   effect.Class  `json:"class"`
	Created bool          `json:"created,omitempty"`
	Summary string        `json:"summary,omitempty"`
	Why     string        `json:"why,omitempty"`
	Wave    string        `json:"wave,omitempty"`
	After   time.Duration `json:"afterNanos"`
	// Group numbers the effects of a step that may be made in any order among
	// themselves: those of a wave, and those that were made at once.
	Group int `json:"group"`
	// Identity is what makes another effect the same one; see Identify.
	Identity string      `json:"identity"`
	Fields   []Field     `json:"fields,omitempty"`
	Masked   bool        `json:"masked,omitempty"` // of a Secret: fields are not shown
	Undo     effect.Undo `json:"undo"`
}

// Field is one field that would change. Old is absent for one that is new, New
// for one that goes.
type Field struct {
	Path string `json:"path"`
	Old  any    `json:"old,omitempty"`
	New  any    `json:"new,omitempty"`
}

// Found is what a gate found.
type Found struct {
	Step string `json:"step"`
	gate.Finding
	// Count is how many effects the same was found about, Ref being the first.
	Count int `json:"count"`
}

// Ask is one question that the run would put to a person.
type Ask struct {
	Step    string `json:"step"`
	Message string `json:"message"`
	Gate    string `json:"gate,omitempty"` // "" for approve()
}

// Wave is one wave of restarts.
type Wave struct {
	Step      string        `json:"step"`
	Name      string        `json:"name"`
	Workloads []string      `json:"workloads"`
	After     time.Duration `json:"afterNanos"`
	Duration  time.Duration `json:"durationNanos"` // with its soak
	OK        bool          `json:"ok"`
	Error     string        `json:"error,omitempty"`
}

// Restart is one workload whose pods would be replaced.
type Restart struct {
	Kind      string        `json:"kind"`
	Namespace string        `json:"namespace"`
	Name      string        `json:"name"`
	Why       string        `json:"why"`
	Wave      string        `json:"wave,omitempty"`
	Step      string        `json:"step,omitempty"`
	Pods      []string      `json:"pods"`           // that go
	New       int           `json:"new"`            // that come
	From      string        `json:"from,omitempty"` // versions of the proxy
	To        string        `json:"to,omitempty"`
	After     time.Duration `json:"afterNanos"`
	Duration  time.Duration `json:"durationNanos"`
	Wanted    int64         `json:"wanted"` // pods
	Least     int64         `json:"least"`  // that are ready at the worst time
	Short     time.Duration `json:"shortNanos"`
	Ready     bool          `json:"ready"`
}

// Irreversible is what a rollback would not undo.
type Irreversible struct {
	Step string      `json:"step"`
	Ref  cluster.Ref `json:"ref"`
	Why  string      `json:"why"`
}

// Relied is an object on which the plan relies: what it was like in the fields
// that count. It is compared with the cluster before a run of the saved plan.
type Relied struct {
	Ref  cluster.Ref `json:"ref"`
	What string      `json:"what"`           // which fields: see relied.go
	Mask any         `json:"mask,omitempty"` // for what is set by the plan
	// Digest is of the fields, "absent" where the object does not exist. Fields
	// are their values, for the person who reads what changed; none of a Secret's.
	Digest string `json:"digest"`
	Fields any    `json:"fields,omitempty"`
}
