//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/rest"

	"rutter.dev/rutter/tests/e2e/plane"
)

// change is a request of rutter's to change something, as the API server wrote
// it down.
type change struct {
	verb, resource, namespace, name string
	body                            string
	code                            int32
	agent                           string
}

func (c change) what() string {
	return fmt.Sprintf("%s %s %s/%s", c.verb, c.resource, c.namespace, c.name)
}

// target is the object that was to be changed.
func (c change) target() string { return c.resource + " " + c.namespace + "/" + c.name }

// kind is what the change was for: an object may be applied, restarted, and
// given other owners, but each only once.
func (c change) kind() string {
	switch {
	case c.verb != "patch":
		return c.verb
	case strings.Contains(c.body, "/metadata/managedFields"):
		return "move of fields"
	case strings.Contains(c.body, `"rutter.dev/restart"`):
		return "restart"
	}
	return "apply"
}

// taken tells whether the change was made.
func (c change) taken() bool { return c.code >= http.StatusOK && c.code < http.StatusMultipleChoices }

func auditMark(t *testing.T, p *plane.Plane) int64 {
	t.Helper()
	mark, err := p.AuditMark()
	if err != nil {
		t.Fatal(err)
	}
	return mark
}

// changes are the changes that rutter asked for since a mark, in the order in
// which they were answered. Dry-runs and questions about permissions change
// nothing; the lock is not of the mesh. The plane needs audit level Request.
func changes(t *testing.T, p *plane.Plane, mark int64) []change {
	t.Helper()
	settleAudit(t, p, mark)
	return logged(t, p, mark)
}

// logged are those of them that are in the log already.
func logged(t *testing.T, p *plane.Plane, mark int64) []change {
	t.Helper()
	r := record{t: t, p: p, mark: mark}
	return r.read()
}

// record follows the changes in the log: it reads each of them once.
type record struct {
	t    *testing.T
	p    *plane.Plane
	mark int64 // up to which it was read
	all  []change
}

// read returns all changes that are in the log now.
func (r *record) read() []change {
	r.t.Helper()
	events, next, err := r.p.AuditFrom(r.mark, plane.WritesBy(plane.Operator))
	if err != nil {
		r.t.Fatal(err)
	}
	r.mark = next
	for i := range events {
		if c, ok := changeOf(r.t, &events[i]); ok {
			r.all = append(r.all, c)
		}
	}
	return r.all
}

func changeOf(t *testing.T, e *auditv1.Event) (change, bool) {
	t.Helper()
	u, err := url.Parse(e.RequestURI)
	if err != nil {
		t.Fatal(err)
	}
	if e.ObjectRef == nil {
		return change{}, false
	}
	c := change{verb: e.Verb, resource: e.ObjectRef.Resource, namespace: e.ObjectRef.Namespace, name: e.ObjectRef.Name, agent: e.UserAgent}
	if e.ObjectRef.Subresource != "" {
		c.resource += "/" + e.ObjectRef.Subresource
	}
	if e.ResponseStatus != nil {
		c.code = e.ResponseStatus.Code
	}
	if e.RequestObject != nil {
		c.body = string(e.RequestObject.Raw)
	}
	switch {
	case u.Query().Get("dryRun") != "" || strings.Contains(c.body, `"dryRun":["All"]`): // a deletion says it in its body
		return change{}, false
	case slices.Contains([]string{"selfsubjectaccessreviews", "selfsubjectrulesreviews"}, c.resource):
		return change{}, false
	case c.resource == "leases" && e.ObjectRef.APIGroup == "coordination.k8s.io":
		return change{}, false
	}
	return c, true
}

// settleAudit waits until the audit log has all that was asked before now: a
// request that is made now is in it.
func settleAudit(t *testing.T, p *plane.Plane, mark int64) {
	t.Helper()
	config := rest.CopyConfig(p.Config())
	config.UserAgent = "rutter-e2e-" + strings.ReplaceAll(t.Name(), "/", "-")
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the audit log is written", func(ctx context.Context) (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL()+"/version", nil)
		if err != nil {
			return false, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return false, err
		}
		if err := resp.Body.Close(); err != nil {
			return false, err
		}
		last, err := p.AuditSince(mark, func(e *auditv1.Event) bool { return e.UserAgent == config.UserAgent })
		return len(last) > 0, err
	})
}
