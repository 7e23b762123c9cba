// Package gate holds the host's safety checks. A gate is Go code with a stable
// code, a rationale and a verdict; runbooks cannot catch, skip or fake one.
package gate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate/crds"
	"rutter.dev/rutter/runtime/knowledge"
)

// Code is a gate's stable name, "RUT005".
type Code string

// The gates that exist so far (DESIGN §3).
const (
	ClusterPinned     Code = "RUT001"
	LockHeld          Code = "RUT002"
	VersionPath       Code = "RUT003"
	PrecheckPassed    Code = "RUT004"
	BackupCovers      Code = "RUT005"
	DryRun            Code = "RUT006"
	ReviewedDigest    Code = "RUT007"
	PlanConformance   Code = "RUT008"
	CRDSafe           Code = "RUT009"
	WebhookSafe       Code = "RUT010"
	InUse             Code = "RUT011"
	ControlPlaneReady Code = "RUT012"
	Disruption        Code = "RUT013"
	HealthKept        Code = "RUT014"
	ChangeWindow      Code = "RUT015"
	Scope             Code = "RUT016"
	RemovedFields     Code = "RUT017"
	Capacity          Code = "RUT018"
	OrganizationRules Code = "RUT019"
	RootKept          Code = "RUT020"
)

// Verdict is what a gate says. They are ordered: the worst finding counts.
type Verdict int

// The verdicts, from best to worst.
const (
	Pass Verdict = iota
	Warn
	Ask   // an operator must give leave
	Block // nobody can, within this policy
)

// String is the verdict's word.
func (v Verdict) String() string { return [...]string{"pass", "warn", "ask", "block"}[v] }

// MarshalText implements encoding.TextMarshaler.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (v *Verdict) UnmarshalText(b []byte) error {
	for i, s := range []string{"pass", "warn", "ask", "block"} {
		if s == string(b) {
			*v = Verdict(i)
			return nil
		}
	}
	return errors.New("unknown verdict " + string(b))
}

// Finding is one thing that a gate found about one effect (or the whole call).
type Finding struct {
	Code    Code        `json:"code"`
	Verdict Verdict     `json:"verdict"`
	Ref     cluster.Ref `json:"ref"`
	Problem string      `json:"problem"`          // what is wrong
	Expect  string      `json:"expect,omitempty"` // what would be right
	Next    string      `json:"next,omitempty"`   // what to do about it
	Rule    string      `json:"rule,omitempty"`   // of the organization, if one found it
	// Waived is set where the policy let it pass.
	Waived *Waived `json:"waived,omitempty"`
}

// Refusal is the error of a call that gates refused. Starlark code cannot
// catch it.
type Refusal struct {
	Findings []Finding // all of them, in gate order
	// Forecast: refused before the first write of the call.
	Forecast bool
	// Made: the effect was made, and what a gate saw afterwards stops the run.
	Made   bool
	Effect *effect.Effect // nil for a forecast over several
}

// Error lists what blocks, each finding once with the number of objects.
func (r *Refusal) Error() string {
	type key struct {
		code    Code
		problem string
	}
	var order []key
	objects := map[key][]string{}
	for _, f := range r.Findings {
		if f.Verdict < Ask {
			continue
		}
		k := key{f.Code, f.Problem}
		if objects[k] == nil {
			order = append(order, k)
		}
		objects[k] = append(objects[k], f.Ref.String())
	}
	parts := make([]string, len(order))
	for i, k := range order {
		about := objects[k][0]
		if n := len(objects[k]); n > 1 {
			about = fmt.Sprintf("%d objects", n)
		}
		parts[i] = fmt.Sprintf("%s: %s: %s", k.code, about, k.problem)
	}
	verdict := "refused by "
	if r.Made {
		verdict = "made, and stopped then by "
	}
	return verdict + strings.Join(parts, "; ")
}

// Run is what gates know of the run besides the cluster.
type Run struct {
	ID         string
	ClusterUID string // pinned
	From, To   string // Istio versions: at the run's start, and the target ("" where the runbook has none)
	Facts      *effect.Facts
	Created    map[string]bool // Ref.ID() of objects that this run created
	Scope      Rules           // declared by runbook(scope = …); zero means everything
	Policy     *Policy
	Runbook    string      // name and version, for a person
	Context    string      // the cluster's name
	Step       string      // path of the step whose call is judged
	Rollback   bool        // the run is being undone
	Plan       Conformance // the saved plan that is in force; nil without one
	Fence      Fence       // nil: nobody else can reach the cluster
	Now        time.Time
	// Forecast: the whole call is judged before its first write, assuming that
	// earlier effects of the same call succeed.
	Forecast bool
	// Earlier are the effects that come before this one: in a forecast those of
	// the same call, live those that are made at the same time.
	Earlier []*effect.Effect
	// Awaits are, in a forecast, what the call waits for to be ready before it makes
	// effects that need that.
	Awaits []cluster.Ref
	// Call is every effect that the call means to make, this one included.
	Call []*effect.Effect
	// Knowledge is what is known of Istio's releases; nil is what this rutter was
	// built with.
	Knowledge *knowledge.Base
	// Digest is an effect's digest as the run's reviews have it; nil is Effect.Digest.
	Digest func(*effect.Effect) string
	// Rooms remembers the cluster's free resources for a moment; nil reads each
	// time.
	Rooms *Rooms
	// Schemas remembers what RUT009 compiled; nil compiles each time.
	Schemas *crds.Compiled
	// Metrics answers RUT014's queries; nil: nobody does.
	Metrics Metrics
	// Pulse remembers what RUT014 saw; nil asks each time.
	Pulse *Pulse
	// Seen remembers reads within one judgement; nil reads each time.
	Seen *Seen
}

// Gate is one safety check.
type Gate struct {
	Code      Code
	Name      string // "backup-covers"
	Rationale string // why, for rutter explain and docs
	Source    string // where the rule comes from
	// Before judges an effect before it is made. No finding means pass. An
	// error means that the gate could not know, which blocks.
	Before func(ctx context.Context, r cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error)
	// After, if set, judges once the effect was made.
	After func(ctx context.Context, r cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error)
}
