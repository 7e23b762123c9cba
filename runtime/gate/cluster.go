package gate

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

var clusterPinned = &Gate{
	Code: ClusterPinned, Name: "cluster-pinned",
	Rationale: "A kubeconfig context can be pointed at another cluster between two commands. What was planned or begun on one cluster must never be finished on another.",
	Source:    "the kube-system namespace's UID is the customary identity of a cluster",
	Before: func(ctx context.Context, r cluster.Reader, run *Run, _ *effect.Effect) ([]Finding, error) {
		if slices.Contains(run.Policy.ProtectedContexts, r.Context()) {
			return block(
				fmt.Sprintf("context %q is protected by the policy", r.Context()),
				"a context that the policy does not protect", ""), nil
		}
		uid, err := run.Seen.uid(ctx, r)
		if err != nil {
			return nil, err
		}
		if uid != run.ClusterUID {
			return block(
				fmt.Sprintf("this cluster is %s, the run began on %s", uid, run.ClusterUID),
				"the cluster that the run began on", "use --context with that cluster's context"), nil
		}
		return nil, nil
	},
}

var dryRun = &Gate{
	Code: DryRun, Name: "dry-run",
	Rationale: "The API server's own dry-run knows admission, quotas, defaulting, validation and field ownership; a client-side dry-run knows none of them.",
	Source:    "Kubernetes API concepts: dry-run; GUIDE §2 rows 6 and 9",
	Before:    judgeDryRun,
}

func judgeDryRun(ctx context.Context, r cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
	if run.Forecast && needsEarlier(run.Earlier, e) {
		return []Finding{{Verdict: Pass, Problem: "the dry-run waits for its kind or namespace, which this call makes first"}}, nil
	}
	if wrong := e.Misdirected(); wrong != "" {
		return block("the request is not for the object that it was planned for: "+wrong, "a body for "+e.Ref.String(), ""), nil
	}
	if run.Forecast && e.After != nil {
		return nil, nil // the plan has the server's answer already; live it is asked again
	}
	_, err := Forecast(ctx, r, e)
	var conflict *cluster.ConflictError
	switch {
	case err == nil:
		return nil, nil
	case errors.As(err, &conflict):
		var out []Finding
		for _, f := range conflict.Fields {
			out = append(out, Finding{
				Verdict: Block,
				Problem: fmt.Sprintf("field %s is owned by %s", f.Field, f.Manager),
				Expect:  "fields that rutter owns or may adopt",
				Next:    fmt.Sprintf("kube.apply(…, adopt = [%q]) moves that manager's fields to rutter, once reviewed", f.Manager),
			})
		}
		return out, nil
	case run.Forecast && errors.Is(err, cluster.ErrDisruption):
		// Whether a budget bears it is for RUT013, which knows that earlier
		// effects of the call are over by then.
		return nil, nil
	case errors.Is(err, cluster.ErrUnreachable), errors.Is(err, cluster.ErrUnknown), errors.Is(err, cluster.ErrThrottled), ctx.Err() != nil:
		return nil, err
	}
	problem := "the API server's dry-run refuses it: " + e.Redact(err.Error())
	if right := cluster.MissingRight(err); right != "" {
		return block(problem, "the right to "+right, cluster.RightsAdvice), nil
	}
	return block(problem, "an object that the server admits", ""), nil
}

// needsEarlier reports whether e can't be tried before effects that come
// earlier in the same call: its kind or its namespace does not exist yet.
func needsEarlier(earlier []*effect.Effect, e *effect.Effect) bool {
	for _, p := range earlier {
		if p.Verb == effect.Delete {
			continue
		}
		if p.Ref.Kind == "Namespace" && p.Ref.Group == "" && p.Ref.Name == e.Ref.Namespace && p.Absent {
			return true
		}
		if p.Class == effect.CRD && p.Absent && servesKind(p, e.Ref) {
			return true
		}
	}
	return false
}

func servesKind(crd *effect.Effect, ref cluster.Ref) bool {
	o := crd.After
	if o == nil {
		return false
	}
	spec, _ := o.Object["spec"].(map[string]any)
	names, _ := spec["names"].(map[string]any)
	return spec["group"] == ref.Group && names["kind"] == ref.Kind
}

// Forecast sends e, with its marks, with dryRun=All and returns the object as it would be (nil
// for deletions), or the server's refusal. It changes nothing.
func Forecast(ctx context.Context, r cluster.Reader, e *effect.Effect) (*cluster.Object, error) {
	opts := cluster.WriteOptions{UID: types.UID(e.UID), ResourceVersion: e.ResourceVersion, Propagation: e.Propagation}
	switch e.Verb {
	case effect.Apply, effect.Create, effect.Replace:
		obj, err := e.MarkedObject()
		if err != nil {
			return nil, err
		}
		switch e.Verb {
		case effect.Create:
			return r.DryRunCreate(ctx, obj, opts)
		case effect.Replace:
			return r.DryRunReplace(ctx, obj, opts)
		}
		return DryRunApply(ctx, r, obj, e.Adopt)
	case effect.Patch:
		body, err := e.MarkedPatch()
		if err != nil {
			return nil, err
		}
		return r.DryRunPatch(ctx, e.Ref, types.PatchType(e.PatchType), body, opts)
	case effect.Delete:
		return nil, r.DryRunDelete(ctx, e.Ref, opts)
	case effect.Evict:
		return nil, r.DryRunEvict(ctx, e.Ref, opts)
	}
	return nil, fmt.Errorf("%s: unknown verb %q", e.Ref, e.Verb)
}

// DryRunApply asks the server what a server-side apply of obj would give when
// the fields of the managers in adopt are taken over, and of nobody else: a
// conflict with any other manager is the error (ruling 2). What rutter itself
// patched before is its own.
func DryRunApply(ctx context.Context, r cluster.Reader, obj *cluster.Object, adopt []string) (*cluster.Object, error) {
	got, err := r.DryRunApply(ctx, obj, cluster.ApplyOptions{})
	var conflict *cluster.ConflictError
	if len(adopt) == 0 || !errors.As(err, &conflict) {
		return got, err
	}
	var foreign []cluster.FieldConflict
	for _, f := range conflict.Fields {
		if f.Manager != cluster.FieldManager && !slices.Contains(adopt, f.Manager) {
			foreign = append(foreign, f)
		}
	}
	if len(foreign) > 0 {
		return nil, &cluster.ConflictError{Ref: conflict.Ref, Fields: foreign}
	}
	return r.DryRunApply(ctx, obj, cluster.ApplyOptions{Force: true})
}

var scope = &Gate{
	Code: Scope, Name: "scope",
	Rationale: "A reviewer of a runbook reads what it says it touches. What it does must stay inside that, and inside what the organization allows.",
	Source:    "DESIGN §3; judged on the effective API request, not on the script",
	Before: func(_ context.Context, _ cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
		var out []Finding
		what := string(e.Verb) // a finding names its object
		if !run.Scope.Match(e) {
			out = append(out, block(what+" is outside the runbook's declared scope", run.Scope.String(), "widen runbook(scope = …) and have it reviewed")...)
		}
		for _, d := range run.Policy.Deny {
			if d.Match(e) {
				out = append(out, block(what+" is denied by the policy", "a request that no deny rule matches", "")...)
			}
		}
		if len(run.Policy.Allow) > 0 && !slices.ContainsFunc(run.Policy.Allow, func(r Rules) bool { return r.Match(e) }) {
			out = append(out, block(what+" is not allowed by the policy", "a request that an allow rule matches", "")...)
		}
		return out, nil
	},
}

func block(problem, expect, next string) []Finding {
	return []Finding{{Verdict: Block, Problem: problem, Expect: expect, Next: next}}
}
