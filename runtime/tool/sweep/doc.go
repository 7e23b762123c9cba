// Package sweep is the fault sweep of DESIGN §4: from one recorded run of a
// runbook on a simulated cluster it makes cases, each the same run with one
// thing gone wrong at one point: a request that fails in one of the ways that
// requests do, or a host that dies. Then the run is resumed, or rolled back,
// and what must hold is checked.
//
// A point is an operation on the journal's disk ("j12": the twelfth), a request
// ("r40": the fortieth) or a watch ("w3"), counted from one. All is on virtual
// time and one goroutine per case, so that a case goes the same way every time.
// Waits poll there; only in cases about watches they watch, each watch beside
// the run: which watch is the third may then differ where two begin at once.
//
// A resumed run that ends a step with the value, in the state and by the changes
// with which the undisturbed run ended it is left there, but for one in sixteen:
// what it would do from there on is what the undisturbed run did. For the same
// reason a request is disturbed in a resume from the end of the step before, if
// that makes the same request, and neither a resume nor a rollback is done again
// from where one was that was seen to its end: from the same journal, changes
// and state.
//
// The package knows no builtin and no command line: what runs is handed in as a
// Subject.
package sweep

import (
	"context"
	"time"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/sim"
)

// Subject is a run that can be begun any number of times.
type Subject struct {
	Name string // as a person knows it: "FILE::TEST"
	// Before is the cluster as the run finds it. It is cloned, never changed.
	// With Auditor among its controllers, budgets are checked too.
	Before *sim.Cluster
	// Load gives a freshly loaded runbook each time, and is called from several
	// goroutines at once.
	Load     func(ctx context.Context) (*host.Runbook, error)
	Params   map[string]any
	Policy   *gate.Policy
	Approver engine.Approver
	Sealer   builtin.Sealer
	Host     *host.Host

	known forms
}

// Options say how much is swept. The zero value sweeps everything.
type Options struct {
	// Seed picks what a sample leaves out, how much a power cut loses and where a
	// resume is killed again.
	Seed uint64
	// Cases bounds how many cases are tried, spread evenly; 0 for all.
	Cases int
	// Only are the ids of the cases to try; empty for what Cases says.
	Only []string
	// Parallel bounds the cases that run at once; 0 means GOMAXPROCS.
	Parallel int
	// Started is told, before the first case, how many there will be.
	Started func(Reference, int)
}

// Reference is the undisturbed run.
type Reference struct {
	Requests  int // that it made
	Mutations int // of those that changed something
	Watches   int // that it made when its waits watch
	Disk      int // operations on the journal's disk
	Took      time.Duration
	// Overdraws: the run itself overdraws a PodDisruptionBudget, so that cases
	// are not checked for it.
	Overdraws bool
}

// Result is how one case went.
type Result struct {
	Case    Case
	What    string // what the fault struck: "PATCH /apis/apps/v1/…"
	Exit    int    // of the disturbed run; -1 when its host was killed
	Stopped bool   // the disturbed run did not come to its end
	Back    bool   // it came back to where the undisturbed run was, and was left there
	Broken  []string
	Took    time.Duration
}

// Report is how a sweep went.
type Report struct {
	Subject string
	Reference
	Tried   int
	Stopped int
	Back    int      // that were left where they were back on the way of the undisturbed run
	Failed  []Result // in the order of points
	Took    time.Duration
}
