package engine

import (
	"cmp"
	"slices"
	"testing"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/journal"
)

// A namespace that followed a canary tag and then the stable one goes back before
// the stable tag does, which it would else be left by; other objects go back with
// the first step that touched them.
func TestARelabellingIsUndoneWithItsLastStep(t *testing.T) {
	namespace := cluster.Ref{Version: "v1", Kind: "Namespace", Name: "shop"}
	tag := cluster.Ref{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "MutatingWebhookConfiguration", Name: "istio-revision-tag-stable"}
	waypoint := cluster.Ref{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "Gateway", Namespace: "shop", Name: "waypoint"}
	config := cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: "shop", Name: "a"}
	l := &ledger{steps: map[string]*stepRecord{}, effects: map[string]*effectRecord{}}
	for i, r := range []struct {
		step  string
		ref   cluster.Ref
		class effect.Class
		made  bool
	}{
		{"canary", namespace, effect.Relabel, false},
		{"canary", waypoint, effect.MeshConfig, false},
		{"canary", config, effect.Plain, false},
		{"stable tag", tag, effect.Tag, true},
		{"follow it", namespace, effect.Relabel, false},
		{"follow it", waypoint, effect.MeshConfig, false},
		{"follow it", config, effect.Plain, false},
	} {
		key := string(rune('a' + i))
		l.effects[key] = &effectRecord{
			seq: uint64(i + 1), key: key, step: r.step, status: journal.Done,
			effect: &effect.Effect{Verb: effect.Patch, Ref: r.ref, Class: r.class, Absent: r.made},
		}
	}
	units, notes := (&Engine{ledger: l, rollback: &rollback{}}).undoing()
	if len(notes) > 0 {
		t.Errorf("notes: %v", notes)
	}
	slices.SortFunc(units[0].objs, func(a, b *undone) int { return cmp.Compare(a.ref.Name, b.ref.Name) })
	var got []string
	for _, u := range units {
		for _, o := range u.objs {
			got = append(got, u.name+": "+o.ref.Name)
		}
	}
	if want := []string{"undo follow it: shop", "undo follow it: waypoint", "undo stable tag: istio-revision-tag-stable", "undo canary: a"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
