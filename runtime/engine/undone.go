package engine

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/manifest"
)

// undone is one object that a rollback brings back: all that the run did to it
// in one unit, so that it is written once.
type undone struct {
	ref   cluster.Ref
	recs  []*effectRecord // in the order in which they were made
	class effect.Class
	stage manifest.Stage
}

func (u *undone) first() *effect.Effect { return u.recs[0].effect }
func (u *undone) last() *effectRecord   { return u.recs[len(u.recs)-1] }

// created: the run made it, so it goes.
func (u *undone) created() bool { return u.first().Absent }

// deleted: it was there, and the run took it away.
func (u *undone) deleted() bool { return !u.created() && u.last().effect.Verb == effect.Delete }

// evicted: the run had its controller make it anew.
func (u *undone) evicted() bool { return u.class == effect.Eviction }

// dataPlane: it is rolled out only once the old control plane serves (DESIGN §8
// ruling 4).
func (u *undone) dataPlane() bool {
	return u.class == effect.Gateway || u.class == effect.Restart || u.class == effect.Eviction
}

// lastToGo: made by the run and perhaps still in use until the data plane is
// back.
func (u *undone) lastToGo() bool {
	if !u.created() {
		return false
	}
	return u.class == effect.CRD || u.class == effect.ControlPlane || u.class == effect.Webhook || u.ref.Kind == "Namespace"
}

// unit is one step of a rollback: what is undone of one step of the run.
type unit struct {
	name string // of the rollback's step
	step string // of the run
	undo *undoCall
	objs []*undone
	kind unitKind
	seq  uint64
}

type unitKind int

const (
	mainUnit unitKind = iota
	dataPlaneUnit
	removalUnit
)

// how is the unit's way in words.
func (u *unit) how() string {
	if u.undo != nil {
		return u.undo.String()
	}
	return "before-images"
}

// undoCall is a step's undo=, read back from the journal.
type undoCall struct {
	fn    starlark.Callable
	bound *builtin.Bound // where it is a method of a handle: what it does can be foreseen
}

// String names it.
func (c *undoCall) String() string { return "undo = " + c.fn.Name() }

// undoCallOf reads a step's undo= back. An error says why it can't be called
// any more; before-images take its place then.
func (e *Engine) undoCallOf(raw json.RawMessage) (*undoCall, error) {
	var d struct {
		Function string          `json:"function"`
		Builtin  string          `json:"builtin"`
		Recv     json.RawMessage `json:"recv"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	if d.Builtin != "" {
		if e.o.Builtins.Lookup(d.Builtin) == nil {
			return nil, fmt.Errorf("this rutter has no builtin %s", d.Builtin)
		}
		recv, err := e.o.Codec.Decode(d.Recv)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.Builtin, err)
		}
		b := &builtin.Bound{Builtin: d.Builtin, Recv: recv}
		return &undoCall{fn: b, bound: b}, nil
	}
	var fn starlark.Callable
	if e.o.Function != nil {
		fn = e.o.Function(d.Function)
	}
	if fn == nil {
		return nil, fmt.Errorf("%s is no function at the top level of the runbook", d.Function)
	}
	if sf, ok := fn.(*starlark.Function); ok && sf.NumParams() > 0 && sf.ParamDefault(0) == nil {
		return nil, fmt.Errorf("%s needs arguments, and an undo is called without", d.Function)
	}
	return &undoCall{fn: fn}, nil
}

// undoing lists what is to be undone, in the order in which it is carried out.
// It depends on the journal alone, so that it is the same after every kill.
//
// Steps are undone last in, first out, a step's undo= in the place of its
// before-images (ruling 12). The data plane is rolled out after that, once the
// old control plane serves; and what the run made and proxies may use until
// then, such as a second control plane, goes at the very end.
func (e *Engine) undoing() ([]*unit, []string) {
	var recs []*effectRecord
	for _, r := range e.ledger.effects {
		if r.undoes || r.seq <= e.rollback.after {
			continue
		}
		for ; r != nil; r = r.earlier {
			if happened(r.status) {
				recs = append(recs, r)
			}
		}
	}
	slices.SortFunc(recs, func(a, b *effectRecord) int { return cmp.Compare(a.seq, b.seq) })
	b := &undoBuilder{e: e, main: map[string]*unit{}, at: map[string]*placed{}}
	for _, r := range recs {
		b.add(r)
	}
	return b.units(), b.notes
}

type placed struct {
	u  *undone
	in *unit
}

// follows: the object follows a revision or a tag by its label.
func follows(e *effect.Effect) bool {
	return e.Class == effect.Relabel || e.Ref.Kind == "Gateway" && e.Ref.Group == "gateway.networking.k8s.io"
}

// move has the object undone with the last step that touched it, not with the
// first. Whom a namespace or a gateway follows goes back before what it follows
// now does: a revision tag can't be taken away, or moved, from under it.
func (p *placed) move(to *unit) {
	p.in.objs = slices.DeleteFunc(p.in.objs, func(u *undone) bool { return u == p.u })
	to.objs = append(to.objs, p.u)
	p.in = to
}

type undoBuilder struct {
	e     *Engine
	main  map[string]*unit
	at    map[string]*placed // the last place of an object
	order []*unit
	calls map[string]*undoCall
	notes []string
}

// stepOf is the step as whose part an effect is undone: the outermost one with
// an undo= around it, else the outermost of all.
func (b *undoBuilder) stepOf(path string) string {
	for i := 0; i <= len(path); i++ {
		if i == len(path) || path[i] == '/' {
			if s := b.e.ledger.steps[path[:i]]; s != nil && s.undo != nil && b.call(path[:i], s.undo) != nil {
				return path[:i]
			}
		}
	}
	top, _, _ := strings.Cut(path, "/")
	return top
}

func (b *undoBuilder) call(path string, raw json.RawMessage) *undoCall {
	if c, ok := b.calls[path]; ok {
		return c
	}
	c, err := b.e.undoCallOf(raw)
	if err != nil {
		b.notes = append(b.notes, fmt.Sprintf("the undo of step %q can't be called: %v; its before-images take its place", path, err))
		c = nil
	}
	if b.calls == nil {
		b.calls = map[string]*undoCall{}
	}
	b.calls[path] = c
	return c
}

func (b *undoBuilder) add(r *effectRecord) {
	step := b.stepOf(r.step)
	un := b.main[step]
	if un == nil {
		un = &unit{name: "undo " + step, step: step, undo: b.calls[step]}
		b.main[step] = un
		b.order = append(b.order, un)
	}
	un.seq = r.seq
	id := r.effect.Ref.ID()
	if at := b.at[id]; at != nil && (at.in == un || at.in.covers(un, r)) {
		at.u.recs = append(at.u.recs, r)
		at.u.classify()
		if at.in != un && follows(r.effect) {
			at.move(un)
		}
		return
	}
	u := &undone{ref: r.effect.Ref, recs: []*effectRecord{r}, stage: stageOf(r.effect)}
	u.classify()
	un.objs = append(un.objs, u)
	b.at[id] = &placed{u, un}
}

// covers reports whether undoing the object as a part of u undoes r, too, which
// another, later step did to it: it is written, and rolled out, once.
func (u *unit) covers(other *unit, r *effectRecord) bool {
	switch {
	case other.undo != nil:
		return false
	case u.undo == nil:
		return true
	}
	return u.undo.bound != nil && r.effect.RestartsOnly()
}

// classify: what brings pods down counts, whatever else was done to the object.
func (u *undone) classify() {
	u.class = u.recs[0].effect.Class
	for _, r := range u.recs {
		if c := r.effect.Class; c == effect.Gateway || c == effect.Restart {
			u.class = c
		}
	}
}

func stageOf(ef *effect.Effect) manifest.Stage {
	if ef.Before != nil {
		return manifest.StageOf(ef.Before)
	}
	if o := ef.Intended(); o != nil {
		return manifest.StageOf(o)
	}
	o := &cluster.Object{Object: map[string]any{}}
	o.SetGroupVersionKind(ef.Ref.GVK())
	o.SetName(ef.Ref.Name)
	return manifest.StageOf(o)
}

// units parts each step's objects by when they may be undone.
func (b *undoBuilder) units() []*unit {
	slices.SortStableFunc(b.order, func(x, y *unit) int { return cmp.Compare(y.seq, x.seq) })
	var first, then, last []*unit
	for _, un := range b.order {
		slices.Reverse(un.objs)
		if un.undo != nil {
			first = append(first, un)
			continue
		}
		parts := map[unitKind]*unit{
			mainUnit:      {name: un.name, step: un.step, kind: mainUnit},
			dataPlaneUnit: {name: "roll back what " + un.step + " rolled out", step: un.step, kind: dataPlaneUnit},
			removalUnit:   {name: "remove what " + un.step + " made", step: un.step, kind: removalUnit},
		}
		for _, u := range un.objs {
			kind := mainUnit
			switch {
			case u.lastToGo():
				kind = removalUnit
			case u.dataPlane() && !u.created() && !u.deleted():
				kind = dataPlaneUnit
			}
			parts[kind].objs = append(parts[kind].objs, u)
		}
		for kind, list := range map[unitKind]*[]*unit{mainUnit: &first, dataPlaneUnit: &then, removalUnit: &last} {
			if p := parts[kind]; len(p.objs) > 0 {
				slices.SortStableFunc(p.objs, func(x, y *undone) int { return cmp.Compare(x.rank(), y.rank()) })
				*list = append(*list, p)
			}
		}
	}
	return slices.Concat(first, then, last)
}

// rank orders the objects of one step. What comes back goes in as it went in on
// installing, so that nothing waits for what is not there yet, and a broken
// control plane is whole again before anything needs its webhooks; what the
// run made goes in the reverse order; CRDs that were changed come last, when
// nothing is written by their newer schema any more.
func (u *undone) rank() int {
	switch {
	case u.created():
		return 100 - int(u.stage)
	case u.ref.Kind == "CustomResourceDefinition" && !u.deleted():
		return 200
	}
	return int(u.stage)
}
