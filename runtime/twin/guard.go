package twin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
)

// RefusedError is the answer of the guard to a request that is not certain to
// change nothing. It was not sent.
type RefusedError struct{ Method, Path, Why string }

// Error names the request and the reason.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s %s: not sent: %s; a rehearsal lets out only reads, dry-runs and access reviews", e.Method, e.Path, e.Why)
}

// guard is the one way out of a twin. It lets out GET and HEAD of documents,
// writes that the server keeps nothing of, and access reviews, and sends what it
// has understood rather than what it was given: the query is written anew, and so
// is the body of a DELETE.
//
// That a write is a dry-run is for the API server to say: it reads the query of a
// POST, PUT or PATCH, but of a DELETE with a body the body alone
// (k8s.io/apiserver pkg/endpoints/handlers/delete.go, DeleteResource). Servers
// behind the aggregation layer may not know dry-run, so that only groups that the
// API server itself keeps get any.
type guard struct {
	next   http.RoundTripper
	prefix string // of the API's paths, without a slash at its end
	mu     sync.Mutex
	groups map[string]bool
}

func newGuard(base *url.URL, next http.RoundTripper) *guard {
	g := &guard{next: next, groups: map[string]bool{}}
	if base != nil {
		g.prefix = strings.TrimSuffix(base.Path, "/")
	}
	for _, name := range []string{
		"", "apps", "batch", "policy", "autoscaling", "extensions", "admissionregistration.k8s.io", "apiextensions.k8s.io", "rbac.authorization.k8s.io",
		"coordination.k8s.io", "discovery.k8s.io", "networking.k8s.io", "scheduling.k8s.io", "storage.k8s.io", "node.k8s.io", "flowcontrol.apiserver.k8s.io",
	} {
		g.groups[name] = true
	}
	return g
}

// keeps adds a group whose objects the API server keeps itself: that of a
// CustomResourceDefinition.
func (g *guard) keeps(group string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.groups[group] = true
}

func (g *guard) kept(group string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.groups[group]
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(in *http.Request) (*http.Response, error) {
	out, why := g.harmless(in)
	if why != "" {
		if in.Body != nil {
			_ = in.Body.Close() // nothing of it was sent
		}
		return nil, &RefusedError{Method: in.Method, Path: in.URL.Path, Why: why}
	}
	return g.next.RoundTrip(out)
}

// harmless is the request that may be sent, or why none may.
func (g *guard) harmless(in *http.Request) (*http.Request, string) {
	values, err := url.ParseQuery(in.URL.RawQuery)
	if err != nil {
		return nil, "its query can be read in more than one way"
	}
	to, why := g.target(in.URL)
	if why != "" {
		return nil, why
	}
	for _, h := range []string{"Upgrade", "Sec-Websocket-Key", "Sec-Websocket-Protocol", "X-Stream-Protocol-Version"} {
		if in.Header.Get(h) != "" {
			return nil, "it asks for a connection"
		}
	}
	if strings.Contains(strings.ToLower(strings.Join(in.Header.Values("Connection"), ",")), "upgrade") {
		return nil, "it asks for a connection"
	}
	out := in.Clone(in.Context())
	for h := range out.Header {
		if strings.Contains(strings.ToLower(h), "method") {
			out.Header.Del(h) // proxies exist that take X-HTTP-Method-Override
		}
	}
	out.URL.RawQuery, out.URL.RawPath, out.URL.Fragment = values.Encode(), "", ""
	switch in.Method {
	case http.MethodGet, http.MethodHead:
		out.Body, out.ContentLength, out.GetBody = nil, 0, nil
		out.TransferEncoding = nil
		return out, to.readable()
	case http.MethodPost:
		if to.review() {
			return out, ""
		}
	case http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		return nil, "no such method is known"
	}
	if why := to.writable(in.Method); why != "" {
		return nil, why
	}
	if !g.kept(to.group) {
		return nil, "the group " + to.group + " may not know dry-run"
	}
	if dry := values["dryRun"]; !slices.Equal(dry, []string{metav1.DryRunAll}) {
		return nil, fmt.Sprintf("its dryRun is %q, which is not once All", dry)
	}
	if in.Method == http.MethodDelete {
		return out, rewriteDelete(out)
	}
	return out, ""
}

// rewriteDelete makes the body of a DELETE say what its query says.
func rewriteDelete(r *http.Request) string {
	var o metav1.DeleteOptions
	if r.Body != nil {
		raw, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if cerr := r.Body.Close(); err != nil || cerr != nil {
			return "its body could not be read"
		}
		if len(raw) > 0 {
			if strict, err := kjson.UnmarshalStrict(raw, &o); err != nil || len(strict) > 0 {
				return "its body is not the JSON of DeleteOptions"
			}
		}
	}
	o.TypeMeta = metav1.TypeMeta{Kind: "DeleteOptions", APIVersion: "v1"}
	o.DryRun = []string{metav1.DryRunAll}
	b, err := json.Marshal(&o)
	if err != nil {
		return "its body could not be written"
	}
	r.Body, r.ContentLength, r.GetBody, r.TransferEncoding = io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil, nil
	r.Header.Set("Content-Type", "application/json")
	return ""
}

// aim is what a path is about.
type aim struct {
	meta                                    bool // discovery, schemas, version, health
	group, version, namespace, plural, name string
	sub                                     []string
}

// target reads a path. Whatever could be read in two ways is refused.
func (g *guard) target(u *url.URL) (aim, string) {
	p, ok := strings.CutPrefix(u.Path, g.prefix)
	if !ok || !strings.HasPrefix(p, "/") {
		return aim{}, "it leads elsewhere"
	}
	if u.RawPath != "" || u.Opaque != "" || p != path.Clean(p) || strings.ContainsAny(p, "%;\\\x00 ") {
		return aim{}, "its path can be read in more than one way"
	}
	s := strings.Split(strings.TrimPrefix(p, "/"), "/")
	switch s[0] {
	case "version", "healthz", "livez", "readyz":
		return aim{meta: true}, map[bool]string{true: "it leads elsewhere"}[len(s) > 1]
	case "openapi":
		return aim{meta: true}, ""
	case "api":
		if len(s) <= 2 {
			return aim{meta: true}, ""
		}
		return aimOf("", s[1], s[2:])
	case "apis":
		if len(s) <= 3 {
			return aim{meta: true}, ""
		}
		return aimOf(s[1], s[2], s[3:])
	}
	return aim{}, "it leads elsewhere"
}

func aimOf(group, version string, s []string) (aim, string) {
	a := aim{group: group, version: version}
	if s[0] == "watch" || s[0] == "proxy" || s[0] == "redirect" {
		return a, "paths of this kind are not in use any more"
	}
	// As the API server's RequestInfo has it, whatever the group.
	ofNamespace := len(s) > 2 && (s[2] == "status" || s[2] == "finalize")
	if s[0] == "namespaces" && len(s) > 2 && !ofNamespace {
		a.namespace, s = s[1], s[2:]
	}
	a.plural = s[0]
	if len(s) > 1 {
		a.name, a.sub = s[1], s[2:]
	}
	return a, ""
}

// readable says why a GET of it is not a read; "" where it is. Subresources
// other than these are connections, or may be.
func (a aim) readable() string {
	switch {
	case a.meta, len(a.sub) == 0:
		return ""
	case len(a.sub) == 1 && (a.sub[0] == "status" || a.sub[0] == "scale"):
		return ""
	case len(a.sub) == 1 && a.sub[0] == "log" && a.group == "" && a.plural == "pods":
		return ""
	}
	return "the subresource " + strings.Join(a.sub, "/") + " may be a connection"
}

// reviews are the kinds that are created to be answered, and answer about
// rights.
var reviews = []string{"selfsubjectaccessreviews", "selfsubjectrulesreviews", "subjectaccessreviews", "localsubjectaccessreviews"}

func (a aim) review() bool {
	if a.name != "" || len(a.sub) > 0 {
		return false
	}
	return a.group == "authorization.k8s.io" && slices.Contains(reviews, a.plural) || a.group == "authentication.k8s.io" && a.plural == "selfsubjectreviews"
}

// writable says why a dry-run of it may not be sent.
func (a aim) writable(method string) string {
	sub := strings.Join(a.sub, "/")
	switch {
	case a.meta:
		return "it is no object"
	case method == http.MethodPost && (a.name != "" || sub != "") && !(sub == "eviction" && a.group == "" && a.plural == "pods"):
		return "only objects and evictions are created"
	case method == http.MethodPost && a.group == "" && a.plural == "bindings":
		return "only objects and evictions are created"
	case method != http.MethodPost && a.name == "":
		return "it names no object"
	case method == http.MethodDelete && sub != "":
		return "a subresource is not deleted"
	case method != http.MethodPost && sub != "" && sub != "status" && sub != "scale":
		return "the subresource " + sub + " may not know dry-run"
	}
	return ""
}
