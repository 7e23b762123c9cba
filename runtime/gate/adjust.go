package gate

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Waived is the waiver by which a finding became a warning, as it is written to
// the journal.
type Waived struct {
	Person  string    `json:"person"`
	Reason  string    `json:"reason"`
	Expires time.Time `json:"expires"`
	Was     Verdict   `json:"was"` // the verdict without it
}

// unwaivable are the gates that nobody waives: which cluster it is, and who
// else changes it, is no matter of policy.
func unwaivable(c Code) bool { return c == ClusterPinned || c == LockHeld }

// Waivable reports whether the policy may waive the gate.
func (p *Policy) Waivable(c Code) bool { return !unwaivable(c) && !contains(p.Required, c) }

// adjusted is what the policy makes of what a gate found: required gates block,
// waivers let pass. What holds a run up does not hold up a rollback, which is
// the way out.
func (p *Policy) adjusted(run *Run, f Finding) Finding {
	if contains(p.Required, f.Code) && f.Verdict > Pass && f.Verdict < Block && !run.Rollback {
		f.Verdict = Block
		f.Expect = joined(f.Expect, "no finding of this gate, which the policy requires")
	}
	if f.Verdict < Ask || !p.Waivable(f.Code) {
		return f
	}
	var expired *Waiver
	for i, w := range p.Waivers {
		switch {
		case !w.covers(f):
		case run.Now.Before(w.Expires):
			f.Waived = &Waived{Person: w.Person, Reason: w.Reason, Expires: w.Expires, Was: f.Verdict}
			f.Verdict = Warn
			f.Problem += fmt.Sprintf("; waived by %s until %s: %s", w.Person, until(w.Expires), w.Reason)
			return f
		default:
			expired = &p.Waivers[i]
		}
	}
	if expired != nil {
		f.Problem += fmt.Sprintf("; the waiver of %s expired at %s", expired.Person, until(expired.Expires))
	}
	return f
}

func until(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// covers reports whether the waiver is for this finding, expired or not.
func (w *Waiver) covers(f Finding) bool {
	if w.Gate != f.Code {
		return false
	}
	object := f.Ref.Name
	if f.Ref.Namespace != "" {
		object = f.Ref.Namespace + "/" + f.Ref.Name
	}
	match := func(p string) bool { ok, err := path.Match(p, object); return err == nil && ok }
	return slices.ContainsFunc(w.Objects, match) && kindIn(w.Kinds, f.Ref)
}

// glob is path.Match in which "*" stands for slashes, too.
func glob(pattern, s string) bool {
	flat := func(s string) string { return strings.ReplaceAll(s, "/", "∕") }
	ok, err := path.Match(flat(pattern), flat(s))
	return err == nil && ok
}

func contains[T comparable](list []T, x T) bool { return slices.Contains(list, x) }
