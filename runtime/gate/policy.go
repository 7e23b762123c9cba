package gate

import (
	"context"
	"fmt"
	"strings"
	"time"

	"rutter.dev/rutter/runtime/effect"
)

// Policy is what an organization's rutter.yaml says, validated (runtime/policy
// reads it): what a runbook can neither read nor change. The zero value allows
// what the gates' own rules allow. It is not changed once a run has it.
type Policy struct {
	// Allow and Deny are matched on the effective API request.
	Allow, Deny []Rules
	// Leave names workloads ("shop/web", "shop/*") that may lose their only
	// replica during a restart.
	Leave []string
	// MaxWave bounds how many workloads one wave restarts, its blast radius;
	// 0 means no bound.
	MaxWave int
	// ProtectedContexts may never be changed.
	ProtectedContexts []string
	// Calendar is when changes may be made.
	Calendar Calendar
	// Approvals say who must approve what.
	Approvals []Approval
	// Required are gates whose warnings and asks block, and that nobody waives.
	Required []Code
	// Waivers turn what a gate finds on some objects into a warning.
	Waivers []Waiver
	// AskUnknown: where a gate's read failed it asks an operator instead of
	// blocking (DESIGN §3).
	AskUnknown bool
	// Prometheus is where RUT014 asks how the services are; nil: nowhere.
	Prometheus *Prometheus
	// Thresholds bound what RUT014 sees in the cluster itself.
	Thresholds Thresholds
	// Notify are the places that are told of a run.
	Notify []Notify
	// Signers is the file of those whose signatures on runbooks are trusted, in
	// the form of ssh's allowed signers; "" where none are asked for.
	Signers string
	// PlanSigners is the same for saved plans: a run of one that none of them
	// signed does not begin. PlanRequired: on a real cluster nothing runs but saved
	// plans.
	PlanSigners  string
	PlanRequired bool
	// Organization judges effects by the organization's own rules; nil: none.
	Organization Organization
	// Digest identifies the policy with all the rules that it names.
	Digest string
}

// Rules match requests by namespace, kind and verb; an empty list matches
// everything. "*", "?" and "[…]" are wildcards, as in a shell; case does not
// matter. A cluster-scoped object has the namespace "".
type Rules struct {
	Namespaces []string
	Kinds      []string // "Deployment.apps"
	Verbs      []string
}

// Approval says how many of which people must approve.
type Approval struct {
	// Step is a pattern over the path of an approve() step and over its message,
	// in which "*" also stands for slashes. "rollback" is that of a rollback,
	// which no wildcard matches: the way out is not held up by chance.
	Step string
	// Ask: it is not approve() that they answer, but a gate that asks; Gates are
	// which, none meaning all.
	Ask    bool
	Gates  []Code
	People []string
	Count  int // distinct ones; at least 1
}

// Waiver lets a gate's finding pass on some objects, in the name of a person.
type Waiver struct {
	Gate Code
	// Objects are patterns over "namespace/name", or "name" of what has no
	// namespace; Kinds further narrows them ("Deployment.apps"), none meaning all.
	Objects, Kinds []string
	Person, Reason string
	Expires        time.Time // the first instant at which it does not count any more
}

// Notify is one place that is told of a run.
type Notify struct {
	Name string
	Kind string // "webhook" or "slack"
	// URL or URLFile, the file that holds it, where it is a secret.
	URL, URLFile string
	On           []string // statuses of a run, none meaning all
}

// Organization judges effects by rules of the organization's own. The findings
// of rules that failed block. Safe for concurrent use.
type Organization interface {
	Judge(ctx context.Context, run *Run, e *effect.Effect) []Finding
}

// Prometheus is a server that answers PromQL over HTTP, and what it is asked.
type Prometheus struct {
	URL       string        // http or https, without a query
	TokenFile string        // holds a bearer token, read by the host; "" for none
	CAFile    string        // certificates that the server's must come from; "" for the machine's own
	Interval  time.Duration // between two looks, for queries that name none; positive
	Queries   []HealthQuery
}

// HealthQuery is one question and the answers with which a run goes on.
type HealthQuery struct {
	Name, Query string
	// Max and Min bound every sample of the answer; nil means no bound. One of
	// them is set.
	Max, Min *float64
	Interval time.Duration // 0 means that of the server
}

// Thresholds bound the health of the cluster itself; nil means no bound.
type Thresholds struct {
	MaxRestarts *int // containers that restarted since the last wave
	MaxNotReady *int // pods that are not ready
}

// Rehearsed is the policy for a run that changes nothing real, such as one that
// shows what a runbook would do or which rights it needs: neither the hour nor
// who approves has to do with that. nil stays nil.
func (p *Policy) Rehearsed() *Policy {
	if p == nil {
		return nil
	}
	out := *p
	out.Calendar, out.Approvals = Calendar{}, nil
	return &out
}

// RollbackStep is what approval of a rollback is asked as.
const RollbackStep = "rollback"

// Wanted are the approvals that the policy wants of an approve() step.
func (p *Policy) Wanted(step, message string) []Approval {
	var out []Approval
	for _, a := range p.Approvals {
		if !a.Ask && (glob(a.Step, step) || glob(a.Step, message)) && a.Step != RollbackStep {
			out = append(out, a)
		}
	}
	return out
}

// WantedOfRollback are those that it wants of a rollback.
func (p *Policy) WantedOfRollback() []Approval {
	var out []Approval
	for _, a := range p.Approvals {
		if !a.Ask && a.Step == RollbackStep {
			out = append(out, a)
		}
	}
	return out
}

// WantedOfLeave are those that it wants where a gate asks.
func (p *Policy) WantedOfLeave(code Code) []Approval {
	var out []Approval
	for _, a := range p.Approvals {
		if a.Ask && (len(a.Gates) == 0 || contains(a.Gates, code)) {
			out = append(out, a)
		}
	}
	return out
}

// Missing is how many more of its people must approve beside those of names,
// of whom each counts once.
func (a Approval) Missing(names []string) int {
	n := a.Count
	for _, p := range a.People {
		if contains(names, p) {
			n--
		}
	}
	return max(0, n)
}

// String is how the approval is asked for: "2 of ada, grace, joan".
func (a Approval) String() string {
	if a.Count == len(a.People) {
		return strings.Join(a.People, " and ")
	}
	return fmt.Sprintf("%d of %s", a.Count, strings.Join(a.People, ", "))
}
