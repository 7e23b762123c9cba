package impact

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/plain"
)

// Apply sets the fields of an object, as kubectl apply --server-side
// --force-conflicts does.
func Apply(o *cluster.Object) Change {
	ref := cluster.RefOf(o)
	return Change{Text: "apply " + ref.String(), Ref: ref, Make: func(ctx context.Context, w cluster.Writer, dry bool) (*cluster.Object, error) {
		return w.Apply(ctx, stripped(o), cluster.ApplyOptions{Force: true, DryRun: dry})
	}}
}

// Replace puts an object in the place of the one that is there, as kubectl replace
// does: what it does not say goes. Whichever version is there is replaced.
func Replace(o *cluster.Object) Change {
	ref := cluster.RefOf(o)
	return Change{Text: "replace " + ref.String(), Ref: ref, Make: func(ctx context.Context, w cluster.Writer, dry bool) (*cluster.Object, error) {
		was, err := w.Get(ctx, ref)
		if err != nil {
			return nil, err
		}
		o := stripped(o)
		o.SetResourceVersion(was.GetResourceVersion())
		return w.Replace(ctx, o, cluster.WriteOptions{DryRun: dry})
	}}
}

// Delete deletes an object, as kubectl delete does.
func Delete(ref cluster.Ref) Change {
	return Change{Text: "delete " + ref.String(), Ref: ref, Make: func(ctx context.Context, w cluster.Writer, dry bool) (*cluster.Object, error) {
		return nil, w.Delete(ctx, ref, cluster.WriteOptions{DryRun: dry})
	}}
}

// Label sets labels of an object; a nil value takes one away.
func Label(ref cluster.Ref, labels map[string]any) (Change, error) {
	body, err := plain.Encode(map[string]any{"metadata": map[string]any{"labels": labels}})
	if err != nil {
		return Change{}, fmt.Errorf("labels of %s: %w", ref, err)
	}
	return patch("label "+ref.String(), ref, types.MergePatchType, body), nil
}

func patch(text string, ref cluster.Ref, pt types.PatchType, body []byte) Change {
	return Change{Text: text, Ref: ref, Make: func(ctx context.Context, w cluster.Writer, dry bool) (*cluster.Object, error) {
		return w.Patch(ctx, ref, pt, body, cluster.WriteOptions{DryRun: dry})
	}}
}

// Effect makes what an effect of a plan would change.
func Effect(e *effect.Effect) (Change, error) {
	switch e.Verb {
	case effect.Patch:
		return patch(string(e.Verb)+" "+e.Ref.String(), e.Ref, types.PatchType(e.PatchType), e.Body), nil
	case effect.Delete:
		return Delete(e.Ref), nil
	case effect.Apply, effect.Create:
		o, err := cluster.DecodeObject(e.Body)
		if err != nil {
			return Change{}, fmt.Errorf("%s: %w", e.Ref, err)
		}
		return Apply(o), nil
	}
	return Change{}, fmt.Errorf("%s: %s is no change of configuration", e.Ref, e.Verb)
}

// stripped is an object without what only the server writes, as a file has it that
// came from kubectl get.
func stripped(o *cluster.Object) *cluster.Object {
	out := o.DeepCopy()
	out.SetManagedFields(nil)
	out.SetResourceVersion("")
	out.SetUID("")
	out.SetGeneration(0)
	if md, ok := out.Object["metadata"].(map[string]any); ok {
		delete(md, "creationTimestamp")
	}
	delete(out.Object, "status")
	return out
}
