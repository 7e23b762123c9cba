// Package access derives the least RBAC roles that a run needs from the
// requests that it made. What a request needs is decided as the API server
// decides it: its own library takes the request apart, and the checks that
// hide behind some writes (an apply that creates; roles and bindings, which
// hand out permissions) are added.
package access

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"

	"rutter.dev/rutter/runtime/cluster"
)

// Identity is whom a request is made as: "" without impersonation.
type Identity struct {
	User   string
	Groups string // comma-separated, sorted, so that identities compare
}

// Permission is one thing that the authorizer is asked about. For a resource:
// verb, group, resource (with "/subresource") and, where they are not "any",
// namespace and name. Otherwise the verb and the URL's path.
type Permission struct {
	Verb      string
	Group     string
	Resource  string
	Namespace string
	Name      string
	URL       string
}

// Request is one request of a run and what it needs.
type Request struct {
	Needs   []Permission
	As      Identity
	Applied bool // a server-side apply, dry or not
	By      cluster.Asker
}

// paths is the API server's own configuration of them (k8s.io/apiserver
// pkg/server NewRequestInfoResolver).
var paths = &genericrequest.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}

// ErrUnread is what Read's errors are: the request cannot be judged.
var ErrUnread = errors.New("a request that no role can be derived from")

// Read takes a request apart as the API server does before it asks its
// authorizer (k8s.io/apiserver pkg/endpoints/filters GetAuthorizerAttributes).
func Read(a cluster.Asked) (Request, error) {
	info, err := paths.NewRequestInfo(a.Request)
	if err != nil {
		return Request{}, fmt.Errorf("%s %s: %w: %w", a.Request.Method, a.Request.URL.Path, ErrUnread, err)
	}
	h := a.Request.Header
	out := Request{As: NewIdentity(h.Get("Impersonate-User"), h.Values("Impersonate-Group")), By: a.By}
	if !info.IsResourceRequest {
		out.Needs = []Permission{{Verb: info.Verb, URL: info.Path}}
		return out, nil
	}
	p := Permission{Verb: info.Verb, Group: info.APIGroup, Resource: info.Resource, Namespace: info.Namespace, Name: info.Name}
	if info.Subresource != "" {
		p.Resource += "/" + info.Subresource
	}
	if p.Group == "" && info.Resource == "namespaces" {
		// The library fills in the namespace of a request about the namespace
		// itself. Its name in a ClusterRole grants the same as a Role in it.
		p.Namespace = ""
	}
	out.Needs = append(out.Needs, p)
	out.Applied = strings.HasPrefix(a.Request.Header.Get("Content-Type"), string(types.ApplyPatchType))
	if out.Applied && a.Status == http.StatusCreated {
		// An apply that creates is authorized twice, the second time as a create
		// with the object's name (k8s.io/apiserver handlers/patch.go). A POST has
		// none.
		c := p
		c.Verb = "create"
		out.Needs = append(out.Needs, c)
	}
	if follows(a.Request, info.Verb) {
		for _, verb := range []string{"list", "watch"} {
			if verb != info.Verb {
				c := p
				c.Verb = verb
				out.Needs = append(out.Needs, c)
			}
		}
	}
	granted, err := granting(p, a.Body)
	if err != nil {
		return Request{}, fmt.Errorf("%s %s: %w: %w", a.Request.Method, a.Request.URL.Path, ErrUnread, err)
	}
	out.Needs = append(out.Needs, granted...)
	return out, nil
}

// follows reports whether the request is of a client that keeps a copy: it
// lists and watches, and which of the two a log holds depends on what the
// server offers (a watch that sends what exists first, or a list) and on how
// long the client lived.
func follows(req *http.Request, verb string) bool {
	q := req.URL.Query()
	return verb == "watch" || verb == "list" && (q.Has("resourceVersion") && q.Get("continue") == "" || q.Has("sendInitialEvents"))
}

// NewIdentity is a user and groups as an Identity.
func NewIdentity(user string, groups []string) Identity {
	groups = slices.Clone(groups)
	slices.Sort(groups)
	return Identity{User: user, Groups: strings.Join(groups, ",")}
}

// granting is what else a write to RBAC's own objects needs, because it hands
// out permissions that the writer need not have: escalate for roles, bind for
// bindings (kubernetes pkg/registry/rbac/{role,rolebinding}/policybased). The
// alternative, to hold everything that Istio's roles hold, would be more.
func granting(p Permission, body []byte) ([]Permission, error) {
	if p.Group != rbacv1.GroupName || !slices.Contains([]string{"create", "update", "patch"}, p.Verb) {
		return nil, nil
	}
	switch p.Resource {
	case "roles", "clusterroles":
		p.Verb = "escalate"
		return []Permission{p}, nil
	case "rolebindings", "clusterrolebindings":
	default:
		return nil, nil
	}
	var b struct {
		RoleRef rbacv1.RoleRef `json:"roleRef"`
	}
	if json.Unmarshal(body, &b) != nil || b.RoleRef.Name == "" {
		// A partial patch: who is bound may change, and to what the body does not
		// say.
		return nil, fmt.Errorf("%s %s: its body names no roleRef", p.Resource, p.Name)
	}
	p.Verb, p.Name, p.Resource = "bind", b.RoleRef.Name, "clusterroles"
	if b.RoleRef.Kind == "Role" {
		p.Resource = "roles"
	}
	return []Permission{p}, nil
}

// Log collects the requests of a run. Safe for concurrent use.
type Log struct {
	mu       sync.Mutex
	requests []Request
	err      error
}

// Record is for cluster.ClientOptions.Record.
func (l *Log) Record(a cluster.Asked) {
	r, err := Read(a)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.err = errors.Join(l.err, err)
		return
	}
	l.requests = append(l.requests, r)
}

// Requests is what was recorded, in order, and the errors (ErrUnread) of what
// could not be.
func (l *Log) Requests() ([]Request, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.requests), l.err
}
