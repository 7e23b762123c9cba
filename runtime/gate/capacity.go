package gate

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/mesh"
	"rutter.dev/rutter/runtime/quota"
)

var quotaKind = schema.GroupVersionKind{Version: "v1", Kind: "ResourceQuota"}

var capacity = &Gate{
	Code: Capacity, Name: "capacity",
	Rationale: "A rollout that keeps all its pods serving needs room for one more. Where no node and no quota has it, the new pod waits for ever, and the upgrade stands still half-way.",
	Source:    "Kubernetes: rolling update maxSurge; scheduler fit by requests (component-helpers/resource); ResourceQuota; GUIDE §1 row 1d",
	Before:    judgeCapacity,
}

// judgeCapacity asks whether the pods that an effect adds find room: those by
// which a rollout surges, and those of a workload that is new or grows.
func judgeCapacity(ctx context.Context, r cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
	need, err := needed(e)
	if err != nil || need == nil {
		return nil, err
	}
	rooms, err := run.Rooms.now(ctx, r, run)
	if err != nil {
		return nil, fmt.Errorf("free resources: %w", err)
	}
	shape, err := shapeOf(need.template, rooms.running(e.Ref))
	if err != nil {
		return nil, fmt.Errorf("%s: pod template: %w", e.Ref, err)
	}
	fit, why := rooms.fit(shape, need.all(), !run.Forecast)
	out := need.findings(fit, why)
	byQuota, why, err := withinQuotas(ctx, r, run, e.Ref.Namespace, need, shape)
	if err != nil {
		return nil, err
	}
	return append(out, need.findings(byQuota, why)...), nil
}

// need is the pods that an effect adds.
type need struct {
	template map[string]any
	more     int // that must all find room: a workload that is new or grows
	surge    int // of a rollout, of which one is enough for it to go on
	frees    bool
}

func (n *need) all() int { return n.more + n.surge }

// needed is nil for an effect that adds no pods.
func needed(e *effect.Effect) (*need, error) {
	after := e.Intended()
	if after == nil {
		after = e.Before // a restart without a forecast: its pods stay as they are
	}
	if e.Verb == effect.Delete || e.OwnersOnly() || after == nil || !hasPods(e.Ref.Kind) || e.Ref.Kind == "DaemonSet" {
		return nil, nil // a DaemonSet's pods have the places of those that they replace
	}
	template, _, err := unstructured.NestedMap(after.Object, "spec", "template")
	if err != nil || template == nil {
		return nil, err
	}
	n := &need{template: template}
	if e.Before == nil {
		n.more = int(replicas(after))
	} else {
		n.more = max(0, int(replicas(after)-replicas(e.Before)))
		if e.After == nil || rollsOut(e) {
			rollout, err := mesh.RolloutOf(after)
			if err != nil {
				return nil, err
			}
			if !rollout.Manual && rollout.Replicas > 0 {
				n.surge, n.frees = rollout.Surge, rollout.Unavailable > 0
			}
		}
	}
	if n.all() == 0 {
		return nil, nil
	}
	return n, nil
}

// findings judges that only fit of the pods find room, and why the next does not.
func (n *need) findings(fit int, why string) []Finding {
	const next = "free some room, add nodes or raise the quota; kubectl describe nodes shows what is requested"
	switch {
	case fit >= n.all():
		return nil
	case fit < n.more:
		return block(fmt.Sprintf("only %d of the %d pods that it adds find room: %s", fit, n.more, why), "room for all of them", next)
	case fit == n.more && !n.frees:
		return block(fmt.Sprintf("its rollout adds a pod before it takes one away, and there is no room for one: %s", why), "room for one pod more", next+"; or let it go down by one (maxUnavailable)")
	case fit == n.more:
		return []Finding{{Verdict: Warn, Problem: fmt.Sprintf("there is no room for the pods by which its rollout surges: it goes on only as old pods go (%s)", why)}}
	}
	return []Finding{{Verdict: Warn, Problem: fmt.Sprintf("only %d of the %d pods by which its rollout surges find room: it takes longer (%s)", fit-n.more, n.surge, why)}}
}

// withinQuotas counts how many of the pods the namespace's quotas bear.
func withinQuotas(ctx context.Context, r cluster.Reader, run *Run, namespace string, n *need, s *shape) (int, string, error) {
	found, err := run.Seen.objects(ctx, r, quotaKind, cluster.ListOptions{Namespace: namespace})
	if err != nil {
		return 0, "", fmt.Errorf("quotas of %s: %w", namespace, err)
	}
	fit, reason := n.all(), ""
	pods := schema.GroupResource{Resource: "pods"}
	for _, o := range found {
		q := &corev1.ResourceQuota{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, q); err != nil {
			return 0, "", fmt.Errorf("%s: %w", cluster.RefOf(o), err)
		}
		if !quota.Applies(q, pods, s.sample) {
			continue
		}
		if q.Status.Used == nil {
			return 0, "", fmt.Errorf("%s: what is used of it is not known yet", cluster.RefOf(o))
		}
		used := q.Status.Used.DeepCopy()
		for i := range fit {
			if err := quota.Check(q, used, pods, s.sample, nil); err != nil {
				fit, reason = i, err.Error()
				break
			}
			for name, more := range quota.Usage(pods, s.sample) {
				sum := used[name]
				sum.Add(more)
				used[name] = sum
			}
		}
	}
	return fit, reason, nil
}

// selectorKey names the workload whose pods a pod belongs to, so that the pods
// of a Deployment, which a ReplicaSet owns, are found by it.
func selectorKey(pod *cluster.Object) string {
	for _, o := range pod.GetOwnerReferences() {
		if o.Controller == nil || !*o.Controller {
			continue
		}
		name := o.Name
		if hash := pod.GetLabels()["pod-template-hash"]; o.Kind == "ReplicaSet" && hash != "" {
			name = strings.TrimSuffix(name, "-"+hash)
		}
		return pod.GetNamespace() + "/" + name
	}
	return ""
}
