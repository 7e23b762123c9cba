package engine

import (
	"fmt"
	"strings"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/journal"
)

// compare says whether everything that the run touched is as it was before. It
// compares normal forms: what the server and its controllers own is not in
// them. What was left, and what others changed, is excepted and named; anything
// else that differs is a failure.
func (e *Engine) compare(f *frame, units []*unit) error {
	c := &event.Compared{}
	seen := map[string]bool{}
	for _, un := range units {
		for _, u := range un.objs {
			if seen[u.ref.ID()] || u.evicted() {
				continue
			}
			seen[u.ref.ID()] = true
			c.Objects++
			first, in := earliest(units, u, un)
			if err := e.compareOne(f, first, in, c); err != nil {
				return err
			}
		}
	}
	c.Text = comparison(c)
	e.emit(f.path, c)
	if _, err := e.append(&journal.Warn{Step: f.path, Message: c.Text}); err != nil {
		return err
	}
	if len(c.Differ) > 0 {
		return &diag.Error{Subject: "rollback", Problem: c.Text, Expect: "everything as it was before, or a reason why not"}
	}
	return nil
}

// earliest is the object as the unit has it that touched it first, and that unit.
func earliest(units []*unit, u *undone, in *unit) (*undone, *unit) {
	for _, un := range units {
		for _, o := range un.objs {
			if o.ref.ID() == u.ref.ID() && o.recs[0].seq < u.recs[0].seq {
				u, in = o, un
			}
		}
	}
	return u, in
}

func (e *Engine) compareOne(f *frame, u *undone, in *unit, c *event.Compared) error {
	live, err := e.o.Cluster.Get(f.ctx, u.ref)
	if err != nil && !absent(err) {
		return e.wrapCancelled(err)
	}
	if err != nil {
		live = nil
	}
	if live != nil && u.created() && live.GetDeletionTimestamp() != nil {
		return nil // on its way out
	}
	left, why := "", ""
	if l, ok := e.rollback.left[u.ref.ID()]; ok {
		left = l.Why
	} else if left, err = e.whyLeft(f.ctx, u, live); err != nil {
		return err
	}
	if left == "" && in.undo != nil && in.undo.bound == nil {
		left = in.undo.String() + " of step " + in.step + " left it so"
	}
	switch {
	case u.created():
		if live != nil {
			why = "is still there"
		}
	case live == nil:
		why = "is not there"
	default:
		if why, left, err = e.compareContent(u, live, left); err != nil {
			return err
		}
	}
	switch {
	case why == "":
	case left != "":
		c.Excepted = append(c.Excepted, event.Left{Ref: u.ref, Why: left})
	default:
		c.Differ = append(c.Differ, event.Left{Ref: u.ref, Why: why})
	}
	return nil
}

// compareContent says how live differs from what it was, and why that may be.
func (e *Engine) compareContent(u *undone, live *cluster.Object, left string) (why, reason string, err error) {
	before := u.first().Before
	if before == nil {
		return "", left, nil
	}
	other, err := differ(live, before)
	if err != nil || !other {
		return "", left, err
	}
	fields := strings.Join(effect.Differing(before, live), ", ")
	why = "differs in " + fields
	if left != "" {
		return why, left, nil
	}
	out, foreign := e.reverted(u, live)
	if len(foreign) > 0 {
		return why, "somebody else changed it since, and that was kept: " + fields, nil
	}
	if more, err := differ(live, out); err != nil || more {
		return why, "", err
	}
	return why, "somebody else changed since what the run did not: " + fields, nil
}

func comparison(c *event.Compared) string {
	var b strings.Builder
	if len(c.Differ) == 0 {
		fmt.Fprintf(&b, "equal to before: %s compared", objects(c.Objects))
	} else {
		fmt.Fprintf(&b, "not equal to before: %d of %s differ", len(c.Differ), objects(c.Objects))
	}
	if n := len(c.Excepted); n > 0 {
		fmt.Fprintf(&b, ", %d excepted", n)
	}
	for _, l := range c.Differ {
		fmt.Fprintf(&b, "\n  %s %s", l.Ref, l.Why)
	}
	for _, l := range c.Excepted {
		fmt.Fprintf(&b, "\n  %s is excepted: %s", l.Ref, l.Why)
	}
	return b.String()
}

func objects(n int) string {
	if n == 1 {
		return "1 object"
	}
	return fmt.Sprintf("%d objects", n)
}
