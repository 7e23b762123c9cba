package sim

import (
	"encoding/json"
	"net/http"
	"strings"

	apidiscovery "k8s.io/api/apidiscovery/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
)

// serveMeta answers everything that is not a resource: health, version,
// discovery and schemas.
func (c *Cluster) serveMeta(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		writeError(w, errMethod())
		return
	}
	path := strings.TrimSuffix(r.URL.Path, "/")
	c.mu.Lock()
	v, contentType, err := c.meta(path, r)
	p := strings.Split(strings.Trim(path, "/"), "/")
	served := p[0] == "api" || p[0] == "apis" && len(p) > 1 && c.reg.groupServed(p[1])
	c.mu.Unlock()
	if apierrors.IsNotFound(err) && !served {
		http.NotFound(w, r) // nothing of the API server's is there to answer
		return
	}
	if err != nil {
		writeError(w, err)
		return
	}
	var b []byte
	switch x := v.(type) {
	case []byte:
		b = x
	case string:
		b = []byte(x)
	default:
		if b, err = json.Marshal(v); err != nil {
			writeError(w, apierrors.NewInternalError(err))
			return
		}
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusOK)
	// Where the client is gone, there is nobody left to tell.
	_, _ = w.Write(b) // #nosec G705 -- JSON, and no browser reads it
}

func (c *Cluster) meta(path string, r *http.Request) (any, string, error) {
	const jsonType = "application/json"
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case path == "/livez" || path == "/readyz" || path == "/healthz" || strings.HasPrefix(path, "/readyz/") || strings.HasPrefix(path, "/livez/"):
		return "ok", "text/plain; charset=utf-8", nil
	case path == "/openid/v1/jwks":
		keys, err := c.keySet()
		return keys, "application/jwk-set+json", err
	case path == "/.well-known/openid-configuration":
		return map[string]any{
			"issuer": issuer, "jwks_uri": "https://kubernetes.default.svc/openid/v1/jwks", "response_types_supported": []string{"id_token"},
			"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"EdDSA"},
		}, jsonType, nil
	case path == "/version":
		return c.version(), jsonType, nil
	case path == "":
		return map[string]any{"paths": []string{"/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"}}, jsonType, nil
	case path == "/api" || path == "/apis":
		return c.discoveryRoot(path, r.Header.Get("Accept"))
	case parts[0] == "api" && len(parts) == 2 && parts[1] == "v1":
		return c.resourceList("", "v1"), jsonType, nil
	case parts[0] == "apis" && len(parts) == 2:
		if g, ok := c.group(parts[1]); ok {
			return g, jsonType, nil
		}
	case parts[0] == "apis" && len(parts) == 3:
		if l := c.resourceList(parts[1], parts[2]); len(l.APIResources) > 0 {
			return l, jsonType, nil
		}
	case parts[0] == "openapi":
		return c.openAPI(parts[1:], r.Header.Get("Accept"))
	}
	return nil, "", errNotServed()
}

func (c *Cluster) version() version.Info {
	v := strings.TrimPrefix(c.opts.KubernetesVersion, "v")
	p := strings.SplitN(v, ".", 3)
	for len(p) < 3 {
		p = append(p, "0")
	}
	return version.Info{
		Major: p[0], Minor: p[1], GitVersion: "v" + v, GitCommit: strings.Repeat("0", 40), GitTreeState: "clean",
		BuildDate: "2026-01-01T00:00:00Z", GoVersion: "go1.26", Compiler: "gc", Platform: "linux/amd64",
	}
}

const aggregatedType = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

func (c *Cluster) discoveryRoot(path, accept string) (any, string, error) {
	if strings.Contains(accept, "as=APIGroupDiscoveryList") && strings.Contains(strings.ReplaceAll(accept, " ", ""), "v=v2;") {
		return c.aggregated(path == "/api"), aggregatedType, nil
	}
	if path == "/api" {
		return metav1.APIVersions{
			TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"},
			ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{{ClientCIDR: "0.0.0.0/0", ServerAddress: "127.0.0.1:6443"}},
		}, "application/json", nil
	}
	l := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{}}
	names, _ := c.reg.groups()
	for _, n := range names {
		if n == "" {
			continue
		}
		g, _ := c.group(n)
		g.TypeMeta = metav1.TypeMeta{}
		l.Groups = append(l.Groups, g)
	}
	return l, "application/json", nil
}

func (c *Cluster) group(name string) (metav1.APIGroup, bool) {
	_, versions := c.reg.groups()
	vs, ok := versions[name]
	if !ok || name == "" {
		return metav1.APIGroup{}, false
	}
	g := metav1.APIGroup{TypeMeta: metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}, Name: name}
	for _, v := range vs {
		g.Versions = append(g.Versions, metav1.GroupVersionForDiscovery{GroupVersion: name + "/" + v, Version: v})
	}
	g.PreferredVersion = g.Versions[0]
	return g, true
}

// verbsOf are the verbs of a resource itself.
func verbsOf(r *resource) metav1.Verbs {
	if r.createOnly {
		return metav1.Verbs{"create"}
	}
	return metav1.Verbs{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
}

// subresource is one served subresource.
type subresource struct {
	name           string
	group, version string
	kind           string
	verbs          metav1.Verbs
}

func subresources(r *resource, version string) []subresource {
	var out []subresource
	rw := metav1.Verbs{"get", "patch", "update"}
	if r.status {
		out = append(out, subresource{"status", r.group, version, r.kind, rw})
	}
	if r.scale {
		out = append(out, subresource{"scale", "autoscaling", "v1", "Scale", rw})
	}
	if r.group == "" && r.plural == "pods" {
		out = append(
			out, subresource{"binding", "", "v1", "Binding", metav1.Verbs{"create"}},
			subresource{"eviction", "policy", "v1", "Eviction", metav1.Verbs{"create"}},
			subresource{"log", "", "v1", "Pod", metav1.Verbs{"get"}},
		)
	}
	if r.group == "" && r.plural == "serviceaccounts" {
		out = append(out, subresource{"token", "authentication.k8s.io", "v1", "TokenRequest", metav1.Verbs{"create"}})
	}
	if r.group == "" && r.plural == "namespaces" {
		out = append(out, subresource{"finalize", "", "v1", "Namespace", metav1.Verbs{"update"}})
	}
	return out
}

func (c *Cluster) resourceList(group, version string) metav1.APIResourceList {
	gv := version
	if group != "" {
		gv = group + "/" + version
	}
	l := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv, APIResources: []metav1.APIResource{}}
	for _, r := range c.reg.order {
		if r.group != group || !r.serves(version) {
			continue
		}
		l.APIResources = append(l.APIResources, metav1.APIResource{
			Name: r.plural, SingularName: r.singular, Namespaced: r.namespaced, Kind: r.kind, Verbs: verbsOf(r),
			ShortNames: r.short, Categories: r.categories, StorageVersionHash: "simulated",
		})
		for _, s := range subresources(r, version) {
			x := metav1.APIResource{Name: r.plural + "/" + s.name, Namespaced: r.namespaced, Kind: s.kind, Verbs: s.verbs}
			if s.group != group || s.version != version {
				x.Group, x.Version = s.group, s.version
			}
			l.APIResources = append(l.APIResources, x)
		}
	}
	return l
}

func (c *Cluster) aggregated(core bool) apidiscovery.APIGroupDiscoveryList {
	l := apidiscovery.APIGroupDiscoveryList{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"}, Items: []apidiscovery.APIGroupDiscovery{},
	}
	names, versions := c.reg.groups()
	for _, n := range names {
		if (n == "") != core {
			continue
		}
		g := apidiscovery.APIGroupDiscovery{}
		g.Name = n
		for _, v := range versions[n] {
			g.Versions = append(g.Versions, c.aggregatedVersion(n, v))
		}
		l.Items = append(l.Items, g)
	}
	return l
}

func (c *Cluster) aggregatedVersion(group, version string) apidiscovery.APIVersionDiscovery {
	out := apidiscovery.APIVersionDiscovery{Version: version, Freshness: apidiscovery.DiscoveryFreshnessCurrent}
	for _, r := range c.reg.order {
		if r.group != group || !r.serves(version) {
			continue
		}
		scope := apidiscovery.ScopeCluster
		if r.namespaced {
			scope = apidiscovery.ScopeNamespace
		}
		d := apidiscovery.APIResourceDiscovery{
			Resource: r.plural, SingularResource: r.singular, Scope: scope, Verbs: verbsOf(r), ShortNames: r.short, Categories: r.categories,
			ResponseKind: &metav1.GroupVersionKind{Group: group, Version: version, Kind: r.kind},
		}
		for _, s := range subresources(r, version) {
			d.Subresources = append(d.Subresources, apidiscovery.APISubresourceDiscovery{
				Subresource: s.name, Verbs: s.verbs, ResponseKind: &metav1.GroupVersionKind{Group: s.group, Version: s.version, Kind: s.kind},
			})
		}
		out.Resources = append(out.Resources, d)
	}
	return out
}
