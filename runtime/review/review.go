package review

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pmezard/go-difflib/difflib"

	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/plan"
)

// Report is how the behaviour of a runbook changed. Its JSON is the format of
// -o json: fields are only added.
type Report struct {
	Runbook   string     `json:"runbook"`
	Old       string     `json:"old"` // as they were named on the command line
	New       string     `json:"new"`
	Scenarios []Scenario `json:"scenarios"`
	// Gained and Lost are what the runbook may do now and could not before, over
	// all scenarios, and the other way round.
	Gained []string `json:"gained"`
	Lost   []string `json:"lost"`

	had, has []string // what the versions do, over all scenarios so far
}

// Scenario is both versions on one cluster.
type Scenario struct {
	Name string `json:"name"`
	// Old and New are how they would end, in one line.
	Old     string   `json:"old"`
	New     string   `json:"new"`
	Changes []Change `json:"changes"`
}

// Change is one difference in behaviour.
type Change struct {
	Kind Kind   `json:"kind"`
	What string `json:"what"`
}

// Kind is what a change is about.
type Kind string

// The kinds of changes, in the order in which they are told.
const (
	Outcome      Kind = "outcome"
	Steps        Kind = "step"
	Effects      Kind = "effect"
	Order        Kind = "order"
	Gates        Kind = "gate"
	Questions    Kind = "question"
	Restarts     Kind = "restart"
	Irreversible Kind = "irreversible"
)

var kinds = []Kind{Outcome, Steps, Effects, Order, Gates, Questions, Restarts, Irreversible}

// Changed reports whether the behaviour differs anywhere.
func (r *Report) Changed() bool {
	return len(r.Gained)+len(r.Lost) > 0 || slices.ContainsFunc(r.Scenarios, func(s Scenario) bool { return len(s.Changes) > 0 })
}

// Run is one version of a runbook in one scenario: the plan of its rehearsal, or
// why there is none (it is not for this cluster, or does not load).
type Run struct {
	Plan *plan.Plan
	Err  error
}

func (r Run) verdict() string {
	if r.Plan == nil {
		return "does not begin: " + unplaced(r.Err.Error())
	}
	s := fmt.Sprintf("ends as %s after %s, %d effects, %d restarts", r.Plan.Status, r.Plan.Duration.Round(time.Second), len(r.Plan.Effects), len(r.Plan.Restarts))
	if r.Plan.Error != "" {
		s += ": " + unplaced(r.Plan.Error)
	}
	return s
}

// place is where in a file an error comes from, which every edit moves.
var place = regexp.MustCompile(`^(?:[^\s:]+:\d+:\d+: )+`)

// unplaced is the first line of an error without its place.
func unplaced(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	return place.ReplaceAllString(first, "")
}

// Add compares both versions in one scenario.
func (r *Report) Add(name string, before, after Run) {
	s := Scenario{Name: name, Old: before.verdict(), New: after.verdict(), Changes: []Change{}}
	add := func(k Kind, format string, args ...any) {
		s.Changes = append(s.Changes, Change{k, fmt.Sprintf(format, args...)})
	}
	if before.Plan == nil || after.Plan == nil { // everything differs, which is one thing to say
		if outcome(before) != outcome(after) {
			add(Outcome, "before, it %s", s.Old)
		}
		r.Scenarios = append(r.Scenarios, s)
		return
	}
	was, is := before.Plan, after.Plan
	if outcome(before) != outcome(after) {
		add(Outcome, "before, it %s", s.Old)
	}
	sequence(add, Steps, "step", paths(was), paths(is))
	effects(add, was, is)
	findings(add, was, is)
	sets(add, Questions, "asks", "does not ask any more", asks(was), asks(is))
	restarts(add, was, is)
	sets(add, Irreversible, "can't be undone", "can be undone now, or is not done", final(was), final(is))
	slices.SortStableFunc(s.Changes, func(a, b Change) int { return slices.Index(kinds, a.Kind) - slices.Index(kinds, b.Kind) })
	r.Scenarios = append(r.Scenarios, s)
	r.capabilities(was, is)
}

// outcome is what counts of how a run ends: not how long it takes, nor what else
// the error tells of where everything stands.
func outcome(r Run) string {
	if r.Plan == nil {
		return "none: " + unplaced(r.Err.Error())
	}
	failed := ""
	for _, s := range r.Plan.Steps {
		if !s.OK {
			failed = s.Path
		}
	}
	return fmt.Sprintf("%s %d %s", r.Plan.Status, r.Plan.Exit, failed)
}

func paths(p *plan.Plan) []string {
	out := make([]string, 0, len(p.Steps))
	for _, s := range p.Steps {
		out = append(out, s.Path)
	}
	return numbered(out)
}

// numbered makes equal entries different, by how often they came before.
func numbered(list []string) []string {
	n := map[string]int{}
	for i, s := range list {
		n[s]++
		if n[s] > 1 {
			list[i] = fmt.Sprintf("%s (%d)", s, n[s])
		}
	}
	return list
}

// sequence tells what came, what went and what stands elsewhere in the order.
func sequence(add func(Kind, string, ...any), k Kind, noun string, was, is []string) {
	for _, s := range missing(was, is) {
		add(k, "- %s %s", noun, s)
	}
	for _, s := range missing(is, was) {
		add(k, "+ %s %s", noun, s)
	}
	for _, s := range moved(was, is) {
		add(Order, "%s %s comes at another place: %s", noun, s, neighbours(is, s))
	}
}

// missing lists what of a is not in b.
func missing(a, b []string) []string {
	there := map[string]bool{}
	for _, s := range b {
		there[s] = true
	}
	var out []string
	for _, s := range a {
		if !there[s] {
			out = append(out, s)
		}
	}
	return out
}

// moved lists what both have and stands in another order: as few as possible.
func moved(was, is []string) []string {
	gone, came := missing(was, is), missing(is, was)
	was = slices.DeleteFunc(slices.Clone(was), func(s string) bool { return slices.Contains(gone, s) })
	is = slices.DeleteFunc(slices.Clone(is), func(s string) bool { return slices.Contains(came, s) })
	var out []string
	for _, op := range difflib.NewMatcherWithJunk(was, is, false, nil).GetOpCodes() {
		if op.Tag == 'i' || op.Tag == 'r' {
			out = append(out, is[op.J1:op.J2]...)
		}
	}
	return out
}

func neighbours(list []string, s string) string {
	i := slices.Index(list, s)
	switch {
	case i == 0:
		return "first"
	case i == len(list)-1:
		return "last"
	}
	return "after " + list[i-1]
}

// sets tells the difference of two lists whose order does not matter.
func sets(add func(Kind, string, ...any), k Kind, now, nomore string, was, is []string) {
	for _, s := range missing(is, was) {
		add(k, "+ %s: %s", now, s)
	}
	for _, s := range missing(was, is) {
		add(k, "- %s: %s", nomore, s)
	}
}

// findings tells which verdicts of gates came and went. That one gate found the
// same of more objects is told by the effects.
func findings(add func(Kind, string, ...any), was, is *plan.Plan) {
	list := func(p *plan.Plan) []string {
		var out []string
		for _, f := range p.Findings {
			if f.Verdict > gate.Pass {
				out = append(out, fmt.Sprintf("%s %s for %s: %s", f.Code, f.Verdict, f.Ref, f.Problem))
			}
		}
		return out
	}
	sets(add, Gates, "found", "not found any more", list(was), list(is))
}

func asks(p *plan.Plan) []string {
	var out []string
	for _, a := range p.Asks {
		if a.Gate == "" { // what gates ask is told as a finding
			out = append(out, a.Message)
		}
	}
	return numbered(out)
}

func final(p *plan.Plan) []string {
	var out []string
	for _, i := range p.Irreversible {
		out = append(out, i.Ref.String()+": "+i.Why)
	}
	return out
}
