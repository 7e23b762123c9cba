package kube

import (
	"time"

	"go.starlark.net/starlark"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/manifest"
)

type patchArgs struct {
	Ref       starlark.Value `star:"ref,positional" doc:"object to patch"`
	Patch     any            `star:"patch,positional" doc:"the patch: a dict, or for type json a list of operations"`
	Type      string         `star:"type" default:"merge" enum:"merge,strategic,json" doc:"how the patch is merged"`
	Namespace string         `star:"namespace" doc:"namespace of a namespaced object"`
}

func patchSpec() *builtin.Spec {
	return builtin.NewWrite(builtin.WriteDef[patchArgs]{
		Name:    "kube.patch",
		Doc:     "Patches one object. A patch that changes nothing makes no effect.",
		Example: `step("two replicas", kube.patch, "deploy/istiod", {"spec": {"replicas": 2}}, namespace = "istio-system")`,
		Returns: "bool: whether anything was changed",
		Effects: effect.ClassesOf(effect.Patch),
		Plan: func(c *builtin.Call, a *patchArgs) (*effect.Plan, error) {
			ref, err := resolve(c.Ctx, c.Reader, a.Ref, a.Namespace)
			if err != nil {
				return nil, err
			}
			return planPatch(c, ref, patchType(a.Type), a.Patch, "")
		},
		Drive: driveOne[patchArgs],
	})
}

func patchType(name string) types.PatchType {
	switch name {
	case "json":
		return types.JSONPatchType
	case "strategic":
		return types.StrategicMergePatchType
	}
	return types.MergePatchType
}

func planPatch(c *builtin.Call, ref cluster.Ref, pt types.PatchType, body any, why string) (*effect.Plan, error) {
	live, err := c.Reader.Get(c.Ctx, ref)
	if err != nil {
		return nil, err
	}
	e, err := effect.PatchOf(ref, string(pt), body)
	if err != nil {
		return nil, err
	}
	e.Found(live)
	e.Why = why
	// A refusal is left to the gate on dry-runs, which reports it with all
	// other findings; then there is no forecast of what comes after.
	after, err := c.Reader.DryRunPatch(c.Ctx, ref, pt, e.Body, cluster.WriteOptions{UID: live.GetUID()})
	if err == nil {
		e.After = after
		same, err := sameObject(live, after)
		if err != nil {
			return nil, err
		}
		if same {
			return &effect.Plan{Notes: []string{ref.String() + ": is already so"}}, nil
		}
	} else if c.Ctx.Err() != nil {
		return nil, err
	}
	return &effect.Plan{Effects: []*effect.Effect{e}}, nil
}

func sameObject(a, b *cluster.Object) (bool, error) {
	x, err := cluster.Digest(a)
	if err != nil {
		return false, err
	}
	y, err := cluster.Digest(b)
	return x == y, err
}

// driveOne submits the effects in order and returns whether there were any.
func driveOne[A any](c *builtin.Call, s effect.Submitter, _ *A, p *effect.Plan) (any, error) {
	for _, e := range p.Effects {
		if _, err := s.Submit(c.Ctx, e); err != nil {
			return nil, err
		}
	}
	return len(p.Effects) > 0, nil
}

type deleteArgs struct {
	Ref         starlark.Value `star:"ref,positional" doc:"object to delete"`
	Namespace   string         `star:"namespace" doc:"namespace of a namespaced object"`
	Propagation string         `star:"propagation" default:"Background" enum:"Background,Foreground,Orphan" doc:"what becomes of the objects that it owns"`
	Wait        time.Duration  `star:"wait" default:"2m" doc:"how long to wait until it is gone; \"0s\" does not wait"`
}

func deleteSpec() *builtin.Spec {
	return builtin.NewWrite(builtin.WriteDef[deleteArgs]{
		Name:    "kube.delete",
		Doc:     "Deletes one object, the very one that was planned, and waits until it is gone. One that does not exist makes no effect.",
		Example: `step("drop", kube.delete, "configmap/old", namespace = "istio-system")`,
		Returns: "bool: whether anything was deleted",
		Effects: effect.ClassesOf(effect.Delete),
		Plan: func(c *builtin.Call, a *deleteArgs) (*effect.Plan, error) {
			ref, err := resolve(c.Ctx, c.Reader, a.Ref, a.Namespace)
			if err != nil {
				return nil, err
			}
			live, err := optional(c, ref)
			if err != nil {
				return nil, err
			}
			if live == nil {
				return &effect.Plan{Notes: []string{ref.String() + ": does not exist"}}, nil
			}
			return &effect.Plan{Effects: []*effect.Effect{effect.DeleteOf(live, a.Propagation)}}, nil
		},
		Drive: func(c *builtin.Call, s effect.Submitter, a *deleteArgs, p *effect.Plan) (any, error) {
			if _, err := driveOne(c, s, a, p); err != nil {
				return nil, err
			}
			for _, e := range p.Effects {
				if err := manifest.AwaitGone(c, s, e, a.Wait); err != nil {
					return nil, err
				}
			}
			return len(p.Effects) > 0, nil
		},
	})
}

type evictArgs struct {
	Pod       string `star:"pod,positional" doc:"name of the pod"`
	Namespace string `star:"namespace,required" doc:"its namespace"`
}

func evictSpec() *builtin.Spec {
	return builtin.NewWrite(builtin.WriteDef[evictArgs]{
		Name:    "kube.evict",
		Doc:     "Evicts one pod, which a PodDisruptionBudget may refuse.",
		Example: `step("move it", kube.evict, "db-0", namespace = "shop")`,
		Returns: "bool: whether it was evicted",
		Effects: []effect.Class{effect.Eviction},
		Plan: func(c *builtin.Call, a *evictArgs) (*effect.Plan, error) {
			ref := cluster.Ref{Version: "v1", Kind: "Pod", Namespace: a.Namespace, Name: a.Pod}
			live, err := c.Reader.Get(c.Ctx, ref)
			if err != nil {
				return nil, err
			}
			e := &effect.Effect{
				Verb: effect.Evict, Ref: ref, Before: live, UID: string(live.GetUID()),
				Undo: effect.Undo{Kind: effect.UndoNone, Reason: "its controller makes another pod"},
			}
			return &effect.Plan{Effects: []*effect.Effect{e}}, nil
		},
		Drive: driveOne[evictArgs],
	})
}
