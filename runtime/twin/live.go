package twin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	apidiscovery "k8s.io/api/apidiscovery/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/sim"
)

// ErrUnreachable is the error of a rehearsal whose cluster stopped answering.
var ErrUnreachable = errors.New("the cluster does not answer any more")

// live is the cluster behind a twin, reached through the guard alone.
type live struct {
	ctx  context.Context //nolint:containedctx // sim.Backing is asked by controllers, which have none
	link *cluster.Link
	// guard is nil until the link is made, and the only way out of it.
	guard  *guard
	said   *assumptions
	mu     sync.Mutex      // guards what follows
	denied map[string]bool // verb and kind of dry-runs that the user may not make
	counts Counts
	coming map[sim.Part]<-chan fetched // asked for ahead, until Fetch takes it
}

// count adds to a number of requests.
func (l *live) count(of func(*Counts) *int, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*of(&l.counts) += n
}

func (l *live) deny(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.denied[what] = true
}

func (l *live) isDenied(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.denied[what]
}

// Counts are the requests that a twin has sent.
type Counts struct {
	Lists   int `json:"lists"` // pages of lists
	Gets    int `json:"gets"`  // single objects
	Objects int `json:"objects"`
	DryRuns int `json:"dryRuns"`
	Reviews int `json:"reviews"`
}

func newLive(ctx context.Context, c *cluster.Client, said *assumptions) (*live, error) {
	l := &live{ctx: ctx, said: said, denied: map[string]bool{}}
	var err error
	l.link, err = c.Link(func(base *url.URL, next http.RoundTripper) http.RoundTripper {
		l.guard = newGuard(base, next)
		return l.guard
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// do sends one request, and gives the body of an answer that is no error.
func (l *live) do(method, p string, query url.Values, header http.Header, body []byte) ([]byte, error) {
	u := *l.link.Base
	u.Path = strings.TrimSuffix(u.Path, "/") + p
	u.RawQuery = query.Encode()
	r, err := http.NewRequestWithContext(l.ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if len(body) == 0 {
		r.Body, r.ContentLength = http.NoBody, 0
	}
	for k, v := range header {
		r.Header[k] = v
	}
	resp, err := l.link.HTTP.RoundTrip(r)
	var refused *RefusedError
	switch {
	case errors.As(err, &refused):
		return nil, refused
	case err != nil:
		return nil, fmt.Errorf("%s %s: %w: %w", method, p, ErrUnreachable, err)
	}
	data, err := io.ReadAll(resp.Body)
	if cerr := resp.Body.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %w", method, p, ErrUnreachable, err)
	}
	if resp.StatusCode >= 400 {
		return nil, statusError(method, resp.StatusCode, data)
	}
	return data, nil
}

// statusError is the server's error, in its own words where it sent a Status.
func statusError(method string, code int, data []byte) error {
	st := metav1.Status{}
	if json.Unmarshal(data, &st) == nil && st.Kind == "Status" && st.Code != 0 {
		return &apierrors.StatusError{ErrStatus: st}
	}
	return apierrors.NewGenericServerResponse(code, strings.ToLower(method), schema.GroupResource{}, "", strings.TrimSpace(string(data)), 0, true)
}

func pathOf(gvr schema.GroupVersionResource, namespace, name string) string {
	p := "/apis/" + gvr.Group + "/" + gvr.Version
	if gvr.Group == "" {
		p = "/api/" + gvr.Version
	}
	if namespace != "" {
		p += "/namespaces/" + namespace
	}
	p += "/" + gvr.Resource
	if name != "" {
		p += "/" + name
	}
	return p
}

var asJSON = http.Header{"Accept": {"application/json"}}

// Ask implements sim.Backing.
func (l *live) Ask(q sim.Question) ([]byte, bool, error) {
	if q.Sub == "log" {
		data, err := l.do(http.MethodGet, pathOf(q.GVR, q.Namespace, q.Name)+"/log", q.Query, nil, nil)
		return data, true, err
	}
	review := strings.HasSuffix(q.GVR.Resource, "reviews")
	if review && q.GVR.Resource == "tokenreviews" {
		return nil, false, nil
	}
	method := map[string]string{"create": http.MethodPost, "update": http.MethodPut, "patch": http.MethodPatch, "delete": http.MethodDelete}[q.Verb]
	query := url.Values{}
	for k, v := range q.Query {
		query[k] = slices.Clone(v)
	}
	header := http.Header{"Accept": {"application/json"}, "Content-Type": {q.ContentType}}
	if review {
		l.count(func(c *Counts) *int { return &c.Reviews }, 1)
		data, err := l.do(method, pathOf(q.GVR, q.Namespace, q.Name), query, header, q.Body)
		var refused *RefusedError
		if errors.As(err, &refused) { // what the guard does not know is for the simulation to answer
			return nil, false, nil
		}
		return data, true, err
	}
	who := q.Verb + " " + q.GVR.GroupResource().String()
	if l.isDenied(who + " " + q.Namespace) {
		return nil, false, nil
	}
	query.Set("dryRun", metav1.DryRunAll)
	l.count(func(c *Counts) *int { return &c.DryRuns }, 1)
	data, err := l.do(method, pathOf(q.GVR, q.Namespace, q.Name), query, header, q.Body)
	var refused *RefusedError
	switch {
	case err == nil:
		return data, true, nil
	case errors.As(err, &refused):
		l.said.say(Assumption{Code: DryRunLeftOut, Subject: q.GVR.GroupResource().String(), Text: "was not asked of the server: " + refused.Why})
		return nil, false, nil
	case cluster.MissingRight(err) != "":
		l.deny(who + " " + q.Namespace)
		l.said.say(Assumption{Code: DryRunLeftOut, Subject: cluster.MissingRight(err), Text: "is not yours by these credentials: what admission, quotas and other owners say to it is not known"})
		return nil, false, nil
	case apierrors.IsBadRequest(err) && strings.Contains(err.Error(), "dry run"):
		l.said.say(Assumption{Code: DryRunLeftOut, Subject: q.GVR.GroupResource().String(), Text: "can't be rehearsed by the server: " + err.Error()})
		return nil, false, nil
	}
	return nil, true, err
}

// served asks the cluster what it serves.
func (l *live) served() ([]sim.Served, error) {
	accept := http.Header{"Accept": {"application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"}}
	var core, groups []sim.Served
	list := func(root string, out *[]sim.Served) func() error {
		return func() error {
			data, err := l.do(http.MethodGet, root, nil, accept, nil)
			if err != nil {
				return err
			}
			var groups apidiscovery.APIGroupDiscoveryList
			if err := json.Unmarshal(data, &groups); err != nil {
				return fmt.Errorf("discovery: %w", err)
			}
			if groups.Kind != "APIGroupDiscoveryList" {
				return errors.New("discovery: the server has no aggregated discovery (Kubernetes 1.30 and later have it)")
			}
			for _, g := range groups.Items {
				*out = append(*out, servedBy(g)...)
			}
			return nil
		}
	}
	err := together(list("/api", &core), list("/apis", &groups))
	return append(core, groups...), err
}

func servedBy(g apidiscovery.APIGroupDiscovery) []sim.Served {
	var out []sim.Served
	at := map[string]int{}
	for _, v := range g.Versions {
		for _, r := range v.Resources {
			if r.ResponseKind == nil {
				continue
			}
			if i, ok := at[r.Resource]; ok {
				out[i].Versions = append(out[i].Versions, v.Version)
				continue
			}
			readable := slices.Contains(r.Verbs, "list") || slices.Equal(r.Verbs, []string{"create"})
			if !readable {
				continue
			}
			at[r.Resource] = len(out)
			out = append(out, sim.Served{
				Group: g.Name, Versions: []string{v.Version}, Plural: r.Resource, Singular: r.SingularResource, Kind: r.ResponseKind.Kind,
				Namespaced: r.Scope == apidiscovery.ScopeNamespace, Short: r.ShortNames, Categories: r.Categories,
			})
		}
	}
	return out
}
