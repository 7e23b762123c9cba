package manifest

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/mesh"
)

// parallel bounds the requests that one plan has in flight; the client bounds
// those of the whole process.
const parallel = 16

// there reads ref; what does not exist, or whose kind does not, is nil.
func there(ctx context.Context, r cluster.Reader, ref cluster.Ref) (*cluster.Object, error) {
	o, err := r.Get(ctx, ref)
	switch {
	case errors.Is(err, cluster.ErrNotFound), errors.Is(err, cluster.ErrNoKind):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return o, nil
}

// getAll reads refs; what does not exist, or whose kind does not, is nil.
func getAll(ctx context.Context, r cluster.Reader, refs []cluster.Ref) ([]*cluster.Object, error) {
	out := make([]*cluster.Object, len(refs))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i, ref := range refs {
		g.Go(func() (err error) {
			out[i], err = there(ctx, r, ref)
			return err
		})
	}
	return out, g.Wait()
}

// applied is what applying objects would do, each at its place.
type applied struct {
	live    []*cluster.Object // nil for what does not exist
	effects []*effect.Effect  // nil for those that stay as they are
	refused []error           // what the dry-run said of those that it refuses
	moves   []*adoption       // what adoption does; nil where nothing moves
	known   func(*effect.Effect, error) error
}

// applies reads each object as it is, and asks what an apply would make of it. Each
// goes its way alone: while one is read, another is asked about.
func applies(ctx context.Context, r cluster.Reader, objs []*cluster.Object, o Options) (*applied, error) {
	n := len(objs)
	a := &applied{live: make([]*cluster.Object, n), effects: make([]*effect.Effect, n), refused: make([]error, n), moves: make([]*adoption, n), known: o.Known}
	missing, err := madeHere(ctx, r, objs)
	if err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i, obj := range objs {
		g.Go(func() (err error) {
			if a.live[i], err = there(ctx, r, cluster.RefOf(obj)); err != nil {
				return err
			}
			if err := mesh.Yield(obj, a.live[i]); err != nil {
				return err
			}
			return a.apply(ctx, r, i, obj, missing[obj.GetNamespace()], o)
		})
	}
	return a, g.Wait()
}

// apply fills in what is known of the object at i, which has been read.
func (a *applied) apply(ctx context.Context, r cluster.Reader, i int, obj *cluster.Object, homeless bool, o Options) error {
	live := a.live[i]
	e, err := effect.ApplyOf(obj, o.Adopt)
	if err != nil {
		return err
	}
	e.Found(live)
	e.Reviewable, e.Why = true, o.Why
	if _, err := r.ResourceFor(ctx, obj.GroupVersionKind()); errors.Is(err, cluster.ErrNoKind) || homeless {
		// Its kind or namespace comes with this very manifest: the
		// server can't be asked yet, so the object itself is the forecast.
		e.After = cluster.Normalize(obj, cluster.NormalizeOptions{})
		return a.changes(i, e)
	}
	same, err := settled(obj, live, o.Adopt)
	if err != nil {
		return err
	}
	if same {
		a.moves[i], err = keeping(live, o.Adopt)
		return err
	}
	after, err := forecast(ctx, r, obj, live, o.Adopt)
	if err != nil && ctx.Err() == nil && !errors.Is(err, cluster.ErrUnreachable) {
		// Asked once more: what is refused but in passing (a token that
		// was just renewed, a role that came late) would leave the plan
		// without what this answer decides, such as whose fields move.
		after, err = gate.DryRunApply(ctx, r, obj, o.Adopt)
	}
	switch {
	case err == nil:
		if a.moves[i], err = adopting(ctx, r, live, after, o.Adopt); err != nil {
			return err
		}
		if a.moves[i] != nil {
			after = a.moves[i].after
		}
		e.After = after
	case ctx.Err() != nil || errors.Is(err, cluster.ErrUnreachable):
		return fmt.Errorf("%s: dry-run: %w", e.Ref, err)
	default:
		a.refused[i] = err
	}
	if equal(live, after) {
		return nil
	}
	return a.changes(i, e)
}

// changes notes the effect on the object at i, and says so to who waits for it.
func (a *applied) changes(i int, e *effect.Effect) error {
	a.effects[i] = e
	if a.known == nil {
		return nil
	}
	return a.known(e, a.refused[i])
}

// madeHere are the namespaces that do not exist and that objs bring.
func madeHere(ctx context.Context, r cluster.Reader, objs []*cluster.Object) (map[string]bool, error) {
	out := map[string]bool{}
	for _, obj := range objs {
		if obj.GetKind() != "Namespace" {
			continue
		}
		live, err := there(ctx, r, cluster.RefOf(obj))
		if err != nil {
			return nil, err
		}
		out[obj.GetName()] = live == nil
	}
	return out, nil
}

// equal reports whether an apply changes nothing.
func equal(live, after *cluster.Object) bool {
	return live != nil && after != nil && cluster.Same(live, after)
}
