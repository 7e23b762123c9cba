package gate

import (
	"context"
	"fmt"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

var window = &Gate{
	Code: ChangeWindow, Name: "window",
	Rationale: "An organization changes its mesh when those who can mend it are there, and not while much depends on it. A run that is not over when the window closes stops at the next change, and is resumed in the next one or rolled back, which no window holds.",
	Source:    "GUIDE §1 row 1e; DESIGN §3",
	Before: func(_ context.Context, _ cluster.Reader, run *Run, _ *effect.Effect) ([]Finding, error) {
		c := &run.Policy.Calendar
		if !c.Any() {
			return nil, nil
		}
		o := c.At(run.Now)
		switch {
		case o.Freeze != nil:
			return block(
				fmt.Sprintf("changes are frozen until %s: %s", When(o.Freeze.To, o.Zone), o.Freeze.Reason),
				"a time outside of the policy's freezes"+opens(o), ""), nil
		case !o.Open:
			return block(
				fmt.Sprintf("it is %s, outside of the policy's change windows", When(run.Now, o.Zone)),
				"a time in a change window"+opens(o), ""), nil
		case run.Forecast && len(run.Earlier) == 0 && !o.Until.IsZero() && o.Until.Sub(run.Now) <= c.Warn: // said once for a call
			return []Finding{{
				Verdict: Warn,
				Problem: fmt.Sprintf("the change window closes in %s, at %s", o.Until.Sub(run.Now).Round(time.Second), When(o.Until, o.Zone)),
				Expect:  "a call that is over by then; what is left of it is blocked",
			}}, nil
		}
		return nil, nil
	},
}

// opens says when the calendar opens next.
func opens(o Opening) string {
	if o.Next.IsZero() {
		return "; none opens in the next 400 days"
	}
	return "; the next is " + When(o.Next, o.Zone)
}

var organization = &Gate{
	Code: OrganizationRules, Name: "organization",
	Rationale: "What an organization forbids beyond namespaces, kinds and verbs it says in rules of its own, over the effect as a whole. They have a code of their own, apart from RUT016, so that a waiver of one waives no scope, and that a rule which fails can't lock a rollback in.",
	Source:    "the policy's rules: functions deny_…, ask_… and warn_… of its .star files",
	Before: func(ctx context.Context, _ cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
		if run.Policy.Organization == nil {
			return nil, nil
		}
		return run.Policy.Organization.Judge(ctx, run, e), nil
	},
}
