package impact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/mesh"
	"rutter.dev/rutter/runtime/plan"
	"rutter.dev/rutter/runtime/twin"
)

// Report is the blast radius of a change. Its JSON is the format of -o json:
// fields are only added.
type Report struct {
	Cluster plan.Cluster `json:"cluster"`
	Changes []Made       `json:"changes"`
	// Now are the workloads whose pods are made anew, or go, as soon as the change
	// is made; Later those whose pods come out otherwise when they are made next;
	// Never the other ones of the mesh. Each in the order of its refs.
	Now   []Affected `json:"now"`
	Later []Affected `json:"later"`
	Never []Affected `json:"never"`
	// Findings are what becomes of stored objects, by a change of a
	// CustomResourceDefinition (RUT009).
	Findings    []gate.Finding    `json:"findings"`
	Assumptions []twin.Assumption `json:"assumptions"`
}

// Any reports whether anything is made anew now or later, or breaks.
func (r *Report) Any() bool { return len(r.Now)+len(r.Later)+len(r.Findings) > 0 }

// Made is one change as it was made on the twin.
type Made struct {
	Text   string       `json:"text"` // what a person calls it
	Ref    cluster.Ref  `json:"ref"`
	Fields []plan.Field `json:"fields,omitempty"` // that it changes of an object that was there
	// Nothing: the object is already as the change would have it.
	Nothing bool `json:"nothing,omitempty"`
	Masked  bool `json:"masked,omitempty"` // of a Secret: fields are not shown
}

// Affected is a workload with its pods.
type Affected struct {
	Ref  cluster.Ref `json:"ref"`
	Role string      `json:"role"` // sidecar, gateway, waypoint, ztunnel, control plane; "" without a proxy
	Pods []string    `json:"pods"` // that are there now
	From string      `json:"from,omitempty"`
	To   string      `json:"to,omitempty"` // versions of the proxy
	Why  string      `json:"why"`
	// Fields in which a new pod differs from one that would be made without the
	// change.
	Fields []plan.Field `json:"fields,omitempty"`
	// Outdated: restart.outdated finds it after the change.
	Outdated bool `json:"outdated,omitempty"`
	// Course is how its restart goes, of what rolls now.
	Course *plan.Restart `json:"course,omitempty"`
}

// Change is one change that can be made on a twin: Make writes, or asks for a
// dry-run, and gives the object as the server then has it; nil of what is deleted.
type Change struct {
	Text string
	Ref  cluster.Ref
	Make func(ctx context.Context, w cluster.Writer, dryRun bool) (*cluster.Object, error)
}

// Request is what to look at.
type Request struct {
	Twin    *twin.Twin
	Version string // of rutter, for the server's log
	// Changes makes the changes out from the cluster as it is.
	Changes func(ctx context.Context, c *cluster.Client) ([]Change, error)
}

// How long a change is watched: until nothing has happened for calm, and at most
// limit, both on virtual time.
const (
	calm  = 2 * time.Minute
	limit = time.Hour
)

// Of finds the blast radius of a request's changes, taken together. An API server
// that refuses one of them is an error with the code of a gate that blocks, which
// names what it said; a cluster that falls silent meanwhile is
// twin.ErrUnreachable. Nothing in the cluster is changed.
func Of(ctx context.Context, q Request) (*Report, error) {
	c, err := q.Twin.Client(q.Twin.Clock(), cluster.ClientOptions{Version: q.Version})
	if err != nil {
		return nil, err
	}
	r, err := of(ctx, q, c)
	if broken := q.Twin.Err(); broken != nil {
		return nil, &diag.Error{
			Code: diag.Usage, Subject: "cluster " + c.Context(), Problem: "stopped answering while the change was looked at, which says nothing therefore", Err: broken,
			Changed: "nothing", Next: "ask again when it answers",
		}
	}
	return r, err
}

func of(ctx context.Context, q Request, c *cluster.Client) (*Report, error) {
	r := &Report{Changes: []Made{}, Findings: []gate.Finding{}}
	uid, err := c.UID(ctx)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: identity: %w", c.Context(), err)
	}
	r.Cluster = plan.Cluster{Context: c.Context(), UID: uid}
	changes, err := q.Changes(ctx, c)
	if err != nil {
		return nil, err
	}
	before, err := look(ctx, c)
	if err != nil {
		return nil, err
	}
	begins := q.Twin.Clock().Now()
	for i := range changes {
		if err := r.take(ctx, c, &changes[i]); err != nil {
			return nil, err
		}
	}
	if err := settle(ctx, q.Twin); err != nil {
		return nil, err
	}
	after, err := look(ctx, c)
	if err != nil {
		return nil, err
	}
	outdated, err := mesh.Outdated(ctx, c)
	if err != nil { // by a change that breaks what it reads: its own report goes on without
		q.Twin.Assume(twin.Assumption{Code: twin.Unreadable, Subject: "restart.outdated", Text: "can't say after the change what it would restart: " + err.Error()})
	}
	s := sorter{r: r, before: before, after: after, outdated: outdated, rolled: plan.Rolled(q.Twin, begins), moved: q.Twin.Changes()}
	s.sort()
	if len(r.Now) > 0 {
		plan.AssumeOfPods(q.Twin)
	}
	q.Twin.Assume(twin.Assumption{Code: twin.Simulated, Subject: "injection", Text: "is by the code that this rutter is linked with, fed with the cluster's own configuration of its injectors"})
	r.Assumptions = q.Twin.Assumptions()
	return r, nil
}

// take makes one change and notes what it did.
func (r *Report) take(ctx context.Context, c *cluster.Client, ch *Change) error {
	was, err := c.Get(ctx, ch.Ref)
	if err != nil && !errors.Is(err, cluster.ErrNotFound) && !errors.Is(err, cluster.ErrDenied) {
		return err
	}
	found, err := definition(ctx, c, ch, was)
	if err != nil {
		return err
	}
	is, err := ch.Make(ctx, c, false)
	switch {
	case errors.Is(err, cluster.ErrNotFound):
		return &diag.Error{Code: diag.Usage, Subject: ch.Ref.String(), Problem: "is not there", Changed: "nothing"}
	case errors.Is(err, cluster.ErrDenied), errors.Is(err, cluster.ErrInvalid), errors.Is(err, cluster.ErrConflict):
		return &diag.Error{Code: diag.Blocked, Subject: ch.Text, Problem: "the API server refuses it", Err: err, Changed: "nothing"}
	case err != nil:
		return fmt.Errorf("%s: %w", ch.Text, err)
	}
	m := Made{Text: ch.Text, Ref: ch.Ref, Fields: plan.Differing(was, is), Nothing: was != nil && is != nil}
	m.Nothing = m.Nothing && len(m.Fields) == 0
	if ch.Ref.Group == "" && ch.Ref.Kind == "Secret" {
		m.Fields, m.Masked = nil, true
	}
	r.Changes = append(r.Changes, m)
	r.Findings = append(r.Findings, found...)
	return nil
}

// settle lets the twin live on until nothing happens any more.
func settle(ctx context.Context, t *twin.Twin) error {
	end := t.Clock().Now().Add(limit)
	for t.Clock().Now().Before(end) {
		if err := t.Clock().Sleep(ctx, calm); err != nil {
			return err
		}
		if t.Err() != nil {
			return t.Err()
		}
		now, busy := t.Clock().Now(), false
		for _, w := range t.Workloads() {
			busy = busy || now.Sub(w.Ended) < calm
		}
		if !busy {
			return nil
		}
	}
	return nil
}

func byRef(a, b Affected) int { return cmp.Compare(a.Ref.ID(), b.Ref.ID()) }

// revised is a proxy as a person tells it from another: its version, and the
// revision that injected it where that is not the default one.
func revised(p *mesh.Proxy) string {
	if p == nil {
		return ""
	}
	s := cmp.Or(p.Version, p.Image)
	if p.Revision != "" && p.Revision != mesh.DefaultRevision {
		s += " of revision " + p.Revision
	}
	return s
}

func clip(list []string, most int) string {
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}
