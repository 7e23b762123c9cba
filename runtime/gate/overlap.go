package gate

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/mesh"
)

// overlaps finds the pods that a written injection webhook selects besides
// another one, and did not before. Where a namespace that is there is hit, it
// blocks, as istioctl refuses such a tag; where none is, it warns.
//
// The other webhooks are taken as the whole call leaves them: whoever moves the
// default tag has two that select the same pods for the moment between switching
// the new one on and the old one off, in which the other order would inject none.
// Of one revision the second finds the pod injected, and leaves it as it is.
func overlaps(w world, e *effect.Effect) ([]Finding, error) {
	if e.Ref.Kind != mutatingKind.Kind {
		return nil, nil // a validating webhook injects nothing
	}
	after, err := mesh.InjectorsOf(e.Intended())
	if err != nil {
		return nil, err
	}
	before, err := mesh.InjectorsOf(e.Before)
	if err != nil {
		return nil, err
	}
	if len(after) == 0 || sameSelectors(before, after) {
		return nil, nil
	}
	var others []mesh.Injector
	configs, err := w.objects(mutatingKind, cluster.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("injection webhooks: %w", err)
	}
	for _, c := range configs {
		ref := cluster.RefOf(c)
		ref.Group, ref.Version, ref.Kind = mutatingKind.Group, mutatingKind.Version, mutatingKind.Kind
		if c = w.left(ref, c); c == nil || ref.Name == e.Ref.Name {
			continue
		}
		in, err := mesh.InjectorsOf(c)
		if err != nil {
			return nil, err
		}
		others = append(others, in...)
	}
	spaces, err := w.namespaces()
	if err != nil {
		return nil, err
	}
	return newOverlaps(before, after, others, spaces), nil
}

func sameSelectors(a, b []mesh.Injector) bool {
	return slices.EqualFunc(a, b, func(x, y mesh.Injector) bool {
		return x.Webhook == y.Webhook && x.Namespaces.String() == y.Namespaces.String() && x.Objects.String() == y.Objects.String()
	})
}

func newOverlaps(before, after, others []mesh.Injector, spaces map[string]map[string]string) []Finding {
	pods := podSamples(slices.Concat(after, others))
	var out []Finding
	hit := map[string]bool{} // by the other webhook: a namespace that is there was found
	for _, name := range slices.Sorted(maps.Keys(spaces)) {
		for _, pod := range pods {
			was, _ := twice(before, others, spaces[name], pod)
			other, now := twice(after, others, spaces[name], pod)
			if other != "" && was == "" && !hit[other] {
				hit[other] = true
				out = append(out, block(fmt.Sprintf("its webhook %s and %s both inject pods of namespace %s%s: they would be injected twice", now, other, name, labelled(pod)),
					"at most one injection webhook for a pod", "take the selectors of the other webhook back first, or give this revision a tag of its own")...)
			}
		}
	}
	if len(out) > 0 {
		return out
	}
	for _, space := range spaceSamples(slices.Concat(after, others)) {
		for _, pod := range pods {
			was, _ := twice(before, others, space, pod)
			if other, now := twice(after, others, space, pod); other != "" && was == "" {
				return []Finding{{
					Verdict: Warn, Problem: fmt.Sprintf("its webhook %s and %s would both inject pods of a namespace%s%s, of which there is none now", now, other, labelled(space), labelled(pod)),
					Expect: "at most one injection webhook for a pod",
				}}
			}
		}
	}
	return out
}

func labelled(l map[string]string) string {
	if len(l) == 0 {
		return ""
	}
	return " labelled " + labels.Set(l).String()
}

// twice finds a webhook of mine that selects the pod together with another: one
// of mine or of the others. other is "" if there is none.
func twice(mine, others []mesh.Injector, space, pod map[string]string) (other, own string) {
	var hits []string
	for _, in := range mine {
		if selects(in, space, pod) {
			hits = append(hits, in.Webhook)
		}
	}
	if len(hits) == 0 {
		return "", ""
	}
	if len(hits) > 1 {
		return hits[1], hits[0]
	}
	for _, in := range others {
		if selects(in, space, pod) {
			return in.Configuration + "/" + in.Webhook, hits[0]
		}
	}
	return "", ""
}

func selects(in mesh.Injector, space, pod map[string]string) bool {
	return in.Namespaces.Matches(labels.Set(space)) && in.Objects.Matches(labels.Set(pod))
}

// podSamples and spaceSamples are the labels that Istio's own analyzer tries
// (pkg/config/analysis/analyzers/webhook): each value of the injection label,
// with and without each revision that a selector names.
func podSamples(ins []mesh.Injector) []map[string]string {
	return samples(ins, mesh.LabelPodInject, "true", "false")
}

func spaceSamples(ins []mesh.Injector) []map[string]string {
	return samples(ins, mesh.LabelInjection, "enabled", "disabled")
}

func samples(ins []mesh.Injector, key string, values ...string) []map[string]string {
	revisions := map[string]bool{}
	for _, in := range ins {
		for _, sel := range []labels.Selector{in.Namespaces, in.Objects} {
			reqs, _ := sel.Requirements()
			for _, req := range reqs {
				if req.Key() == mesh.LabelRev {
					for v := range req.Values() {
						revisions[v] = true
					}
				}
			}
		}
	}
	out := []map[string]string{{}}
	for _, v := range values {
		out = append(out, map[string]string{key: v})
	}
	for _, rev := range slices.Sorted(maps.Keys(revisions)) {
		for _, base := range out[:1+len(values)] {
			l := maps.Clone(base)
			l[mesh.LabelRev] = rev
			out = append(out, l)
		}
	}
	return out
}

// namespaces are the labels of all namespaces by name.
func (w world) namespaces() (map[string]map[string]string, error) {
	got, err := w.objects(namespaceKind, cluster.ListOptions{MetadataOnly: true})
	if err != nil {
		return nil, fmt.Errorf("namespaces: %w", err)
	}
	out := map[string]map[string]string{}
	for _, o := range got {
		out[o.GetName()] = o.GetLabels()
	}
	return out, nil
}
