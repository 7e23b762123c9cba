package gate

import (
	"context"
	"fmt"
	"path"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/mesh"
)

var disruption = &Gate{
	Code: Disruption, Name: "disruption",
	Rationale: "A rolling restart does not go through eviction, so the API server does not hold it to any disruption budget: whoever restarts must. What a rollout takes down follows from its own surge and unavailable, not from the number of replicas alone.",
	Source:    "kubernetes#89820; DESIGN §8 ruling 7; GUIDE §2 row 12 and §4 rows 9 (istio#59959), 10 (istio#53883) and 17",
	Before: func(ctx context.Context, r cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
		if e.Class == effect.Tag || e.Class == effect.ControlPlane {
			return rolledAlong(world{ctx, r, run}, e)
		}
		out := waveSize(run, e)
		if e.Before == nil {
			return out, nil
		}
		var found []Finding
		var err error
		if e.Class == effect.Eviction {
			found, err = judgePod(ctx, r, run, e)
		} else {
			found, err = judgeRollout(ctx, r, run, e)
		}
		return append(out, found...), err
	},
}

// waveSize holds the forecast to the policy's blast radius.
func waveSize(run *Run, e *effect.Effect) []Finding {
	if !run.Forecast || run.Policy.MaxWave == 0 || e.Wave == "" {
		return nil
	}
	n := 1
	for _, p := range run.Earlier {
		if p.Wave == e.Wave {
			n++
		}
	}
	if n != run.Policy.MaxWave+1 { // said once, by the first that is too many
		return nil
	}
	return block(fmt.Sprintf("wave %q restarts more than %d workloads", e.Wave, run.Policy.MaxWave),
		fmt.Sprintf("at most %d, by the policy", run.Policy.MaxWave), "make the waves smaller")
}

func judgeRollout(ctx context.Context, r cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
	if e.Verb == effect.Delete {
		return deleted(run, e), nil
	}
	if e.Class == effect.Gateway && !rollsOut(e) {
		return nil, nil
	}
	rollout, err := mesh.RolloutOf(e.Before)
	if err != nil {
		return nil, err
	}
	if rollout.Manual || rollout.Replicas == 0 {
		return nil, nil // nothing goes down until pods are deleted, and those are effects of their own
	}
	var out []Finding
	// A DaemonSet replaces the pod of one node after the other; that its pod is
	// away for a moment is what it is.
	if rollout.Unavailable >= rollout.Replicas && e.Ref.Kind != "DaemonSet" && !leave(run.Policy, e.Ref) {
		out = append(out, Finding{
			Verdict: Ask,
			Problem: fmt.Sprintf("its rollout takes all of its %d replicas down at once", rollout.Replicas),
			Expect:  "a strategy that keeps one serving (maxSurge, or more replicas), or leave by policy or operator",
			Next:    fmt.Sprintf("singleReplicaLeave: [%s/%s] in the policy, if that may be", e.Ref.Namespace, e.Ref.Name),
		})
	}
	budgets, err := run.Seen.budgetsIn(ctx, r, e.Ref.Namespace)
	if err != nil {
		return nil, err
	}
	for _, b := range budgets {
		if !b.Matches(e.Ref.Namespace, mesh.PodLabels(e.Before)) {
			continue
		}
		out = append(out, judgeBudget(run, b, rollout.Unavailable+alongside(run, b))...)
	}
	return out, nil
}

// deleted: a gateway that goes away takes its traffic with it.
func deleted(run *Run, e *effect.Effect) []Finding {
	if leave(run.Policy, e.Ref) {
		return nil
	}
	return []Finding{{Verdict: Ask, Problem: "its deletion takes all of its pods down", Expect: "leave by policy or operator"}}
}

// judgeBudget asks whether the budget bears that many of its pods down. The
// forecast counts on all of its pods being well; live, on those that are.
func judgeBudget(run *Run, b mesh.Budget, down int) []Finding {
	room, when := b.Allowed(), "now"
	if run.Forecast {
		room, when = max(0, b.Expected-b.Needed), "with all its pods healthy"
	}
	if down <= room {
		return nil
	}
	return block(fmt.Sprintf("it would take %d pods down, and %s bears %d %s (%d of %d must stay)", down, b.Ref, room, when, b.Needed, b.Expected),
		"a rollout within the budget", "add replicas, or let the rollout surge instead (maxUnavailable: 0)")
}

// alongside counts the pods of the budget that effects made at the same time
// take down: each alone may fit where all together don't.
func alongside(run *Run, b mesh.Budget) int {
	if run.Forecast {
		return 0 // a call makes its waves one after the other
	}
	n := 0
	for _, p := range run.Earlier {
		switch {
		case p.Before == nil:
		case p.Class == effect.Eviction:
			if b.Matches(p.Ref.Namespace, p.Before.GetLabels()) {
				n++
			}
		case p.Class == effect.Restart, p.Class == effect.Gateway && rollsOut(p):
			rollout, err := mesh.RolloutOf(p.Before)
			if err == nil && !rollout.Manual && b.Matches(p.Ref.Namespace, mesh.PodLabels(p.Before)) {
				n += rollout.Unavailable
			}
		}
	}
	return n
}

// rollsOut reports whether an applied gateway gets new pods.
func rollsOut(e *effect.Effect) bool {
	if e.After == nil {
		return true
	}
	return e.Before.GetGeneration() != e.After.GetGeneration()
}

func judgePod(ctx context.Context, r cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
	budgets, err := run.Seen.budgetsIn(ctx, r, e.Ref.Namespace)
	if err != nil {
		return nil, err
	}
	var out []Finding
	for _, b := range budgets {
		if b.Matches(e.Ref.Namespace, e.Before.GetLabels()) {
			out = append(out, judgeBudget(run, b, 1+alongside(run, b))...)
		}
	}
	owner := metav1.GetControllerOf(e.Before)
	if owner == nil && !leave(run.Policy, e.Ref) {
		out = append(out, Finding{Verdict: Ask, Problem: "it is a pod without an owner: nobody brings it back", Expect: "leave by policy or operator"})
	}
	return out, nil
}

// leave reports whether the policy lets the workload go down.
func leave(p *Policy, ref cluster.Ref) bool {
	for _, pattern := range p.Leave {
		if ok, err := path.Match(pattern, ref.Namespace+"/"+ref.Name); err == nil && ok {
			return true
		}
	}
	return false
}
