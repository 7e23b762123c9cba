package gate

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/mesh"
)

var webhookSafe = &Gate{
	Code: WebhookSafe, Name: "webhook-safe",
	Rationale: "While nobody answers a webhook that fails closed, the API server refuses everything that it covers: no pod starts in an injected namespace, and no configuration can be changed, not even to mend it. Two injection webhooks that select the same pod inject it twice.",
	Source:    "Kubernetes: dynamic admission control, failurePolicy; Istio IST0139 (istioctl refuses a tag whose webhook overlaps); GUIDE §4 rows 1 (istio#28880, #37512), 2 (#40134) and 3 (#43932, #34562)",
	Before: func(ctx context.Context, r cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
		w := world{ctx, r, run}
		if e.OwnersOnly() {
			return nil, nil
		}
		out, err := baseline(w, e)
		if err != nil {
			return nil, err
		}
		var more []Finding
		switch {
		case isWebhookConfiguration(e.Ref):
			more, err = webhookWritten(w, e)
		default:
			more, err = endpointsTaken(w, e)
		}
		return append(out, more...), err
	},
	After: func(ctx context.Context, r cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
		if e.OwnersOnly() {
			return nil, nil
		}
		now := *run
		now.Earlier, now.Forecast = nil, false
		w := world{ctx, r, &now}
		if isWebhookConfiguration(e.Ref) {
			return unanswered(w, e)
		}
		return warned(endpointsTaken(w, e))
	},
}

// warned lowers what an operator was asked about before the effect.
func warned(fs []Finding, err error) ([]Finding, error) {
	for i, f := range fs {
		if f.Verdict == Ask {
			fs[i].Verdict = Warn
		}
	}
	return fs, err
}

func isWebhookConfiguration(ref cluster.Ref) bool {
	return ref.Kind == mutatingKind.Kind || ref.Kind == validatingKind.Kind
}

// webhookWritten judges a write of a configuration: who answers its webhooks,
// and whom they inject besides others.
func webhookWritten(w world, e *effect.Effect) ([]Finding, error) {
	if e.Verb == effect.Delete {
		return nil, nil // whom it leaves without injection is for RUT011
	}
	out, err := unanswered(w, e)
	if err != nil {
		return nil, err
	}
	more, err := overlaps(w, e)
	return append(out, more...), err
}

// unanswered finds the webhooks of the configuration that fail closed and have
// no ready endpoint.
func unanswered(w world, e *effect.Effect) ([]Finding, error) {
	if e.Verb == effect.Delete {
		return nil, nil
	}
	after := e.Intended()
	if after == nil {
		return nil, fmt.Errorf("what the %s makes of %s is not known", e.Verb, e.Ref)
	}
	before := map[string]mesh.Webhook{}
	for _, h := range mesh.WebhooksOf(e.Before) {
		before[h.Name] = h
	}
	asked := map[string]bool{}
	var out []Finding
	for _, h := range mesh.WebhooksOf(after) {
		if !h.Fails || h.Service.Name == "" || asked[h.Service.ID()] {
			continue
		}
		asked[h.Service.ID()] = true
		ends, err := w.behind(h.Service, nil)
		if err != nil {
			return nil, err
		}
		old, had := before[h.Name]
		switch {
		case ends.ready > 0:
		case ends.brings:
			out = append(out, Finding{Problem: "judged again once the workload that this call brings answers it"})
		case had && old.Fails && old.Service == h.Service:
			out = append(out, Finding{
				Verdict: Warn, Problem: fmt.Sprintf("webhook %s fails closed and is not answered, as before: %s", h.Name, ends.why),
				Next: "bring back what answers it: " + describe(h.Service),
			})
		default:
			out = append(out, block(fmt.Sprintf("webhook %s would fail closed with nobody to answer: %s", h.Name, ends.why),
				"a Service with a ready endpoint", "wait until what answers it is ready: "+describe(h.Service))...)
		}
	}
	return out, nil
}

func describe(svc cluster.Ref) string {
	return fmt.Sprintf("kubectl -n %s describe service %s", svc.Namespace, svc.Name)
}

// endpointsTaken judges the deletion, scaling down or relabelling of what
// stands behind webhooks.
func endpointsTaken(w world, e *effect.Effect) ([]Finding, error) {
	if !mayTake(e) {
		return nil, nil
	}
	if e.Intended() == nil && e.Verb != effect.Delete && e.Verb != effect.Evict {
		return nil, fmt.Errorf("what the %s makes of %s is not known", e.Verb, e.Ref)
	}
	configs, err := w.webhooks()
	if err != nil {
		return nil, err
	}
	var out []Finding
	asked := map[string]bool{}
	for _, c := range configs {
		for _, h := range mesh.WebhooksOf(c) {
			if !h.Fails || h.Service.Name == "" || asked[h.Service.ID()] {
				continue
			}
			asked[h.Service.ID()] = true
			taken, err := takenFrom(w, h.Service, e)
			if err != nil {
				return nil, err
			}
			if taken != "" {
				out = append(out, takenFinding(w, e, h, taken))
			}
		}
	}
	return out, nil
}

func takenFinding(w world, e *effect.Effect, h mesh.Webhook, taken string) Finding {
	f := Finding{
		Verdict: Block, Problem: fmt.Sprintf("%s, which answers webhook %s of %s, and that fails closed", taken, h.Name, h.Config),
		Expect: "another ready endpoint, or no such webhook", Next: "point the webhook at another control plane, or delete it first",
	}
	if e.Ref.Kind == podKind.Kind {
		f.Verdict, f.Expect, f.Next = Ask, "another ready pod behind it meanwhile, or leave by the operator", "add a replica first"
	}
	return f
}

// mayTake: the effect is of a sort that can leave a Service without endpoints.
func mayTake(e *effect.Effect) bool {
	if e.Before == nil {
		return false
	}
	switch kind := e.Ref.Kind; {
	case kind == "Service", kind == podKind.Kind:
		return e.Ref.Group == ""
	case kind == namespaceKind.Kind:
		return e.Ref.Group == "" && e.Verb == effect.Delete
	case kind == sliceKind.Kind:
		return true
	default:
		return hasPods(kind) && (stops(e) || relabels(e) || e.Intended() == nil && !e.RestartsOnly())
	}
}

// relabels reports whether a workload's new pods bear other labels: those that
// a Service chose are gone once the rollout is through.
func relabels(e *effect.Effect) bool {
	after := e.Intended()
	return after != nil && !labels.Equals(mesh.PodLabels(e.Before), mesh.PodLabels(after))
}

// takenFrom says how the effect leaves the Service without ready endpoints; ""
// if it does not, or if there are none already.
func takenFrom(w world, svc cluster.Ref, e *effect.Effect) (string, error) {
	if e.Ref.Kind == namespaceKind.Kind && svc.Namespace != e.Ref.Name || e.Ref.Namespace != "" && svc.Namespace != e.Ref.Namespace {
		return "", nil
	}
	now, err := w.get(svc)
	if err != nil {
		return "", err
	}
	if now == nil {
		return "", nil // is without one already, or was when the earlier effects began
	}
	leaving := takes(e)
	switch {
	case e.Ref.Kind == "Service" && e.Ref.ID() == svc.ID():
		return serviceTaken(w, now, e)
	case e.Ref.Kind == "Service":
		return "", nil
	case e.Ref.Kind == sliceKind.Kind:
		leaving = nil
	case hasPods(e.Ref.Kind) && !stops(e):
		if leaving, err = relabelled(now, e); err != nil {
			return "", err
		}
	}
	ends, err := w.behindOf(now, leaving)
	if err != nil || ends.ready > 0 || ends.leave == 0 || ends.brings {
		return "", err
	}
	return fmt.Sprintf("it takes the last ready endpoint of %s", svc), nil
}

// serviceTaken judges a change of the Service itself.
func serviceTaken(w world, now *cluster.Object, e *effect.Effect) (string, error) {
	had, err := w.behindOf(now, nil)
	if err != nil || had.ready == 0 {
		return "", err
	}
	if e.Verb == effect.Delete {
		return "it deletes " + e.Ref.String(), nil
	}
	after := e.Intended()
	if after == nil {
		return "", fmt.Errorf("what the %s makes of %s is not known", e.Verb, e.Ref)
	}
	ends, err := w.behindOf(after, nil)
	if err != nil || ends.ready > 0 || ends.brings {
		return "", err
	}
	return fmt.Sprintf("it makes %s choose no ready pod", e.Ref), nil
}

// relabelled selects the pods of a workload if the Service will not choose
// their successors.
func relabelled(svc *cluster.Object, e *effect.Effect) (func(*cluster.Object) bool, error) {
	chosen, _, err := unstructured.NestedStringMap(svc.Object, "spec", "selector")
	if err != nil {
		return nil, err
	}
	if labels.SelectorFromSet(chosen).Matches(labels.Set(mesh.PodLabels(e.Intended()))) {
		return func(*cluster.Object) bool { return false }, nil
	}
	gone := *e
	gone.Verb = effect.Delete
	return takes(&gone), nil
}

// baseline finds webhooks of the mesh that nobody answers before the control
// plane is touched, unless the call brings what does or takes them away. It is
// said once, by the call's first effect on the control plane. A rollback is not
// held up by what it may well be about to mend.
func baseline(w world, e *effect.Effect) ([]Finding, error) {
	ofPlane := func(p *effect.Effect) bool { return p.Class == effect.ControlPlane && !p.OwnersOnly() }
	if !w.run.Forecast || w.run.Rollback || !ofPlane(e) || slices.ContainsFunc(w.run.Earlier, ofPlane) {
		return nil, nil
	}
	whole := *w.run
	whole.Earlier = w.run.Call
	w.run = &whole
	configs, err := w.webhooks()
	if err != nil {
		return nil, err
	}
	var out []Finding
	for _, c := range configs {
		for _, h := range mesh.WebhooksOf(c) {
			if !h.OfMesh || !h.Fails || h.Service.Name == "" {
				continue
			}
			ends, err := w.behind(h.Service, nil)
			if err != nil {
				return nil, err
			}
			if ends.ready+ends.gone > 0 || ends.brings {
				continue
			}
			out = append(out, Finding{
				Verdict: Block, Ref: h.Config,
				Problem: fmt.Sprintf("webhook %s fails closed and nobody answers it: %s", h.Name, ends.why),
				Expect:  "a mesh whose webhooks are answered before it is upgraded",
				Next:    fmt.Sprintf("bring back what answers it, or delete the %s if its control plane is gone", strings.ToLower(h.Config.Kind)),
			})
		}
	}
	return out, nil
}
