package manifest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
)

// Adoption (DESIGN §8, ruling 2). Server-side apply drops a field only if the
// same manager applied it before, so the fields that an earlier installer set
// and that the manifest no longer has would stay for ever. Adopting moves the
// ownership of all of its fields to rutter first, by an effect of its own, and
// the apply after it drops what the manifest lacks.
//
// Only objects that the apply changes, or that lose fields, are moved: to take
// the ownership of all others would be an effect for every object of the
// install, each with its gates and its sync, and would change nothing. They
// keep their owner, and are moved when they change.
//
// What never moves are the marks by which an installer finds its own again
// (isMark): without them istioctl could not uninstall what it had installed,
// Helm would refuse to upgrade its release, and a first prune would have nothing
// to go by. They stay as they are, with their owner.

// mostNamed bounds the fields that one note names.
const mostNamed = 5

// adoption is what moving the fields of adopted managers does to one object.
type adoption struct {
	move  *cluster.Move
	drops *fieldpath.Set // what the apply will drop because of it
	after *cluster.Object
	// assumed says why after is not what the server itself said, if so.
	assumed string
}

// forecast is the server's dry-run of the apply of obj to live, with the fields
// of the managers in adopt taken over. Where nobody else owns a field that an apply
// could be in conflict over, the server is asked once, and not first for the
// conflicts that are sure to be there.
func forecast(ctx context.Context, r cluster.Reader, obj, live *cluster.Object, adopt []string) (*cluster.Object, error) {
	if live != nil && len(adopt) > 0 {
		alone, err := ownedBy(live, obj, adopt)
		if err != nil {
			return nil, err
		}
		if alone {
			return r.DryRunApply(ctx, obj, cluster.ApplyOptions{Force: true})
		}
	}
	return gate.DryRunApply(ctx, r, obj, adopt)
}

// ownedBy reports whether every field of live that has an owner, and that obj
// applies, is the managers' or rutter's own. What is only written as status does not
// count: an apply leaves it alone. An object that nobody manages is no one's: the
// server makes a manager up for it ("before-first-apply") at the first apply. Fields
// that are named by another version of the API may be any.
func ownedBy(live, obj *cluster.Object, managers []string) (bool, error) {
	foreign := func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager != cluster.FieldManager && m.Subresource != "status" && !slices.Contains(managers, m.Manager)
	}
	entries := live.GetManagedFields()
	if len(entries) == 0 || slices.ContainsFunc(entries, func(m metav1.ManagedFieldsEntry) bool {
		return foreign(m) && (m.Subresource != "" || m.APIVersion != obj.GetAPIVersion() || m.FieldsV1 == nil)
	}) {
		return false, nil
	}
	theirs, err := cluster.Owned(live, foreign)
	if err != nil {
		return false, err
	}
	alone := true
	theirs.Leaves().Iterate(func(p fieldpath.Path) { alone = alone && !has(obj.Object, p) })
	return alone, nil
}

// isMark reports whether p is a label or annotation by which an installer knows
// its own objects. Sources: istio operator/pkg/helmreconciler and
// operator/pkg/manifest (labels that istioctl install adds to every object and
// prunes by), Helm's ownership check, kubectl's client-side apply.
func isMark(p fieldpath.Path) bool {
	if len(p) != 3 || p[0].FieldName == nil || *p[0].FieldName != "metadata" || p[1].FieldName == nil || p[2].FieldName == nil {
		return false
	}
	key := *p[2].FieldName
	switch *p[1].FieldName {
	case "labels":
		return key == labelRevision || key == labelManagedBy || strings.HasPrefix(key, "operator.istio.io/") || strings.HasPrefix(key, "install.operator.istio.io/")
	case "annotations":
		return key == lastApplied || strings.HasPrefix(key, "meta.helm.sh/")
	}
	return false
}

// adopting forecasts the move for live; applied is what the dry-run of the
// apply gives without it. It is nil where nothing would move.
//
// A server can't be asked what an apply would do after a move that was not
// made. But what it will drop follows from who owns what (structured-merge-diff,
// merge.Updater.prune: what this manager applied before, does not apply now and
// no other manager owns), and what the object is without that, the server does
// say, with its defaults, to a dry-run of an update.
func adopting(ctx context.Context, r cluster.Reader, live, applied *cluster.Object, adopt []string) (*adoption, error) {
	if live == nil || applied == nil || len(adopt) == 0 {
		return nil, nil
	}
	move, err := cluster.MoveFields(live, adopt, isMark)
	if err != nil || move == nil {
		return nil, err
	}
	kept, err := cluster.Owned(applied, func(m metav1.ManagedFieldsEntry) bool { return !slices.Contains(adopt, m.Manager) })
	if err != nil {
		return nil, err
	}
	kept = kept.Union(move.Stays)
	a := &adoption{move: move, drops: fieldpath.NewSet(), after: applied}
	n := applied.DeepCopy()
	drop(n.Object, move.Fields, kept, nil, a.drops)
	if a.drops.Empty() {
		return a, nil
	}
	a.after = n
	ask := n.DeepCopy()
	ask.SetManagedFields(nil)
	got, err := r.DryRunReplace(ctx, ask, cluster.WriteOptions{UID: live.GetUID(), ResourceVersion: live.GetResourceVersion()})
	switch {
	case err == nil:
		a.after = got
	case ctx.Err() != nil || errors.Is(err, cluster.ErrUnreachable):
		return nil, fmt.Errorf("%s: dry-run without the fields that are dropped: %w", cluster.RefOf(live), err)
	default:
		a.assumed = err.Error()
	}
	return a, nil
}

// keeping is the adoption of an object that stays as it is, from which nothing
// is dropped; nil where nothing would move.
func keeping(live *cluster.Object, adopt []string) (*adoption, error) {
	move, err := cluster.MoveFields(live, adopt, isMark)
	if err != nil || move == nil {
		return nil, err
	}
	return &adoption{move: move, drops: fieldpath.NewSet(), after: live}, nil
}

// drop takes from v the fields of theirs that nobody keeps, and enters into out
// the outermost paths that went. An item or a map goes as a whole only if
// nothing in it is kept.
func drop(v any, theirs, kept *fieldpath.Set, at fieldpath.Path, out *fieldpath.Set) any {
	for pe := range theirs.Members.All() {
		if kept.Members.Has(pe) || !kept.WithPrefix(pe).Empty() {
			continue
		}
		next, found := without(v, pe)
		if found {
			v = next
			out.Insert(append(slices.Clone(at), pe))
		}
	}
	for pe := range theirs.Children.All() {
		child, set := cluster.Element(v, pe)
		if child != nil {
			set(drop(child, theirs.WithPrefix(pe), kept.WithPrefix(pe), append(slices.Clone(at), pe), out))
		}
	}
	return v
}

// without is v without the element pe.
func without(v any, pe fieldpath.PathElement) (any, bool) {
	switch v := v.(type) {
	case map[string]any:
		if pe.FieldName == nil {
			return v, false
		}
		_, found := v[*pe.FieldName]
		delete(v, *pe.FieldName)
		return v, found
	case []any:
		if i := cluster.ItemOf(v, pe); i >= 0 {
			return slices.Delete(slices.Clone(v), i, i+1), true
		}
	}
	return v, false
}

// effect is the move as an effect on live. The object's content stays; what the
// apply after it drops is in that one's After.
func (a *adoption) effect(live *cluster.Object) (*effect.Effect, error) {
	e, err := effect.PatchOf(cluster.RefOf(live), string(types.JSONPatchType), a.move.Patch)
	if err != nil {
		return nil, err
	}
	e.Found(live)
	e.ResourceVersion = live.GetResourceVersion()
	if StageOf(live) != ControlPlane {
		// Of a control plane it would say that it brings the version that is
		// there, which no gate wants to hear of an upgrade.
		e.After = live
	}
	e.Undo = effect.Undo{Kind: effect.UndoNone, Reason: "it changes who owns fields, not what they are"}
	e.Why = "fields of " + strings.Join(a.move.Managers, ", ") + " move to " + cluster.FieldManager
	return e, nil
}

// note names what the move makes the apply drop.
func (a *adoption) note(ref cluster.Ref) string {
	var names []string
	a.drops.Iterate(func(p fieldpath.Path) { names = append(names, p.String()) })
	if len(names) == 0 {
		return ""
	}
	more := ""
	if n := len(names) - mostNamed; n > 0 {
		names, more = names[:mostNamed], fmt.Sprintf(" and %d more", n)
	}
	s := fmt.Sprintf("%s: drops %s%s: %s set it, and the manifest no longer holds it",
		ref, strings.Join(names, ", "), more, strings.Join(a.move.Managers, " or "))
	if a.assumed != "" {
		s += "; assumed, since the dry-run without it is refused: " + a.assumed
	}
	return s
}

// Readopt is the move e as it must be sent now: the list of owners may have
// changed since it was planned. It is nil where nothing is left to move.
func Readopt(ctx context.Context, r cluster.Reader, e *effect.Effect, adopt []string) (*effect.Effect, error) {
	live, err := r.Get(ctx, e.Ref)
	if errors.Is(err, cluster.ErrNotFound) {
		return nil, nil // the apply will make it anew
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Ref, err)
	}
	move, err := cluster.MoveFields(live, adopt, isMark)
	if err != nil || move == nil {
		return nil, err
	}
	return (&adoption{move: move}).effect(live)
}

// IsMove reports whether e is the move of fields that goes before an apply.
func IsMove(e *effect.Effect) bool {
	return e.Verb == effect.Patch && e.PatchType == string(types.JSONPatchType)
}
