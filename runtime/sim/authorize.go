package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"rutter.dev/rutter/runtime/sim/rbac"
)

// attributes are what a request is judged by.
type attributes struct {
	user            *User
	verb            string
	path            string // of a request that is not for a resource
	group, version  string
	resource, sub   string
	namespace, name string
}

func (a attributes) record() authorizer.AttributesRecord {
	return authorizer.AttributesRecord{
		User: a.user, Verb: a.verb, APIGroup: a.group, APIVersion: a.version, Resource: a.resource, Subresource: a.sub,
		Namespace: a.namespace, Name: a.name, Path: a.path, ResourceRequest: a.path == "",
	}
}

// attributesOf are a request's attributes as the API server's request info
// factory makes them: a namespace is in itself, and a list or watch of one
// named object is of that name.
func attributesOf(r *http.Request, t target, isResource bool, u *User) attributes {
	if !isResource {
		return attributes{user: u, verb: strings.ToLower(r.Method), path: r.URL.Path}
	}
	a := attributes{user: u, group: t.group, version: t.version, resource: t.plural, sub: t.sub, namespace: t.namespace, name: t.name}
	if t.plural == "namespaces" && t.group == "" && t.name != "" {
		a.namespace = t.name
	}
	a.sub, _, _ = strings.Cut(a.sub, "/")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		a.verb = "get"
		if t.name == "" || t.watch {
			a.verb = "list"
			v := r.URL.Query()
			if w := v.Get("watch"); t.watch || v.Has("watch") && w != "false" && w != "0" {
				a.verb = "watch"
			}
			if sel, err := fields.ParseSelector(v.Get("fieldSelector")); err == nil && a.name == "" {
				a.name, _ = sel.RequiresExactMatch("metadata.name")
			}
		}
	case http.MethodPost:
		a.verb = "create"
	case http.MethodPut:
		a.verb = "update"
	case http.MethodPatch:
		a.verb = "patch"
	case http.MethodDelete:
		a.verb = "delete"
		if t.name == "" {
			a.verb = "deletecollection"
		}
	}
	return a
}

// alwaysAllowed are the paths that need no authorization (the API server's
// flag authorization-always-allow-paths).
var alwaysAllowed = []string{"/healthz", "/livez", "/readyz"}

// authorize refuses with 403 what the cluster's roles don't allow, in the API
// server's words.
func (c *Cluster) authorize(a attributes) error {
	if rbac.Privileged(a.user) || a.path != "" && slices.Contains(alwaysAllowed, a.path) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge(a)
}

// mayCreate is asked of an apply that would create, beside the question
// whether the user may patch: unlike a POST it names the object (the API
// server's handlers/patch.go).
func (c *Cluster) mayCreate(res *resource, ns, name string, o writeOptions) error {
	if o.user == nil || rbac.Privileged(o.user) {
		return nil
	}
	return c.judge(attributes{user: o.user, verb: "create", group: res.group, version: o.version, resource: res.plural, namespace: ns, name: name})
}

// judge is authorize for somebody who needs roles. The lock is held.
func (c *Cluster) judge(a attributes) error {
	allowed, reason, err := c.allowed(a.record())
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if allowed {
		return nil
	}
	msg := forbiddenText.Replace(a.forbidden())
	if reason != "" {
		msg += ": " + reason
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: a.group, Resource: a.resource}, a.name, fmt.Errorf("%s", msg))
}

// forbiddenText keeps a message from looking like HTML, as the server does.
var forbiddenText = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

func (a attributes) forbidden() string {
	if a.path != "" {
		return fmt.Sprintf("User %q cannot %s path %q", a.user.GetName(), a.verb, a.path)
	}
	res, scope := a.resource, "at the cluster scope"
	if a.sub != "" {
		res += "/" + a.sub
	}
	if a.namespace != "" {
		scope = fmt.Sprintf("in the namespace %q", a.namespace)
	}
	return fmt.Sprintf("User %q cannot %s resource %q in API group %q %s", a.user.GetName(), a.verb, res, a.group, scope)
}

// allowed asks the stored roles. The lock is held.
func (c *Cluster) allowed(a authorizer.AttributesRecord) (bool, string, error) {
	p, err := c.rbac()
	if err != nil {
		return false, "", err
	}
	d, reason, err := p.Authorize(context.Background(), a)
	return d == authorizer.DecisionAllow, reason, err
}

// rbac is the policy of the stored roles, made when it is first asked for and
// again after a role or binding changed. The lock is held.
func (c *Cluster) rbac() (*rbac.Policy, error) {
	if c.policy != nil {
		return c.policy, nil
	}
	w := &world{c: c}
	p, err := rbac.New(func(resource string) []*unstructured.Unstructured {
		return w.List(schema.GroupResource{Group: rbac.Group, Resource: resource}, "")
	})
	c.policy = p
	return p, err
}

// admitted finds out who makes a request, and refuses what they may not do.
func (c *Cluster) admitted(r *http.Request, t target, isResource bool) (*User, error) {
	u, err := c.authenticate(r)
	if err != nil {
		return u, err
	}
	if u == administrator && !impersonates(r.Header) {
		return u, c.throttle(r, u)
	}
	a := attributesOf(r, t, isResource, u)
	if a.user, err = c.impersonate(r.Header, a); err != nil {
		return u, err
	}
	if err := c.throttle(r, a.user); err != nil {
		return a.user, err
	}
	return a.user, c.authorize(a)
}

// impersonates reports whether a request has a header of impersonation.
func impersonates(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, "Impersonate-") {
			return true
		}
	}
	return false
}

// refuse answers a request that is not admitted. One for a resource that the
// cluster serves is in the request log.
func (c *Cluster) refuse(w http.ResponseWriter, r *http.Request, t target, isResource bool, u *User, err error) {
	if isResource && r.UserAgent() != AdminAgent {
		c.mu.Lock()
		if q, perr := c.parse(r, t); perr == nil {
			q.user = u
			req := c.requestOf(q, r, nil)
			req.Code = statusCode(err)
			c.logRequest(&req)
		}
		c.mu.Unlock()
	}
	if statusCode(err) == http.StatusTooManyRequests {
		writeThrottled(w, err)
		return
	}
	writeError(w, err)
}

// rolesChanged follows a change of a role or binding: the policy is made anew
// when it is next asked for, and ClusterRoles take in each other's rules.
func (c *Cluster) rolesChanged(ch change) {
	c.policy = nil
	if ch.key.gr == grClusterRoles {
		c.aggregate()
	}
}

// aggregate does what the aggregation controller does: server-side apply of
// the rules that a ClusterRole's selectors choose.
func (c *Cluster) aggregate() {
	if c.aggregating {
		return // the loop below goes on until nothing changes
	}
	c.aggregating = true
	defer func() { c.aggregating = false }()
	w := &world{c: c}
	for again := true; again; {
		again = false
		roles := w.List(grClusterRoles, "")
		for _, u := range roles {
			rules, changed, err := rbac.Aggregate(u, roles)
			if err != nil || !changed {
				continue // a selector that cannot be read chooses nothing
			}
			again = c.applyRules(u.GetName(), rules) || again
		}
	}
}

func (c *Cluster) applyRules(name string, rules []rbacv1.PolicyRule) bool {
	body, err := json.Marshal(map[string]any{"apiVersion": rbac.Group + "/v1", "kind": "ClusterRole", "metadata": map[string]any{"name": name}, "rules": rules})
	if err != nil {
		return false
	}
	_, _, err = c.apply(c.reg.byName[grClusterRoles], "", name, body, true, writeOptions{manager: "clusterrole-aggregation-controller"})
	return err == nil
}
