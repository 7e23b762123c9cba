package mesh

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"rutter.dev/rutter/runtime/cluster"
)

// injectedTwice: injectors of two revisions that select the same pods inject
// them twice, as soon as they are made anew (istio/istio#43932, #34562). Two of
// one revision do no harm: the second finds its own sidecar. Neither does one where
// the template does not hold a sidecar already.
func injectedTwice(ctx context.Context, r cluster.Reader) ([]Hazard, error) {
	ins, err := Injectors(ctx, r)
	if err != nil {
		return nil, err
	}
	spaces := map[string]labels.Set{}
	err = list(ctx, r, namespaces, cluster.ListOptions{MetadataOnly: true}, func(o *cluster.Object) error {
		spaces[o.GetName()] = o.GetLabels()
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("namespaces: %w", err)
	}
	templates, err := Templates(ctx, r)
	if err != nil {
		return nil, err
	}
	samples := map[string][]labels.Set{} // labels of pods by namespace: none, and what templates say
	for name := range spaces {
		samples[name] = []labels.Set{nil}
	}
	for _, t := range templates {
		samples[t.Owner.Namespace] = append(samples[t.Owner.Namespace], t.Labels)
	}
	return append(overlaps(ins, spaces, samples), held(ins, spaces, templates)...), nil
}

// overlaps are pairs of injectors that select the same pods.
func overlaps(ins []Injector, spaces map[string]labels.Set, samples map[string][]labels.Set) []Hazard {
	var out []Hazard
	said := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(spaces)) {
		for _, pod := range samples[name] {
			first, second := selecting(ins, spaces[name], pod)
			pair := first.Configuration + " and " + second.Configuration
			if second.Configuration == "" || said[pair] {
				continue
			}
			said[pair] = true
			out = append(out, Hazard{
				Problem: fmt.Sprintf("mutatingwebhookconfigurations %s both inject pods of namespace %s, for revisions %s and %s", pair, name, first.Revision, second.Revision),
				Next:    "remove the one that is left over, or take its selectors back, before pods are made anew",
			})
		}
	}
	return out
}

// held are templates that hold a sidecar of their own where one is injected: what a
// backup of pods, or of an injected manifest, brings back without the annotation of
// its injection (vmware-tanzu/velero#2997). The injector takes what it finds for
// the owner's wishes: pods made anew keep the old proxy and get its parts again.
func held(ins []Injector, spaces map[string]labels.Set, templates []Template) []Hazard {
	var out []Hazard
	for _, t := range templates {
		first, _ := selecting(ins, spaces[t.Owner.Namespace], t.Labels)
		if t.Injected == "" || first.Configuration == "" {
			continue
		}
		out = append(out, Hazard{
			Problem: fmt.Sprintf("%s: its template already holds an injected sidecar (init container %s), and mutatingwebhookconfiguration %s injects another into the same pods", t.Owner, t.Injected, first.Configuration),
			Next:    "apply its manifest as it was before it was injected: without the containers, volumes and annotations of Istio",
		})
	}
	return out
}

// selecting finds two injectors of different revisions that select a pod.
func selecting(ins []Injector, space, pod labels.Set) (first, second Injector) {
	for _, in := range ins {
		switch {
		case !in.Namespaces.Matches(space) || !in.Objects.Matches(pod):
		case first.Configuration == "":
			first = in
		case in.Revision != first.Revision:
			return first, in
		}
	}
	return first, Injector{}
}
