package effect

import (
	"encoding/json"
	"fmt"

	"rutter.dev/rutter/runtime/cluster"
)

// ApplyOf is the effect of server-side applying the object o and taking over
// the fields of the managers in adopt. What reviews a manifest and what applies
// it both build their effects here, so that their digests agree. Before, After
// and Absent are for the caller, who has looked at the cluster.
func ApplyOf(o *cluster.Object, adopt []string) (*Effect, error) {
	return bodyOf(Apply, o, adopt)
}

// CreateOf is the effect of creating o as it is given.
func CreateOf(o *cluster.Object) (*Effect, error) {
	e, err := bodyOf(Create, o, nil)
	if err != nil {
		return nil, err
	}
	e.Absent, e.Undo = true, Undo{Kind: UndoDelete}
	return e, nil
}

// ReplaceOf is the effect of putting o in the place of live, fenced by live's
// UID and version.
func ReplaceOf(o, live *cluster.Object) (*Effect, error) {
	e, err := bodyOf(Replace, o, nil)
	if err != nil {
		return nil, err
	}
	e.Found(live)
	e.ResourceVersion = live.GetResourceVersion()
	return e, nil
}

// DeleteOf is the effect of deleting live, and no object of the same name that
// came after it. propagation "" means Background.
func DeleteOf(live *cluster.Object, propagation string) *Effect {
	return &Effect{
		Verb: Delete, Ref: cluster.RefOf(live), Before: live, UID: string(live.GetUID()),
		Propagation: propagation, Undo: Undo{Kind: UndoRecreate},
	}
}

// Found records the before-image: live, or nil for an object that does not
// exist. It sets the fence and the way back that follow from it.
func (e *Effect) Found(live *cluster.Object) {
	if live == nil {
		e.Absent, e.Before, e.UID, e.Undo = true, nil, "", Undo{Kind: UndoDelete}
		return
	}
	e.Absent, e.Before, e.UID, e.Undo = false, live, string(live.GetUID()), Undo{Kind: UndoRestore}
}

func bodyOf(verb Verb, o *cluster.Object, adopt []string) (*Effect, error) {
	n := cluster.Normal(o, cluster.NormalizeOptions{})
	if verb != Apply {
		n = n.DeepCopy()
		KeepLastApplied(n, o)
	}
	body, err := cluster.CanonicalJSON(n.Object)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cluster.RefOf(o), err)
	}
	return &Effect{Verb: verb, Ref: cluster.RefOf(o), Body: body, Adopt: adopt}, nil
}

// KeepLastApplied carries over kubectl's record of what it applied, which is no
// part of an object's normal form: an object that comes back without it is no
// longer kubectl's to prune fields of.
func KeepLastApplied(to, from *cluster.Object) {
	const key = "kubectl.kubernetes.io/last-applied-configuration"
	v := from.GetAnnotations()[key]
	if v == "" {
		return
	}
	a := to.GetAnnotations()
	if a == nil {
		a = map[string]string{}
	}
	a[key] = v
	to.SetAnnotations(a)
}

// PatchOf is the effect of patching the object at ref; body is the patch as
// decoded JSON, patchType its media type.
func PatchOf(ref cluster.Ref, patchType string, body any) (*Effect, error) {
	raw, err := cluster.CanonicalJSON(body)
	if err != nil {
		return nil, fmt.Errorf("%s: patch: %w", ref, err)
	}
	return &Effect{Verb: Patch, Ref: ref, PatchType: patchType, Body: json.RawMessage(raw)}, nil
}
