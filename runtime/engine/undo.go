package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"go.starlark.net/starlark"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/journal"
)

// part is one of the two writes by which an object comes back.
type part string

const (
	content   part = "content"
	ownership part = "owners" // who owns its fields; a write of its own, since a write owns what it changes
)

// undoUnit carries out one unit.
func (e *Engine) undoUnit(t *starlark.Thread, un *unit) error {
	f := frameOf(t)
	s := &submitter{e: e, f: f, spec: rollbackSpec}
	switch {
	case un.undo != nil:
		f.only = map[string]*undone{}
		for _, u := range un.objs {
			f.only[u.ref.ID()] = u
		}
		_, err := builtin.CallScript(t, un.undo.fn, nil, nil)
		f.only = nil
		if err != nil {
			return err
		}
		if un.undo.bound != nil {
			// What the builtin does not know of, such as what rutter itself made.
			return e.putBack(s, un.objs, content, ownership)
		}
		return e.putBack(s, un.objs, ownership)
	case un.kind == dataPlaneUnit:
		return e.rollOutAgain(s, un.objs)
	}
	var err error
	if s.call, err = e.injectorsOf(f.ctx, un); err != nil {
		return err
	}
	for len(un.objs) > 0 {
		n := 1
		for n < len(un.objs) && un.objs[n].rank() == un.objs[0].rank() {
			n++
		}
		now := un.objs[:n]
		if err := e.putBack(s, now, content, ownership); err != nil {
			return err
		}
		if err := e.awaitBack(s, now); err != nil {
			return err
		}
		un = &unit{objs: un.objs[n:]}
	}
	return nil
}

// injectorsOf are the writes by which a unit brings injection webhooks back or
// takes them away. RUT010 judges them as the unit leaves them, as it judged those
// that are undone: the injector of the old control plane is switched on before
// the tag goes that took its place.
func (e *Engine) injectorsOf(ctx context.Context, un *unit) ([]*effect.Effect, error) {
	var out []*effect.Effect
	for _, u := range un.objs {
		if u.ref.Kind != "MutatingWebhookConfiguration" {
			continue
		}
		live, err := e.o.Cluster.Get(ctx, u.ref)
		if err != nil && !absent(err) {
			return nil, err
		}
		if err != nil {
			live = nil
		}
		ef, err := e.remake(ctx, u, content, live)
		if err != nil {
			return nil, err
		}
		if ef != nil {
			out = append(out, ef)
		}
	}
	return out, nil
}

// putBack writes the objects, one after the other, as far as they are not as
// they were.
func (e *Engine) putBack(s *submitter, us []*undone, parts ...part) error {
	for _, u := range us {
		for _, p := range parts {
			if err := s.submit(s.f.ctx, []*pending{e.undoing1(u, p)}); err != nil {
				return err
			}
		}
		if err := e.noteUndone(u); err != nil {
			return err
		}
	}
	return nil
}

// undoing1 is one write on its way. It is made out from the object as it is at
// each try, and keyed by what it undoes, so that a resumed rollback finds it
// again though its body may be another by then.
func (e *Engine) undoing1(u *undone, p part) *pending {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s", e.root.path, p)
	for _, r := range u.recs {
		fmt.Fprintf(h, "\x00%s", r.key)
	}
	key := hex.EncodeToString(h.Sum(nil)[:10])
	return &pending{
		ef: &effect.Effect{Verb: effect.Replace, Ref: u.ref}, key: key, rec: e.ledger.effects[key],
		remake: func(ctx context.Context, live *cluster.Object) (*effect.Effect, error) {
			return e.remake(ctx, u, p, live)
		},
	}
}

// noteUndone journals how an object stands.
func (e *Engine) noteUndone(u *undone) error {
	left, isLeft := e.rollback.left[u.ref.ID()]
	for _, r := range u.recs {
		if _, err := e.append(&journal.Undo{Key: r.key, Step: r.step, Done: !isLeft, Reason: left.Why}); err != nil {
			return err
		}
	}
	return nil
}

// leave records that an object stays as the run made it.
func (e *Engine) leaveIt(u *undone, why string) {
	e.rollback.left[u.ref.ID()] = event.Left{Ref: u.ref, Why: why}
}

// remake is the write that brings u back from what it is now; nil where nothing
// is left to do.
func (e *Engine) remake(ctx context.Context, u *undone, p part, live *cluster.Object) (*effect.Effect, error) {
	if why, err := e.whyLeft(ctx, u, live); err != nil || why != "" {
		if why != "" {
			e.leaveIt(u, why)
		}
		return nil, err
	}
	if p == ownership {
		return ownersBack(u, live)
	}
	switch {
	case u.created():
		if live == nil || live.GetDeletionTimestamp() != nil {
			return nil, nil
		}
		ef := effect.DeleteOf(live, "")
		ef.ResourceVersion, ef.Why = live.GetResourceVersion(), "the run made it"
		return ef, nil
	case u.deleted():
		if live != nil {
			return nil, nil
		}
		ef, err := effect.CreateOf(writable(u.first().Before, nil))
		if err != nil {
			return nil, err
		}
		ef.Why = "the run deleted it"
		return ef, nil
	}
	out, foreign := e.reverted(u, live)
	if len(foreign) > 0 && !e.rollback.overwrite[u.ref.ID()] {
		e.rollback.foreign[u.ref.ID()] = foreign
	}
	return replacing(live, out)
}

// after is the object as the i-th effect left it. Where the journal does not
// say (the host was killed between the write and its Outcome, or an older
// rutter wrote it), it is what came next.
func (u *undone) after(i int, live *cluster.Object) *cluster.Object {
	r := u.recs[i]
	switch {
	case r.known:
		return effect.Patched(r.effect.Before, r.delta)
	case i+1 < len(u.recs) && u.recs[i+1].effect.Before != nil:
		return u.recs[i+1].effect.Before
	case r.effect.Verb == effect.Delete || live == nil:
		return r.effect.Before
	}
	return live
}

// replacing is the write that makes live be out; nil where it is.
func replacing(live, out *cluster.Object) (*effect.Effect, error) {
	same, err := differ(live, out)
	if err != nil || !same {
		return nil, err
	}
	want := writable(out, live)
	ef, err := effect.ReplaceOf(want, live)
	if err != nil {
		return nil, err
	}
	body, err := cluster.CanonicalJSON(want.Object)
	if err != nil {
		return nil, err
	}
	ef.Body, ef.After, ef.Why = body, predicted(live, out), restores(live, out)
	return ef, nil
}

// predicted is what the server will make of it, near enough for the gates.
func predicted(live, out *cluster.Object) *cluster.Object {
	p := out.DeepCopy()
	was, _, err := unstructured.NestedFieldNoCopy(live.Object, "spec")
	now, _, err2 := unstructured.NestedFieldNoCopy(out.Object, "spec")
	if err != nil || err2 != nil || fmt.Sprint(was) != fmt.Sprint(now) {
		p.SetGeneration(live.GetGeneration() + 1)
	}
	return p
}

// What a summary names of fields.
const (
	mostNamed  = 3
	longestOne = 60
)

// restores says what comes back: the fields by name as long as a person can
// read them, else how many.
func restores(live, out *cluster.Object) string {
	fields := effect.Differing(live, out)
	if len(fields) == 1 && strings.HasSuffix(fields[0], "["+effect.AnnotationRestart+"]") {
		return "back to its old pods' template, and so to the old proxy"
	}
	if slices.ContainsFunc(fields, func(f string) bool { return len(f) > longestOne }) {
		return fmt.Sprintf("restore %d fields of %s", len(fields), strings.Join(tops(fields), ", "))
	}
	more := ""
	if n := len(fields) - mostNamed; n > 0 {
		fields, more = fields[:mostNamed], fmt.Sprintf(" and %d more", n)
	}
	return "restore " + strings.Join(fields, ", ") + more
}

// tops are the beginnings of paths.
func tops(fields []string) []string {
	var out []string
	for _, f := range fields {
		top, rest, _ := strings.Cut(f, ".")
		next, _, _ := strings.Cut(rest, ".")
		next, _, _ = strings.Cut(next, "[")
		if t := strings.TrimSuffix(top+"."+next, "."); !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out
}

// keptAnnotations are bookkeeping that no comparison looks at, and that a write
// of the whole object must not take away all the same.
var keptAnnotations = []string{
	"kubectl.kubernetes.io/last-applied-configuration", "deployment.kubernetes.io/revision", "deprecated.daemonset.template.generation",
}

// writable is what of an object can be written again.
func writable(o, live *cluster.Object) *cluster.Object {
	n := cluster.Normalize(o, cluster.NormalizeOptions{})
	from := o
	if live != nil {
		from = live
	}
	a := n.GetAnnotations()
	for _, k := range keptAnnotations {
		if v, ok := from.GetAnnotations()[k]; ok {
			if a == nil {
				a = map[string]string{}
			}
			a[k] = v
		}
	}
	n.SetAnnotations(a)
	return n
}

// ownersBack moves the fields back to who owned them.
func ownersBack(u *undone, live *cluster.Object) (*effect.Effect, error) {
	if live == nil || u.created() || u.first().Before == nil || live.GetDeletionTimestamp() != nil {
		return nil, nil
	}
	patch, back, err := effect.Owners(u.first().Before, live)
	if err != nil || patch == nil {
		return nil, err
	}
	ef, err := effect.PatchOf(u.ref, string(types.JSONPatchType), patch)
	if err != nil {
		return nil, err
	}
	ef.Found(live)
	ef.ResourceVersion, ef.After = live.GetResourceVersion(), live
	ef.Undo = effect.Undo{Kind: effect.UndoNone, Reason: "it changes who owns fields, not what they are"}
	ef.Why = "fields go back to " + strings.Join(back, ", ")
	if len(back) == 0 {
		ef.Why = ownersOnly
	}
	return ef, nil
}

// ownersOnly: nobody gets a field back, rutter only gives up what it took.
const ownersOnly = "rutter gives up fields"

// allowed are the effects that a call within f may make.
func allowed(f *frame, es []*effect.Effect) []*effect.Effect {
	if f.only == nil {
		return es
	}
	return slices.DeleteFunc(slices.Clone(es), func(ef *effect.Effect) bool { return f.only[ef.Ref.ID()] == nil })
}

// narrow holds an effect of a step's undo= to what that step changed (ruling
// 12), and a write of a whole object to what the run changed of it.
func (e *Engine) narrow(f *frame, p *pending) {
	if f.only == nil {
		return
	}
	u := f.only[p.ef.Ref.ID()]
	if u == nil {
		p.settled, p.result = true, &effect.Result{Observed: true}
		return
	}
	planned := p.ef
	p.remake = func(ctx context.Context, live *cluster.Object) (*effect.Effect, error) {
		return e.narrowed(ctx, u, planned, live)
	}
}

func (e *Engine) narrowed(ctx context.Context, u *undone, planned *effect.Effect, live *cluster.Object) (*effect.Effect, error) {
	if why, err := e.whyLeft(ctx, u, live); err != nil || why != "" {
		if why != "" {
			e.leaveIt(u, why)
		}
		return nil, err
	}
	ef := *planned
	switch {
	case planned.Verb == effect.Delete || planned.Verb == effect.Evict:
		if live == nil || live.GetDeletionTimestamp() != nil || planned.UID != "" && string(live.GetUID()) != planned.UID {
			return nil, nil
		}
		ef.ResourceVersion = live.GetResourceVersion()
	case planned.Verb == effect.Create && live != nil:
		return nil, nil
	case planned.Verb == effect.Replace && live == nil:
		return nil, nil
	case planned.Verb == effect.Replace:
		want, err := cluster.DecodeObject(planned.Body)
		if err != nil {
			return nil, fmt.Errorf("%s: body: %w", planned.Ref, err)
		}
		out, foreign := effect.Revert(live, want, u.after(len(u.recs)-1, live), e.rollback.overwrite[u.ref.ID()])
		if len(foreign) > 0 && !e.rollback.overwrite[u.ref.ID()] {
			e.rollback.foreign[u.ref.ID()] = foreign
		}
		return replacing(live, out)
	}
	if live == nil {
		ef.Before, ef.Absent, ef.UID = nil, true, ""
	} else {
		ef.Before, ef.Absent, ef.UID = live, false, string(live.GetUID())
	}
	return &ef, nil
}
