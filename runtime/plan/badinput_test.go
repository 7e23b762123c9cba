package plan_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/plan"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/twin"
)

// roundTrip is a transport made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// assumed demands an assumption of a plan, in every form of it.
func assumed(t *testing.T, p *plan.Plan, code twin.Code, want string) {
	t.Helper()
	found := false
	for _, a := range p.Assumptions {
		found = found || a.Code == code && strings.Contains(a.String(), want)
	}
	if !found {
		t.Errorf("no assumption %s: %q among %+v", code, want, p.Assumptions)
	}
	var text bytes.Buffer
	if err := p.Text(&text); err != nil || !strings.Contains(text.String(), want) {
		t.Errorf("the text does not name %q: %v", want, err)
	}
}

// A webhook that does not say it has no side effects refuses dry-runs (the API
// server's words are those of k8s.io/apiserver, NewDryRunUnsupportedErr): the plan is
// made without asking, and says so.
func TestWebhookWithoutDryRun(t *testing.T) {
	l := newLab(t)
	l.wrap = func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.URL.Query().Get("dryRun") == "" || !strings.Contains(r.URL.Path, "/configmaps/") {
				return next.RoundTrip(r)
			}
			body := `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"admission webhook \"old.example.org\" does not support dry run","reason":"BadRequest","code":400}`
			return &http.Response{
				StatusCode: http.StatusBadRequest, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r,
			}, nil
		})
	}
	p := l.planned()
	if p.Status != "done" || len(p.Effects) == 0 {
		t.Fatalf("status %s: %s", p.Status, p.Error)
	}
	assumed(t, p, twin.DryRunLeftOut, `configmaps can't be rehearsed by the server: admission webhook "old.example.org" does not support dry run`)
}

// A kind that the user may not read is named, and the plan goes on without it.
func TestKindThatMayNotBeRead(t *testing.T) {
	l := newLab(t)
	l.sim = l.cluster(objects + `
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: all}, rules: [
 {apiGroups: ["", apps, batch, autoscaling, discovery.k8s.io, apiextensions.k8s.io, admissionregistration.k8s.io, authorization.k8s.io, coordination.k8s.io, networking.k8s.io], resources: ["*"], verbs: ["*"]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: all}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: all}, subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: eve}]}
`)
	l.user = "eve"
	p := l.planned()
	assumed(t, p, twin.Unreadable, "poddisruptionbudgets.policy may not be read with these credentials: as far as the twin is concerned there are none")
}

// A cluster that falls silent after n requests: there is no plan, whenever that is,
// and the error says why and asks for exit code 2.
func TestUnreachableHalfWay(t *testing.T) {
	var counted atomic.Int64 // requests overlap
	l := newLab(t)
	l.wrap = func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			counted.Add(1)
			return next.RoundTrip(r)
		})
	}
	l.planned()
	sent := int(counted.Load())
	began := 0
	for n := 0; n < sent; n += 2 {
		l := newLab(t)
		var left atomic.Int64
		left.Store(int64(n))
		l.wrap = func(next http.RoundTripper) http.RoundTripper {
			return roundTrip(func(r *http.Request) (*http.Response, error) {
				if left.Add(-1) < 0 {
					return nil, errors.New("no route to host")
				}
				return next.RoundTrip(r)
			})
		}
		p, err := l.plan()
		switch {
		case err == nil:
			t.Errorf("silent after %d of %d requests: a plan that ended as %s", n, sent, p.Status)
		case !errors.Is(err, twin.ErrUnreachable):
			t.Errorf("silent after %d of %d requests: %v", n, sent, err)
		case strings.Contains(err.Error(), "stopped answering while the plan was made"):
			began++
			if diag.ExitCode(err) != diag.Usage {
				t.Errorf("silent after %d requests: exit code %d", n, diag.ExitCode(err))
			}
		}
	}
	if began < sent/3 {
		t.Errorf("of %d requests the loss of %d only was told as that of a plan under way", sent, began)
	}
}

// A saved plan whose cluster does not answer when it is compared is no plan that
// differs: the run is not begun, and the error is the cluster's.
func TestUnreachableWhenCompared(t *testing.T) {
	l := newLab(t)
	_, p := l.saved()
	l.sim.Inject(sim.Fault{Verb: "get", Resource: "configmaps", Kind: sim.FaultStatus, Code: 500, Reason: "InternalError", Message: "etcd is gone", Times: -1})
	rb, params := l.runbook()
	ds, err := p.Differences(t.Context(), plan.World{Runbook: rb, Params: params, Cluster: l.client(), From: p.From})
	if err == nil || len(ds) > 0 {
		t.Errorf("differences %v, error %v", ds, err)
	}
}
