package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/journal"
)

// Signatory is an Approver that answers by name, for a policy that says whose
// approval counts. One that is none can't satisfy such a policy.
type Signatory interface {
	// Sign answers what Approve answers, but only in the names of people whom
	// wanted lists, beside those in have, who have approved already. What stands
	// for nobody by name (--yes) is no answer. Names may be too few; granted is
	// false where one of them refuses.
	Sign(ctx context.Context, step, message string, wanted []gate.Approval, have []string) (names []string, granted bool, err error)
}

// question is what a person is asked to approve.
type question struct {
	step, message string
	diffs         []string
	wanted        []gate.Approval // by the policy; none: anybody's yes
	// keep journals the approval of each of several people, so that a resume
	// does not ask them again.
	keep bool
}

// ask asks for approval: of whoever is there, or of the people that the policy
// wants.
func (e *Engine) ask(ctx context.Context, q question) (by string, granted bool, err error) {
	if len(q.wanted) == 0 {
		return e.o.Approver.Approve(ctx, q.step, q.message, q.diffs)
	}
	have := e.ledger.approvers(q.step, q.diffs)
	who, ok := e.o.Approver.(Signatory)
	if !ok {
		return "", false, &unmet{"nobody can be named here, and the policy wants " + wants(q.wanted)}
	}
	names, granted, err := who.Sign(ctx, q.step, q.message, q.wanted, have)
	if err != nil {
		return "", false, err
	}
	for _, n := range names {
		if !among(q.wanted, n) {
			return "", false, &unmet{fmt.Sprintf("the approval of %s does not count; the policy wants %s", n, wants(q.wanted))}
		}
		if !granted || slices.Contains(have, n) {
			continue
		}
		have = append(have, n)
		if !q.keep {
			continue
		}
		if err := e.signed(q, n); err != nil {
			return "", false, err
		}
	}
	if !granted {
		return strings.Join(names, ", "), false, nil
	}
	if missing(q.wanted, have) != "" {
		return "", false, tooFew(q, have)
	}
	return strings.Join(have, ", "), true, nil
}

// signed makes the approval of one of several people durable.
func (e *Engine) signed(q question, name string) error {
	rec := &journal.Approval{Step: q.step, Message: q.message, Granted: true, By: name, Diffs: q.diffs}
	if _, err := e.o.Journal.Append(rec, true); err != nil {
		return e.journalError(err)
	}
	return nil
}

// unmet is the error of a question that those whom the policy wants have not
// answered, or not all of them.
type unmet struct{ text string }

// Error implements error.
func (u *unmet) Error() string { return u.text }

func tooFew(q question, have []string) error {
	s := "the policy wants " + wants(q.wanted)
	if len(have) > 0 {
		s += "; " + strings.Join(have, ", ") + " approved"
	}
	return &unmet{s + "; " + missing(q.wanted, have)}
}

// wants is what the policy wants, in words.
func wants(as []gate.Approval) string {
	out := make([]string, len(as))
	for i, a := range as {
		out[i] = a.String()
	}
	return strings.Join(out, ", and ")
}

// missing says how many of whom are lacking; "" when none are.
func missing(as []gate.Approval, have []string) string {
	var out []string
	for _, a := range as {
		n := a.Missing(have)
		if n == 0 {
			continue
		}
		open := slices.DeleteFunc(slices.Clone(a.People), func(p string) bool { return slices.Contains(have, p) })
		out = append(out, fmt.Sprintf("%d more of %s must", n, strings.Join(open, ", ")))
	}
	return strings.Join(out, ", and ")
}

// among reports whether one of the approvals is for this person to give.
func among(as []gate.Approval, name string) bool {
	return slices.ContainsFunc(as, func(a gate.Approval) bool { return slices.Contains(a.People, name) })
}

// notApproved is the error of a question that was not answered with yes, or not
// by those who must.
func notApproved(err error, what string) (problem string, cause error) {
	cause = fmt.Errorf("%w: %w", ErrNotApproved, err)
	var u *unmet
	if errors.As(err, &u) {
		return "not enough people approved " + what, cause
	}
	return "nobody could be asked to approve " + what, cause
}

// signature is the approval of one of several people, in the journal.
type signature struct {
	name  string
	diffs []string
}

// approvers are those who have approved a step with these diffs, each once.
func (l *ledger) approvers(step string, diffs []string) []string {
	var out []string
	for _, s := range l.signatures[step] {
		if slices.Equal(s.diffs, diffs) && !slices.Contains(out, s.name) {
			out = append(out, s.name)
		}
	}
	return out
}

// wantLeave says of each ask whose leave the policy wants.
func (e *Engine) wantLeave(fs []gate.Finding) {
	for i, f := range fs {
		if wanted := e.run.Policy.WantedOfLeave(f.Code); f.Verdict == gate.Ask && len(wanted) > 0 {
			fs[i].Expect = strings.TrimPrefix(f.Expect+"; leave of "+wants(wanted)+", by the policy", "; ")
		}
	}
}

// left records that an operator gave leave where gates asked, and reports
// whether that is all the leave that the policy wants. Where it is not, fs says
// what is lacking.
func (e *Engine) left(f *frame, by string, fs []gate.Finding, es []*effect.Effect) (bool, error) {
	enough := true
	for i, x := range fs {
		if x.Verdict != gate.Ask {
			continue
		}
		wanted := e.run.Policy.WantedOfLeave(x.Code)
		if len(wanted) > 0 && !among(wanted, by) {
			fs[i].Expect += "; that of " + by + " does not count"
			enough = false
			continue
		}
		a := &journal.Approval{
			Step: f.path, Message: x.Problem, Granted: true, By: by, Gate: string(x.Code),
			Object: x.Ref.ID(), Effect: e.digestIn(es, x),
		}
		if _, err := e.append(a); err != nil {
			return false, err
		}
		key := leaveFor(a.Gate, a.Object, a.Effect)
		e.ledger.leavers[key] = append(e.ledger.leavers[key], by)
		if lacking := missing(wanted, e.ledger.leavers[key]); lacking != "" {
			fs[i].Expect += "; " + by + " gave it, " + lacking
			enough = false
			continue
		}
		e.leave[leaveKey(x)] = true
	}
	return enough, nil
}

// hasLeave reports whether those whom the policy wants have given leave, in this
// process for the gate and the object, or in the journal for this very effect.
func (e *Engine) hasLeave(f gate.Finding, digest string) bool {
	if e.leave[leaveKey(f)] {
		return true
	}
	names := e.ledger.leavers[leaveFor(string(f.Code), f.Ref.ID(), digest)]
	return len(names) > 0 && missing(e.run.Policy.WantedOfLeave(f.Code), names) == ""
}
