package impact

import (
	"context"
	"fmt"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
)

// definition asks the gate on CustomResourceDefinitions what a change of one does
// to the objects that are stored: no pod is made anew for them, but that is its
// blast radius.
func definition(ctx context.Context, c *cluster.Client, ch *Change, was *cluster.Object) ([]gate.Finding, error) {
	if ch.Ref.Kind != "CustomResourceDefinition" || was == nil {
		return nil, nil
	}
	is, err := ch.Make(ctx, c, true)
	if err != nil {
		return nil, nil //nolint:nilerr // the change itself is refused for it, and says so
	}
	e := &effect.Effect{Verb: effect.Apply, Ref: ch.Ref, After: is}
	if is == nil {
		e.Verb = effect.Delete
	}
	e.Found(was)
	for _, g := range gate.All() {
		if g.Code != gate.CRDSafe {
			continue
		}
		found, err := g.Before(ctx, c, &gate.Run{}, e)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ch.Ref, err)
		}
		for i := range found {
			found[i].Code, found[i].Ref = g.Code, ch.Ref
		}
		return found, nil
	}
	return nil, nil
}
