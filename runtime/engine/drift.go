package engine

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/journal"
)

// drift shows, before a resumed run does anything, what others have changed
// since of what it did. It holds nothing up: a finished step stays finished,
// and what an interrupted one finds undone it makes again, through all gates.
func (e *Engine) drift() error {
	if !e.resume {
		return nil
	}
	byObject := map[string]*undone{}
	var all []*undone
	recs := make([]*effectRecord, 0, len(e.ledger.effects))
	for _, r := range e.ledger.effects {
		if happened(r.status) {
			recs = append(recs, r)
		}
	}
	slices.SortFunc(recs, func(a, b *effectRecord) int { return cmp.Compare(a.seq, b.seq) })
	for _, r := range recs {
		u := byObject[r.effect.Ref.ID()]
		if u == nil {
			u = &undone{ref: r.effect.Ref, class: r.effect.Class}
			byObject[r.effect.Ref.ID()] = u
			all = append(all, u)
		}
		u.recs = append(u.recs, r)
	}
	found := make([]string, len(all))
	errs := make([]error, len(all))
	e.sideBySide(len(all), func(i int) { found[i], errs[i] = e.drifted(all[i]) })
	d := &event.Drift{}
	for i, why := range found {
		if errs[i] != nil {
			return e.doomed(e.wrapCancelled(errs[i]))
		}
		if why != "" {
			d.Changed = append(d.Changed, event.Left{Ref: all[i].ref, Why: why})
		}
	}
	if len(d.Changed) == 0 {
		return nil
	}
	e.emit("", d)
	for _, x := range d.Changed {
		if _, err := e.append(&journal.Warn{Message: "drift: " + x.Ref.String() + ": " + x.Why}); err != nil {
			return err
		}
	}
	return nil
}

// drifted says how an object is not as the run left it; "" where it is.
func (e *Engine) drifted(u *undone) (string, error) {
	last := u.last()
	if last.effect.Verb == effect.Evict {
		return "", nil // its controller made it anew
	}
	live, err := e.o.Cluster.Get(e.soft, u.ref)
	if err != nil && !absent(err) {
		return "", err
	}
	gone := err != nil || live.GetDeletionTimestamp() != nil
	switch {
	case last.effect.Verb == effect.Delete && gone:
		return "", nil
	case last.effect.Verb == effect.Delete:
		if string(live.GetUID()) == last.effect.UID {
			return "", nil // on its way; the resume looks after it
		}
		return "this run deleted it, and it is there again", nil
	case gone:
		return "it is gone", nil
	case last.uid != "" && string(live.GetUID()) != last.uid:
		return "another object has its name now", nil
	}
	_, foreign := revertAll(u, live, false)
	return describeForeign(u, foreign), nil
}

func describeForeign(u *undone, foreign []effect.Foreign) string {
	var parts []string
	for _, f := range foreign {
		if u.recs[0].effect.HoldsSecret() {
			f.Made, f.Now = masked(f.Made), masked(f.Now)
		}
		if len(parts) == mostNamed {
			parts = append(parts, fmt.Sprintf("and %d fields more", len(foreign)-mostNamed))
			break
		}
		parts = append(parts, fmt.Sprintf("%s is %s, this run made it %s", f.Field, inBrief(f.Now), inBrief(f.Made)))
	}
	return strings.Join(parts, "; ")
}

func inBrief(v any) string {
	if v == nil {
		return "gone"
	}
	s := fmt.Sprint(v)
	if r := []rune(s); len(r) > longestOne {
		s = string(r[:longestOne]) + "…"
	}
	return s
}

// reverted takes back in live, effect by effect from the last to the first,
// what the run changed.
func (e *Engine) reverted(u *undone, live *cluster.Object) (*cluster.Object, []effect.Foreign) {
	return revertAll(u, live, e.rollback.overwrite[u.ref.ID()])
}

func revertAll(u *undone, live *cluster.Object, overwrite bool) (*cluster.Object, []effect.Foreign) {
	out := live
	var foreign []effect.Foreign
	for i := len(u.recs) - 1; i >= 0; i-- {
		r := u.recs[i]
		if r.effect.Before == nil {
			continue // it did not exist in between
		}
		var fs []effect.Foreign
		out, fs = effect.Revert(out, r.effect.Before, u.after(i, live), overwrite)
		for _, f := range fs {
			if !slices.ContainsFunc(foreign, func(g effect.Foreign) bool { return g.Field == f.Field }) {
				foreign = append(foreign, f)
			}
		}
	}
	return out, foreign
}
