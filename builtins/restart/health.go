package restart

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/value"
)

// queryKind names the encoding of Query.
const queryKind = "metrics.query/1"

// Query is a question about the health of the services; it is what
// metrics.query returns. Immutable.
type Query struct{ effect.Health }

var (
	_ value.Handle      = (*Query)(nil)
	_ starlark.HasAttrs = (*Query)(nil)
)

type queryArgs struct {
	PromQL   string        `star:"promql,positional" doc:"an expression that gives an instant vector or a scalar"`
	Name     string        `star:"name" doc:"what a finding calls it; the expression if not given"`
	Max      *float64      `star:"max" doc:"the most that any series may be"`
	Min      *float64      `star:"min" doc:"the least that any series may be"`
	Interval time.Duration `star:"interval" default:"0s" doc:"between two looks; the policy's if not given, else 30s"`
}

func querySpec() *builtin.Spec {
	return builtin.NewPure(builtin.PureDef[queryArgs]{
		Name: "metrics.query", Returns: "health_query",
		Doc: `A question about the health of the services, and the answers with which to go on.
The Prometheus of the organization's policy is asked before each wave, while it
rolls and while it soaks; a series out of bounds stops the run (RUT014), and so
does an answer that is missing or not a number. A rehearsal asks nobody and says
so.`,
		Example: `metrics.query("sum(rate(istio_requests_total{response_code=~\"5..\"}[1m]))", max = 0.5, name = "errors per second")`,
		Do: func(_ *builtin.Call, a *queryArgs) (any, error) {
			switch {
			case a.PromQL == "":
				return nil, diag.Usagef("metrics.query", "promql: got nothing, want an expression")
			case a.Max == nil && a.Min == nil:
				return nil, diag.Usagef("metrics.query", "want max or min, or both: without a bound nothing is ever wrong")
			case a.Max != nil && a.Min != nil && *a.Max < *a.Min:
				return nil, diag.Usagef("metrics.query", "max %g is less than min %g", *a.Max, *a.Min)
			case a.Interval < 0 || a.Interval > 0 && a.Interval < time.Second:
				return nil, diag.Usagef("metrics.query", "interval: got %s, want at least 1s", a.Interval)
			case a.Name == "":
				a.Name = a.PromQL
			}
			return &Query{effect.Health{Name: a.Name, Query: a.PromQL, Max: a.Max, Min: a.Min, Interval: a.Interval}}, nil
		},
	})
}

// String is the question as a person reads it.
func (q *Query) String() string { return fmt.Sprintf("metrics.query(%q)", q.Query) }

// Type implements starlark.Value.
func (q *Query) Type() string { return "health_query" }

// Freeze implements starlark.Value; a Query is always frozen.
func (q *Query) Freeze() {}

// Truth implements starlark.Value.
func (q *Query) Truth() starlark.Bool { return true }

// Hash implements starlark.Value.
func (q *Query) Hash() (uint32, error) { return 0, errors.New("unhashable type: health_query") }

// Attr gives name and query.
func (q *Query) Attr(name string) (starlark.Value, error) {
	switch name {
	case "name":
		return starlark.String(q.Name), nil
	case "query":
		return starlark.String(q.Query), nil
	}
	return nil, nil
}

// AttrNames implements starlark.HasAttrs.
func (q *Query) AttrNames() []string { return []string{"name", "query"} }

// HandleKind implements value.Handle.
func (q *Query) HandleKind() string { return queryKind }

// EncodeHandle implements value.Handle.
func (q *Query) EncodeHandle() (json.RawMessage, error) { return json.Marshal(q.Health) }

func decodeQuery(raw json.RawMessage) (starlark.Value, error) {
	q := &Query{}
	if err := json.Unmarshal(raw, &q.Health); err != nil {
		return nil, fmt.Errorf("health query: %w", err)
	}
	return q, nil
}

// asked are the questions of queries.
func asked(qs []*Query) []effect.Health {
	var out []effect.Health
	for _, q := range qs {
		out = append(out, q.Health)
	}
	return out
}

// every is how often the host is to judge the health of the services; 0: never.
func (d *driver) every() time.Duration {
	if d.c.HealthEvery == nil {
		return 0
	}
	return d.c.HealthEvery(d.lim.health)
}

// untilLook is how long until the next look is due, at most the given time.
func (d *driver) untilLook(most time.Duration) time.Duration {
	every := d.every()
	switch {
	case every == 0:
		return most
	case d.judged.IsZero():
		return min(most, every)
	}
	return min(most, max(0, d.judged.Add(every).Sub(d.now())))
}

// healthy has the host look how the services are, unless it did a moment ago.
// settled: no workload is on its way.
func (d *driver) healthy(settled bool) error {
	every := d.every()
	if every == 0 || !d.judged.IsZero() && d.now().Sub(d.judged) < every {
		return nil
	}
	d.judged = d.now()
	return d.c.Health(effect.Look{Queries: d.lim.health, Settled: settled})
}
