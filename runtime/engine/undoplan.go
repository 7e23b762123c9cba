package engine

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
)

// planRollback looks what of the units is left to do, and judges all of it. It
// only reads.
func (e *Engine) planRollback(units []*unit, notes []string) (*event.RollbackPlan, error) {
	e.rollback.planning = true
	defer func() { e.rollback.planning = false }()
	p := &event.RollbackPlan{Run: e.run.ID, Until: e.rollback.o.Until}
	var all []*effect.Effect
	for i, un := range units {
		u := event.Undoing{Name: un.name, How: un.how(), Changes: []event.Change{}}
		if i == 0 {
			u.Notes = notes
		}
		es, err := e.planUnit(un, &u)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", un.name, err)
		}
		for _, ef := range es {
			e.classify(rollbackSpec, ef)
			c := event.ChangeOf("", Summary(ef), ef)
			u.Changes = append(u.Changes, c)
		}
		all = append(all, es...)
		if len(u.Changes) > 0 || len(u.Notes) > 0 {
			p.Parts = append(p.Parts, u)
		}
		p.Foreign = append(p.Foreign, e.foreignOf(un)...)
	}
	listed := map[string]bool{}
	for _, un := range units {
		for _, u := range un.objs {
			if l, ok := e.rollback.left[u.ref.ID()]; ok && !listed[u.ref.ID()] {
				listed[u.ref.ID()] = true
				p.Left = append(p.Left, l)
			}
		}
	}
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(raw)
	p.Digest = hex.EncodeToString(sum[:10])
	if err := e.interrupted(); err != nil {
		return p, e.doomed(err)
	}
	p.Findings = e.judgePlan(all)
	return p, nil
}

// planUnit forecasts one unit.
func (e *Engine) planUnit(un *unit, u *event.Undoing) ([]*effect.Effect, error) {
	if un.undo != nil && un.undo.bound == nil {
		u.Notes = append(u.Notes, "what this function does is not known before it is called; only what the step changed can be written")
		return nil, nil
	}
	var planned map[string]*effect.Effect
	objs := un.objs
	if un.undo != nil {
		order, err := e.planBound(un.undo.bound)
		if err != nil {
			return nil, err
		}
		planned = map[string]*effect.Effect{}
		for _, ef := range order {
			planned[ef.Ref.ID()] = ef
		}
		objs = slices.Clone(objs)
		at := func(o *undone) int { // what it does not plan comes after it
			i := slices.IndexFunc(order, func(ef *effect.Effect) bool { return ef.Ref.ID() == o.ref.ID() })
			if i < 0 {
				return len(order)
			}
			return i
		}
		slices.SortStableFunc(objs, func(a, b *undone) int { return cmp.Compare(at(a), at(b)) })
	}
	var out []*effect.Effect
	for _, o := range objs {
		ef, moves, err := e.planOne(un, o, planned)
		if err != nil {
			return nil, err
		}
		switch {
		case ef != nil && moves != nil:
			out = append(out, ef)
			u.Notes = append(u.Notes, fmt.Sprintf("%s: %s", o.ref, moves.Why))
		case ef != nil:
			out = append(out, ef)
		case moves != nil:
			out = append(out, moves)
		}
	}
	u.Notes = together(u.Notes)
	return out, nil
}

// planOne forecasts the writes of one object.
func (e *Engine) planOne(un *unit, o *undone, planned map[string]*effect.Effect) (ef, moves *effect.Effect, err error) {
	if o.evicted() {
		succ, err := e.successor(e.soft, o)
		if err != nil || succ == nil {
			return nil, nil, err
		}
		return &effect.Effect{Verb: effect.Evict, Ref: cluster.RefOf(succ), UID: string(succ.GetUID()), Before: succ, Why: "back to its old proxy"}, nil, nil
	}
	live, err := e.o.Cluster.Get(e.soft, o.ref)
	if err != nil && !absent(err) {
		return nil, nil, e.wrapCancelled(err)
	}
	if err != nil {
		live = nil
	}
	if want := planned[o.ref.ID()]; want != nil {
		ef, err = e.narrowed(e.soft, o, want, live)
	} else {
		ef, err = e.remake(e.soft, o, content, live)
	}
	if err != nil || e.rollback.left[o.ref.ID()].Why != "" {
		return nil, nil, err
	}
	moves, err = e.remake(e.soft, o, ownership, live)
	if ef != nil && moves != nil && moves.Why == ownersOnly {
		moves = nil // what the write of the content takes away is not rutter's any more
	}
	return ef, moves, err
}

// planBound asks a builtin what it would do as an undo.
func (e *Engine) planBound(b *builtin.Bound) ([]*effect.Effect, error) {
	spec := e.o.Builtins.Lookup(b.Builtin)
	a, err := spec.Unpack(starlark.Tuple{b.Recv}, nil)
	if err != nil {
		return nil, err
	}
	plan, err := spec.PlanCall(e.call(&starlark.Thread{Name: "rollback plan"}, e.root, spec, nil), a)
	if err != nil {
		return nil, e.wrapCancelled(err)
	}
	return plan.Effects, nil
}

// together counts equal ends of notes rather than repeat them.
func together(notes []string) []string {
	if len(notes) <= 3 {
		return notes
	}
	return []string{fmt.Sprintf("fields of %d objects go back to those who owned them", len(notes))}
}

// foreignOf lists what others changed of a unit's objects, decided or not.
func (e *Engine) foreignOf(un *unit) []event.ForeignField {
	var out []event.ForeignField
	for _, u := range un.objs {
		for _, f := range e.rollback.foreign[u.ref.ID()] {
			if u.first().HoldsSecret() {
				f.Was, f.Made, f.Now = masked(f.Was), masked(f.Made), masked(f.Now)
			}
			out = append(out, event.ForeignField{Ref: u.ref, Foreign: f, Overwrite: e.rollback.overwrite[u.ref.ID()]})
		}
	}
	return out
}

func masked(v any) any {
	if v == nil {
		return nil
	}
	return "(secret)"
}

// judgePlan is the forecast over all of a rollback.
func (e *Engine) judgePlan(es []*effect.Effect) []gate.Finding {
	run := e.run
	run.Now, run.Forecast, run.Seen = e.o.Env.Clock.Now(), true, &gate.Seen{}
	found := make([][]gate.Finding, len(es))
	e.sideBySide(len(es), func(i int) {
		r := run
		r.Earlier, r.Call = es[:i], es
		found[i] = gate.Judge(e.soft, e.readerOf(e.root), &r, es[i])
	})
	return worse(e.withLeave(e.wayOut(slices.Concat(found...)), es))
}
