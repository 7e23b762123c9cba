package diff

import (
	"fmt"
	"strings"
	"sync"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/manifest"
)

type liveArgs struct {
	Manifest  starlark.Value `star:"manifest,positional" doc:"rendered manifest, object, list of objects, or YAML text"`
	Prune     *bool          `star:"prune" doc:"show what kube.apply(prune = True) would delete; True by default for a rendered Istio manifest"`
	Adopt     []string       `star:"adopt" doc:"field managers whose fields would be taken over, as for kube.apply"`
	Namespace string         `star:"namespace" doc:"namespace of namespaced objects that name none"`
	Inventory string         `star:"inventory" doc:"name of the record of what belongs together, as for kube.apply"`
}

func liveSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[liveArgs]{
		Name: "diff.live",
		Doc: "Compares a manifest with the cluster through the API server's own dry-run, and shows what kube.apply would change.\n" +
			"An approve() after it covers exactly what it showed: an object whose content changes later is refused. " +
			"Give it the same prune and adopt as kube.apply.",
		Example: `step("review", diff.live, manifest).by_risk`,
		Returns: "diff",
		Do: func(c *builtin.Call, a *liveArgs) (any, error) {
			r, facts, err := live(c, a)
			if err != nil {
				return nil, err
			}
			for _, f := range facts {
				c.Note(effect.Fact{Diff: f})
			}
			c.Emit(&event.Diff{ID: r.ID, Title: r.Title, Text: r.Text})
			return r, nil
		},
	})
}

// live gives the diff and the facts that it establishes: what it showed, and
// where ownership moves first, that too, which is a second effect on the object.
func live(c *builtin.Call, a *liveArgs) (*Result, []*effect.Diff, error) {
	objs, err := manifest.From(a.Manifest, c.Blobs)
	if err != nil {
		return nil, nil, &diag.Error{Code: diag.Usage, Subject: "manifest", Err: err}
	}
	m, rendered := a.Manifest.(*manifest.Manifest)
	prune := rendered && m.Version != ""
	if a.Prune != nil {
		prune = *a.Prune
	}
	seen := &shown{of: map[*effect.Effect]*Item{}}
	p, err := manifest.Plan(c.Ctx, c.Reader, objs, manifest.Options{Adopt: a.Adopt, Prune: prune, Namespace: a.Namespace, Inventory: a.Inventory, Known: seen.add})
	if err != nil {
		return nil, nil, err
	}
	fact, moves := &effect.Diff{Objects: map[string]string{}}, &effect.Diff{Objects: map[string]string{}}
	var items []Item
	for i, e := range p.Effects {
		switch {
		case p.Stages[i] == manifest.Inventory:
			continue // bookkeeping, which follows from the rest
		case manifest.IsMove(e):
			moves.Objects[e.Ref.ID()] = c.Digest(e)
			continue
		}
		it, err := seen.item(e)
		if err != nil {
			return nil, nil, err
		}
		it.Effect = c.Digest(e)
		fact.Objects[e.Ref.ID()] = it.Effect
		items = append(items, *it)
	}
	notes := p.Notes
	if len(a.Adopt) > 0 {
		notes = append(notes, "fields of "+strings.Join(a.Adopt, ", ")+" in what changes move to rutter")
	}
	title := "live"
	if rendered {
		title = strings.TrimSpace("Istio " + m.Version)
	}
	r := finish(title, items, append(notes, fmt.Sprintf("%d objects stay as they are", len(p.Unchanged))))
	fact.ID, moves.ID = r.ID, r.ID
	facts := []*effect.Diff{fact}
	if len(moves.Objects) > 0 {
		facts = append(facts, moves)
	}
	return r, facts, nil
}

// shown are the descriptions of effects. Those of applies are written while the
// server still works on the dry-runs of others: a large definition has thousands of
// lines.
type shown struct {
	mu sync.Mutex // guards of
	of map[*effect.Effect]*Item
}

func (s *shown) add(e *effect.Effect, refused error) error {
	it, err := itemOf(e, refused)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of[e] = it
	return err
}

// item is the description of e, which is made now of what is no apply.
func (s *shown) item(e *effect.Effect) (*Item, error) {
	s.mu.Lock()
	it := s.of[e]
	s.mu.Unlock()
	if it != nil {
		return it, nil
	}
	return itemOf(e, nil)
}

// itemOf describes the effect e. One that the dry-run refuses is shown against
// what was asked for, since nobody knows what would come of it.
func itemOf(e *effect.Effect, refused error) (*Item, error) {
	after := e.After
	if after == nil && e.Verb != effect.Delete {
		var err error
		if after, err = cluster.DecodeObject(e.Body); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Ref, err)
		}
	}
	it, err := compared(e.Ref, e.Before, after)
	if err != nil {
		return nil, err
	}
	if it == nil {
		// It differs in what Normalize drops or in nothing but its refusal.
		it = &Item{Ref: e.Ref, Change: Changed, Risks: []string{riskOther}}
	}
	if refused != nil {
		it.Refused = "the dry-run refuses it: " + refused.Error()
	}
	return it, nil
}
