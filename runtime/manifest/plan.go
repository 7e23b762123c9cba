package manifest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

// Options say how a manifest is to be applied.
type Options struct {
	Adopt []string // managers whose fields are taken over
	Prune bool     // delete what an earlier manifest brought and this one does not
	// Namespace is for namespaced objects that name none; "" means default.
	Namespace string
	// Inventory names the record of what the manifest brought; "" means that
	// of the Istio install, by revision.
	Inventory string
	Why       string
	// Known is called with each apply, and with what the dry-run said of it if it
	// refuses it, as soon as that is known; for several at a time. nil is not.
	Known func(e *effect.Effect, refused error) error
}

// Planned is the forecast of applying a manifest.
type Planned struct {
	// Effects in the order of their stages; those of Prune and Inventory last.
	// An apply that adopts comes right after its move (IsMove).
	Effects []*effect.Effect
	// Stages holds the stage of each effect.
	Stages []Stage
	// Unchanged are the objects that the API server's dry-run leaves as they
	// are, and those that it need not be asked about because they plainly stay so.
	Unchanged []cluster.Ref
	// Waits are the objects, changed or not, that must be ready before the
	// stage after theirs.
	Waits map[Stage][]cluster.Ref
	// Refused is what the dry-run said of the objects that it refuses, by Ref.ID().
	Refused map[string]error
	Left    []Left
	Notes   []string

	objects int // of the manifest
}

// Plan asks the API server what applying objs would do. It changes nothing.
// An object that the dry-run refuses gets an effect without After: the gate on
// dry-runs then reports it together with all other findings.
func Plan(ctx context.Context, r cluster.Reader, objs []*cluster.Object, o Options) (*Planned, error) {
	objs, err := place(ctx, r, objs, o.Namespace)
	if err != nil {
		return nil, err
	}
	p := &Planned{objects: len(objs), Waits: map[Stage][]cluster.Ref{}, Refused: map[string]error{}}
	a, err := applies(ctx, r, objs, o)
	if err != nil {
		return nil, err
	}
	kept := 0
	for _, i := range byStage(objs) {
		stage := StageOf(objs[i])
		if Waits(objs[i]) {
			p.Waits[stage] = append(p.Waits[stage], cluster.RefOf(objs[i]))
		}
		if a.refused[i] != nil {
			p.Refused[cluster.RefOf(objs[i]).ID()] = a.refused[i]
		}
		if a.effects[i] == nil {
			p.Unchanged = append(p.Unchanged, cluster.RefOf(objs[i]))
			if a.moves[i] != nil {
				kept++
			}
			continue
		}
		if a.moves[i] != nil {
			move, err := a.moves[i].effect(a.live[i])
			if err != nil {
				return nil, err
			}
			p.add(stage, move)
			if note := a.moves[i].note(a.effects[i].Ref); note != "" {
				p.Notes = append(p.Notes, note)
			}
		}
		p.add(stage, a.effects[i])
	}
	if kept > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%d objects that stay as they are keep %s as owner of fields until they change", kept, strings.Join(o.Adopt, " or ")))
	}
	if o.Prune {
		if err := p.prune(ctx, r, objs, a.live, o); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *Planned) add(s Stage, e *effect.Effect) {
	p.Effects = append(p.Effects, e)
	p.Stages = append(p.Stages, s)
}

func byStage(objs []*cluster.Object) []int {
	order := make([]int, len(objs))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return StageOf(objs[order[a]]) < StageOf(objs[order[b]]) })
	return order
}

func refsOf(objs []*cluster.Object) []cluster.Ref {
	refs := make([]cluster.Ref, len(objs))
	for i, o := range objs {
		refs[i] = cluster.RefOf(o)
	}
	return refs
}

// place copies objs and gives namespaced ones their namespace.
func place(ctx context.Context, r cluster.Reader, objs []*cluster.Object, namespace string) ([]*cluster.Object, error) {
	if namespace == "" {
		namespace = "default"
	}
	out := make([]*cluster.Object, len(objs))
	for i, o := range objs {
		out[i] = o.DeepCopy()
		namespaced, err := isNamespaced(ctx, r, objs, o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", cluster.RefOf(o), err)
		}
		switch {
		case namespaced && o.GetNamespace() == "":
			out[i].SetNamespace(namespace)
		case !namespaced && o.GetNamespace() != "":
			out[i].SetNamespace("")
		}
	}
	return out, nil
}

// isNamespaced asks the server, or for a kind that the manifest brings along
// its CRD.
func isNamespaced(ctx context.Context, r cluster.Reader, objs []*cluster.Object, o *cluster.Object) (bool, error) {
	res, err := r.ResourceFor(ctx, o.GroupVersionKind())
	if err == nil {
		return res.Namespaced, nil
	}
	if !errors.Is(err, cluster.ErrNoKind) {
		return false, err
	}
	if crd := crdOf(objs, o); crd != nil {
		spec, _ := crd.Object["spec"].(map[string]any)
		return spec["scope"] != "Cluster", nil
	}
	return false, err
}

func crdOf(objs []*cluster.Object, o *cluster.Object) *cluster.Object {
	gvk := o.GroupVersionKind()
	for _, c := range objs {
		if c.GetKind() != "CustomResourceDefinition" {
			continue
		}
		spec, _ := c.Object["spec"].(map[string]any)
		names, _ := spec["names"].(map[string]any)
		if spec["group"] == gvk.Group && names["kind"] == gvk.Kind {
			return c
		}
	}
	return nil
}

func (p *Planned) prune(ctx context.Context, r cluster.Reader, objs, live []*cluster.Object, o Options) error {
	id := identify(objs, live)
	ref, err := inventoryOf(id, o)
	if err != nil {
		return err
	}
	old, err := r.Get(ctx, ref)
	if err != nil && !errors.Is(err, cluster.ErrNotFound) {
		return fmt.Errorf("%s: %w", ref, err)
	}
	if errors.Is(err, cluster.ErrNotFound) {
		old = nil
	}
	gone, left, err := leftovers(ctx, r, id, old)
	if err != nil {
		return err
	}
	p.Left = left
	for _, l := range left {
		p.Notes = append(p.Notes, fmt.Sprintf("%s: left alone: %s", l.Ref, l.Why))
	}
	for _, c := range lostComponents(id, gone) {
		p.Notes = append(p.Notes, fmt.Sprintf("component %s is there and the manifest renders none of it: it will be removed", c))
	}
	for _, g := range gone {
		e := effect.DeleteOf(g, "")
		e.Reviewable, e.Why = true, "an earlier manifest brought it, this one does not"
		p.add(Prune, e)
	}
	return p.inventory(ctx, r, NewInventory(ref, refsOf(objs)), old)
}

// lostComponents: GUIDE §2.1, a component that silently is not rendered any more.
func lostComponents(id *identity, gone []*cluster.Object) []string {
	var out []string
	for _, o := range gone {
		c := o.GetLabels()[labelComponent]
		if c != "" && !id.components[c] && !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	sort.Strings(out)
	return out
}

func (p *Planned) inventory(ctx context.Context, r cluster.Reader, obj, old *cluster.Object) error {
	e, err := effect.ApplyOf(obj, nil)
	if err != nil {
		return err
	}
	e.Found(old)
	e.Why = "records what this manifest brought, for the next prune"
	after, err := r.DryRunApply(ctx, obj, cluster.ApplyOptions{})
	if err == nil {
		e.After = after
	} else if ctx.Err() != nil {
		return err
	}
	if !equal(old, after) {
		p.add(Inventory, e)
	}
	return nil
}

func inventoryOf(id *identity, o Options) (cluster.Ref, error) {
	namespaces := make([]string, 0, len(id.namespaces))
	for ns := range id.namespaces {
		namespaces = append(namespaces, ns)
	}
	sort.Strings(namespaces)
	ns := "default"
	switch {
	case id.namespaces["istio-system"]:
		ns = "istio-system"
	case len(namespaces) > 0:
		ns = namespaces[0]
	}
	name := o.Inventory
	if name == "" {
		if !id.istio {
			return cluster.Ref{}, errors.New("prune needs a name for what belongs together; give inventory = \"NAME\", or prune = False")
		}
		name = "istio"
		revs := make([]string, 0, len(id.revisions))
		for rev := range id.revisions {
			if rev != "default" {
				revs = append(revs, rev)
			}
		}
		sort.Strings(revs)
		if len(revs) > 0 {
			name += "-" + revs[0]
		}
	}
	return InventoryRef(ns, name), nil
}
