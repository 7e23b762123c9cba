package lib

import (
	"fmt"
	"strings"
)

// removedField is a field of IstioOperator that a release dropped.
type removedField struct {
	path    string // below spec
	since   string
	instead string
}

// removedFields are what old installations still have in their files. Source:
// Istio's release notes and upgrade notes of the release named.
func removedFields() []removedField {
	const addons = "install the addon itself, from samples/addons of the release or its own charts"
	const mixer = "telemetry is configured with Telemetry resources, policy with AuthorizationPolicy or an Envoy filter"
	return []removedField{
		{"addonComponents", "1.8", addons},
		{"values.grafana", "1.8", addons},
		{"values.kiali", "1.8", addons},
		{"values.prometheus", "1.8", addons},
		{"values.tracing", "1.8", addons},
		{"values.mixer", "1.8", mixer},
		{"components.policy", "1.8", mixer},
		{"components.telemetry", "1.8", mixer},
		{"components.citadel", "1.6", "istiod is the CA: components.pilot"},
		{"components.galley", "1.6", "istiod does it: components.pilot"},
		{"components.sidecarInjector", "1.6", "istiod injects: components.pilot"},
		{"components.nodeAgent", "1.6", "the proxy's agent does it"},
		{"values.galley", "1.6", "istiod does it: values.pilot"},
		{"values.nodeagent", "1.6", "the proxy's agent does it"},
	}
}

// removal says since when a field that Istio does not know is gone, and what
// there is instead; "" where it never was, or nothing is known of it.
func (in *renderInput) removal(field string) string {
	for _, r := range removedFields() {
		last := r.path[strings.LastIndex(r.path, ".")+1:]
		if last != field || !in.sets(r.path) {
			continue
		}
		return fmt.Sprintf("%s was removed in Istio %s; instead: %s", r.path, r.since, r.instead)
	}
	return ""
}

// sets reports whether a setting or a file of the input gives the path. Files
// are looked at by its last part, which the error named.
func (in *renderInput) sets(path string) bool {
	for _, k := range in.setKeys {
		if k == path || strings.HasPrefix(k, path+".") || strings.HasPrefix(k, path+"[") || strings.HasPrefix(path, k+".") {
			return true
		}
	}
	last := path[strings.LastIndex(path, ".")+1:]
	for _, f := range in.files[1:] {
		if strings.Contains(string(f.Content), last+":") {
			return true
		}
	}
	return false
}
