package gate

import (
	"fmt"
	"slices"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/mesh"
)

// rolledAlong judges the gateways and waypoints of the Gateway API that an effect
// rolls without a request of its own: istiod writes their Deployments, and writes
// all of them anew, at once, as soon as another istiod or another version of it is
// in charge (istio/istio#59959, #53883). It is said before the first write; a
// rollback, which rolls them back, is told and not held.
func rolledAlong(w world, e *effect.Effect) ([]Finding, error) {
	if !w.run.Forecast || e.OwnersOnly() {
		return nil, nil
	}
	names, err := takenOver(w, e)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	managed, err := mesh.ManagedGateways(w.ctx, w.r)
	if err != nil {
		return nil, fmt.Errorf("gateways that roll with it: %w", err)
	}
	var out []Finding
	n := 0
	for _, name := range names {
		for _, g := range managed[name] {
			if g.Workload.Name == "" {
				continue
			}
			n++
			found, err := rollsBadly(w, g.Workload)
			if err != nil {
				return nil, err
			}
			out = append(out, found...)
		}
	}
	if most := w.run.Policy.MaxWave; most > 0 && n > most {
		out = append(out, block(fmt.Sprintf("%d gateways of the Gateway API roll at once with it", n), fmt.Sprintf("at most %d, by the policy", most),
			"give them tags of their own, by the label istio.io/rev, and move these one after the other")...)
	}
	if w.run.Rollback {
		for i := range out {
			out[i].Verdict = min(out[i].Verdict, Warn)
		}
	}
	return out, nil
}

// takenOver are the names, of revisions and tags, that come to mean another
// istiod by an effect, or another version of it.
func takenOver(w world, e *effect.Effect) ([]string, error) {
	if e.Before == nil || e.Intended() == nil {
		return nil, nil // what is new is in charge of nothing yet; what goes is for RUT011
	}
	was, now := e.Before.GetLabels(), e.Intended().GetLabels()
	if e.Class == effect.Tag {
		if e.Ref.Kind != mutatingKind.Kind || was[mesh.LabelRev] == now[mesh.LabelRev] {
			return nil, nil
		}
		return []string{was[mesh.LabelTag]}, nil
	}
	if !brings(e) || discoveryImage(e.Before) == discoveryImage(e.Intended()) {
		return nil, nil
	}
	revision := now[mesh.LabelRev]
	if revision == "" {
		revision = mesh.DefaultRevision
	}
	ins, err := w.injectors("")
	if err != nil {
		return nil, err
	}
	names := []string{revision}
	for _, in := range ins {
		if in.Revision == revision && in.Tag != "" && !slices.Contains(names, in.Tag) {
			names = append(names, in.Tag)
		}
	}
	return names, nil
}

// rollsBadly judges the rollout of a gateway's Deployment.
func rollsBadly(w world, ref cluster.Ref) ([]Finding, error) {
	o, err := w.get(ref)
	if err != nil || o == nil {
		return nil, err
	}
	rollout, err := mesh.RolloutOf(o)
	if err != nil || rollout.Replicas == 0 {
		return nil, err
	}
	var out []Finding
	if rollout.Unavailable >= rollout.Replicas && !leave(w.run.Policy, ref) {
		out = append(out, Finding{
			Verdict: Ask,
			Problem: fmt.Sprintf("istiod rolls it at once, and its rollout takes all of its %d replicas down", rollout.Replicas),
			Expect:  "a strategy that keeps one serving (maxSurge, or more replicas), or leave by policy or operator",
			Next:    "parametersRef of its Gateway sets replicas and strategy; a tag of its own decides when it rolls",
		})
	}
	budgets, err := w.run.Seen.budgetsIn(w.ctx, w.r, ref.Namespace)
	if err != nil {
		return nil, err
	}
	for _, b := range budgets {
		if b.Matches(ref.Namespace, mesh.PodLabels(o)) {
			out = append(out, judgeBudget(w.run, b, rollout.Unavailable)...)
		}
	}
	for i := range out {
		out[i].Ref = ref
	}
	return out, nil
}
