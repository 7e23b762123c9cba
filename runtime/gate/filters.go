package gate

import (
	"cmp"
	"fmt"
	"regexp"

	"github.com/Masterminds/semver/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
)

var envoyFilterKind = schema.GroupVersionKind{Group: "networking.istio.io", Version: "v1alpha3", Kind: "EnvoyFilter"}

// filterPatch is one patch of an EnvoyFilter that is for some versions of the
// proxy only.
type filterPatch struct {
	namespace string
	what      string // applyTo and context
	version   *regexp.Regexp
}

// leftBehind finds EnvoyFilters with patches that say, by proxyVersion, that they
// are for proxies of the installed version, and not for those of the target: the
// new proxies go without, and nobody is told (istio/istio#49764, #49836). A patch
// of the same sort in the same namespace that is for the target by its number
// takes its place.
func leftBehind(w world, from, to *semver.Version) ([]Finding, error) {
	found, err := w.objects(envoyFilterKind, cluster.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("EnvoyFilters: %w", err)
	}
	successors := map[string]bool{}
	patches := map[*cluster.Object][]filterPatch{}
	for _, o := range found {
		patches[o] = versionedPatches(o)
		for _, p := range patches[o] {
			if p.version.MatchString(to.String()) {
				successors[p.namespace+" "+p.what] = true
			}
		}
	}
	var out []Finding
	for _, o := range found {
		for _, p := range patches[o] {
			if !p.version.MatchString(from.String()) || p.version.MatchString(to.String()) || successors[p.namespace+" "+p.what] {
				continue
			}
			out = append(out, Finding{
				Verdict: Ask, Ref: cluster.RefOf(o),
				Problem: fmt.Sprintf("its patch of %s is for proxies %q: those of %s have it, those of %s go without", p.what, p.version, from, to),
				Expect:  "a patch that is for the target too, or leave by the operator",
				Next:    "try it on a proxy of " + to.String() + ", and widen its proxyVersion or add a patch for that version; remove it if it is not needed any more",
			})
			break // said once for an EnvoyFilter
		}
	}
	return out, nil
}

// versionedPatches are the patches that name versions of the proxy. What is no
// regular expression istiod refuses by itself.
func versionedPatches(o *cluster.Object) []filterPatch {
	list, _, err := unstructured.NestedSlice(o.Object, "spec", "configPatches")
	if err != nil {
		return nil
	}
	var out []filterPatch
	for _, x := range list {
		m, _ := x.(map[string]any)
		text, _, err := unstructured.NestedString(m, "match", "proxy", "proxyVersion")
		if err != nil || text == "" {
			continue
		}
		version, err := regexp.Compile(text)
		if err != nil {
			continue
		}
		context, _, err := unstructured.NestedString(m, "match", "context")
		if err != nil {
			continue
		}
		out = append(out, filterPatch{o.GetNamespace(), fmt.Sprintf("%v in %s", m["applyTo"], cmp.Or(context, "ANY")), version})
	}
	return out
}
