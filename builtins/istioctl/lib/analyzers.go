package lib

import (
	"slices"
	"strings"

	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/analysis"
	"istio.io/istio/pkg/config/analysis/analyzers"
	"istio.io/istio/pkg/config/analysis/analyzers/deployment"
	"istio.io/istio/pkg/config/resource"
	"istio.io/istio/pkg/config/schema/gvk"
)

// allAnalyzers are the library's, of which one is spared most of its work.
func allAnalyzers() analysis.CombinedAnalyzer {
	all := analyzers.All()
	for i, a := range all {
		if _, ok := a.(*deployment.ServiceAssociationAnalyzer); ok {
			all[i] = byNamespace{a}
		}
	}
	return analysis.Combine("all", all...)
}

// byNamespace shows an analyzer that looks at the Services beside each Deployment
// only those of its namespace. The library's goes through all the Services of the
// mesh twice for each Deployment, to pass over those of other namespaces
// (findMatchingServices): more than half of an analysis of a large mesh.
type byNamespace struct{ analysis.Analyzer }

// Analyze implements analysis.Analyzer.
func (a byNamespace) Analyze(c analysis.Context) {
	services := map[resource.Namespace][]*resource.Instance{}
	c.ForEach(gvk.Service, func(r *resource.Instance) bool {
		ns := r.Metadata.FullName.Namespace
		services[ns] = append(services[ns], r)
		return true
	})
	// Of the Services that share a port the library names the one it is shown last,
	// and is shown them in no order: the same mesh would read otherwise each time.
	for _, in := range services {
		slices.SortFunc(in, func(x, y *resource.Instance) int {
			return strings.Compare(string(x.Metadata.FullName.Name), string(y.Metadata.FullName.Name))
		})
	}
	a.Analyzer.Analyze(&inNamespace{Context: c, services: services})
}

// inNamespace is a context in which the Services are those of the namespace of the
// Deployment that is looked at.
type inNamespace struct {
	analysis.Context
	services map[resource.Namespace][]*resource.Instance
	now      resource.Namespace
}

// ForEach implements analysis.Context.
func (c *inNamespace) ForEach(kind config.GroupVersionKind, fn analysis.IteratorFn) {
	switch kind {
	case gvk.Deployment:
		c.Context.ForEach(kind, func(r *resource.Instance) bool {
			c.now = r.Metadata.FullName.Namespace
			return fn(r)
		})
	case gvk.Service:
		for _, r := range c.services[c.now] {
			if !fn(r) {
				return
			}
		}
	default:
		c.Context.ForEach(kind, fn)
	}
}
