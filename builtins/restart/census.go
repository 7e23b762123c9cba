package restart

import (
	"encoding/json"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/mesh"
)

// outdated asks the census which workloads run stale proxies, and sorts out
// what nothing would bring back.
func outdated(c *builtin.Call, namespaces []string, gateways bool) ([]wish, []Skipped, error) {
	found, err := mesh.Outdated(c.Ctx, c.Reader)
	if err != nil {
		return nil, nil, err
	}
	var wishes []wish
	skipped := []Skipped{}
	for _, w := range found {
		gateway := w.Kind == mesh.Gateway || w.Kind == mesh.Waypoint
		switch {
		case len(namespaces) > 0 && !slices.Contains(namespaces, w.Ref.Namespace):
		case gateway && !gateways:
			skipped = append(skipped, skip(w.Ref, "it is a gateway, and gateways = False"))
		case w.Ref.Kind == "Pod":
			skipped = append(skipped, skip(w.Ref, w.Why()+", but nothing would make a bare pod anew; replace it by hand"))
		case w.Ref.Kind == "Job":
			skipped = append(skipped, skip(w.Ref, w.Why()+", but it is a Job's: its next pod has the new proxy"))
		case slices.ContainsFunc(wishes, func(o wish) bool { return o.ref == w.Ref }):
			// One rollout renews sidecars and gateways of the same owner.
		default:
			wishes = append(wishes, wish{ref: w.Ref, reason: w.Why(), from: w.From, to: w.To, gateway: gateway})
		}
	}
	return wishes, skipped, nil
}

// proxy is what can be seen of a pod's proxy.
type proxy struct{ image, version, revision string }

// is reports whether the proxy is what a restart was for: a version, an image
// or a revision, as mesh.Outdated says which of them differed.
func (p proxy) is(want string) bool {
	return want == p.version || want == p.image || want == p.revision
}

// String is how a message calls it.
func (p proxy) String() string {
	name := p.version
	if name == "" {
		name = p.image
	}
	if p.revision != "" && p.revision != mesh.DefaultRevision {
		name += " of revision " + p.revision
	}
	return name
}

// proxyOf looks at a pod's proxy; ok is false where there is none.
func proxyOf(pod *cluster.Object) (p proxy, ok bool) {
	for _, field := range []string{"initContainers", "containers"} {
		list, isList := nested(pod, "spec", field).([]any)
		if !isList {
			continue
		}
		for _, e := range list {
			m, isMap := e.(map[string]any)
			if !isMap || m["name"] != "istio-proxy" {
				continue
			}
			p.image = text(&cluster.Object{Object: m}, "image")
			p.version = mesh.ImageVersion(p.image)
			p.revision = injectedBy(pod)
			return p, true
		}
	}
	return proxy{}, false
}

// injectedBy is the revision that injected a pod, as the injector wrote it.
func injectedBy(pod *cluster.Object) string {
	notes := pod.GetAnnotations()
	if rev := notes[mesh.LabelRev]; rev != "" {
		return rev
	}
	var status struct {
		Revision string `json:"revision"`
	}
	if s := notes[mesh.AnnotationStatus]; strings.HasPrefix(s, "{") && json.Unmarshal([]byte(s), &status) == nil {
		return status.Revision
	}
	return ""
}
