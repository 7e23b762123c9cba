package gate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/metrics"
)

// ErrAssumed is the answer of Metrics in a rehearsal: nothing was sent (DESIGN
// §8 ruling 12).
var ErrAssumed = errors.New("a rehearsal asks no Prometheus")

// Metrics answers PromQL; *metrics.Client does.
type Metrics interface {
	// Query is the expression's value now; no samples mean no data. Its error is
	// ErrAssumed in a rehearsal.
	Query(ctx context.Context, promql string) ([]metrics.Sample, error)
}

// Assumed is the Metrics of a rehearsal.
type Assumed struct{}

// Query implements Metrics.
func (Assumed) Query(context.Context, string) ([]metrics.Sample, error) { return nil, ErrAssumed }

// healthInterval is the time between two looks where the policy names none.
const healthInterval = 30 * time.Second

var health = &Gate{
	Code: HealthKept, Name: "health",
	Rationale: "Pods that are ready say little about the service that they give. What the users see is in its metrics, and a restart that hurts them must stop at the wave that shows it, not at the last one.",
	Source:    "DESIGN §3; Google SRE workbook, canarying releases; Prometheus HTTP API",
	Before: func(ctx context.Context, r cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
		if run.Rollback { // the way out is not held up by what it is the way out of
			return nil, nil
		}
		if run.Forecast {
			if slices.ContainsFunc(run.Earlier, touchesData) {
				return nil, nil // said once, by the first
			}
			run.Pulse.touch(run.Call...)
			run.Pulse.touch(e)
			return run.Pulse.look(ctx, r, run, look{Look: effect.Look{Queries: e.Health, Settled: true}, afresh: true, rebase: true})
		}
		run.Pulse.touch(e)
		begins := run.Pulse.begins(e.Wave)
		return run.Pulse.look(ctx, r, run, look{Look: effect.Look{Queries: e.Health, Settled: begins}, afresh: begins, rebase: begins})
	},
}

func touchesData(e *effect.Effect) bool {
	return slices.Contains(byClass[e.Class], HealthKept)
}

// HealthEvery is how often a call with these queries is to be looked at; 0 where
// neither policy nor call says what health is.
func HealthEvery(p *Policy, of []effect.Health) time.Duration {
	out := time.Duration(0)
	for _, q := range questions(p, of) {
		if out == 0 || q.Interval < out {
			out = q.Interval
		}
	}
	if out == 0 && (p.Thresholds.MaxRestarts != nil || p.Thresholds.MaxNotReady != nil) {
		out = healthInterval
	}
	return out
}

// JudgeHealth runs RUT014 while a call is under way: between waves, while one
// rolls, and while it soaks. It is called as often as HealthEvery says, and asks
// what would be due before it is called again: so nothing goes unasked for longer
// than its interval, whatever an effect asked in between.
func JudgeHealth(ctx context.Context, r cluster.Reader, run *Run, l effect.Look) []Finding {
	return each(run, &effect.Effect{Class: effect.Restart}, func(g *Gate) ([]Finding, error) {
		if g != health || run.Rollback {
			return nil, nil
		}
		return run.Pulse.look(g.asking(ctx), r, run, look{Look: l, next: HealthEvery(run.Policy, l.Queries)})
	})
}

// questions are the policy's queries and the call's, with their intervals.
func questions(p *Policy, of []effect.Health) []effect.Health {
	every := healthInterval
	var out []effect.Health
	if p.Prometheus != nil {
		if p.Prometheus.Interval > 0 {
			every = p.Prometheus.Interval
		}
		for _, q := range p.Prometheus.Queries {
			out = append(out, effect.Health(q))
		}
	}
	out = append(out, of...)
	for i := range out {
		if out[i].Interval <= 0 {
			out[i].Interval = every
		}
	}
	return out
}

// Pulse is what a run has seen of the services' health: what was asked when, and
// what counts as new since the last wave. Safe for concurrent use. A nil Pulse
// knows nothing and asks each time.
type Pulse struct {
	mu     sync.Mutex
	asked  map[string]time.Time // by query
	found  map[string][]Finding // what the last look found
	wave   string
	begun  bool
	spaces map[string]bool  // namespaces that the run changes
	base   map[string]int64 // container restarts of each pod when the last wave ended
	looked time.Time        // at pods
	pods   []Finding
}

// look is one look and how it is taken.
type look struct {
	effect.Look
	afresh bool          // ask whatever was asked a moment ago
	rebase bool          // a new wave begins: what happened until now is past
	next   time.Duration // until the next look; 0 where nobody says
}

// due reports whether what is to be looked at as often as that, and was last at
// that time, is not to be left until the next look.
func (l look) due(now, last time.Time, every time.Duration) bool {
	since := now.Sub(last)
	return l.afresh || last.IsZero() || since >= every || since+l.next > every
}

// touch remembers the namespaces of data-plane effects.
func (p *Pulse) touch(es ...*effect.Effect) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range es {
		if touchesData(e) && e.Ref.Namespace != "" {
			if p.spaces == nil {
				p.spaces = map[string]bool{}
			}
			p.spaces[e.Ref.Namespace] = true
		}
	}
}

// begins reports whether the wave is another than that of the last effect. What
// belongs to no wave begins none.
func (p *Pulse) begins(wave string) bool {
	if p == nil {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if wave == "" || p.begun && wave == p.wave {
		return false
	}
	p.wave, p.begun = wave, true
	return true
}

func (p *Pulse) look(ctx context.Context, r cluster.Reader, run *Run, l look) ([]Finding, error) {
	if p == nil {
		p = &Pulse{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked == nil {
		p.asked, p.found = map[string]time.Time{}, map[string][]Finding{}
	}
	var out []Finding
	for _, q := range questions(run.Policy, l.Queries) {
		key := fmt.Sprintf("%s %s %s %s", q.Name, q.Query, bound(q.Max), bound(q.Min))
		if l.due(run.Now, p.asked[key], q.Interval) {
			p.found[key], p.asked[key] = ask(ctx, run, q), run.Now
		}
		out = append(out, p.found[key]...)
	}
	more, err := p.cluster(ctx, r, run, l)
	return append(out, more...), err
}

// ask judges one query. What is not known is not healthy.
func ask(ctx context.Context, run *Run, q effect.Health) []Finding {
	ref := cluster.Ref{Kind: "Query", Name: q.Name}
	unknown := func(problem, next string) []Finding {
		return []Finding{{Verdict: unknown(run, HealthKept), Ref: ref, Problem: problem, Expect: "an answer; what is not known is not healthy: " + q.Query, Next: next}}
	}
	if run.Metrics == nil {
		return unknown("nobody can be asked: the policy names no Prometheus", "prometheus: {url: …} in the policy")
	}
	samples, err := run.Metrics.Query(ctx, q.Query)
	switch {
	case errors.Is(err, ErrAssumed):
		return []Finding{{Verdict: Warn, Ref: ref, Problem: "assumed to be within its bounds: " + err.Error(), Expect: expected(q)}}
	case err != nil:
		return unknown("could not find out: "+err.Error(), "see that the Prometheus of the policy answers")
	case len(samples) == 0:
		return unknown("there is no data", "see that the metric is there, or let the expression say what none means: … or vector(0)")
	}
	var bad examples
	nan := 0
	for _, s := range samples {
		switch {
		case !s.Known():
			nan++
		case q.Max != nil && s.Value > *q.Max, q.Min != nil && s.Value < *q.Min:
			bad.addText(sampleText(s))
		}
	}
	switch {
	case bad.n > 0:
		return []Finding{{
			Verdict: Block, Ref: ref, Problem: fmt.Sprintf("the services are not well: %s; %s", bad.some(), limit(q)),
			Expect: expected(q), Next: "look at what changed before going on; rutter rollback undoes what was done",
		}}
	case nan > 0:
		return unknown(fmt.Sprintf("%d of %d samples are not a number", nan, len(samples)), "let the expression say what a division by nothing means: … or vector(0)")
	}
	return nil
}

func sampleText(s metrics.Sample) string {
	v := strconv.FormatFloat(s.Value, 'g', 6, 64)
	if s.Series == "" {
		return v
	}
	return s.Series + " " + v
}

func limit(q effect.Health) string {
	switch {
	case q.Max != nil && q.Min != nil:
		return fmt.Sprintf("allowed is %s to %s", bound(q.Min), bound(q.Max))
	case q.Max != nil:
		return "at most " + bound(q.Max) + " is allowed"
	}
	return "at least " + bound(q.Min) + " is asked for"
}

func expected(q effect.Health) string { return limit(q) + " for each series of " + q.Query }

func bound(f *float64) string {
	if f == nil {
		return ""
	}
	return strconv.FormatFloat(*f, 'g', -1, 64)
}

// cluster judges what the cluster itself shows in the namespaces that the run
// changes: containers that restarted since the last wave, and, where no rollout
// is under way, pods that are not ready.
func (p *Pulse) cluster(ctx context.Context, r cluster.Reader, run *Run, l look) ([]Finding, error) {
	t := run.Policy.Thresholds
	if t.MaxRestarts == nil && t.MaxNotReady == nil || len(p.spaces) == 0 {
		return nil, nil
	}
	if !l.due(run.Now, p.looked, HealthEvery(run.Policy, l.Queries)) {
		return p.pods, nil
	}
	now := map[string]int64{}
	var restarted, unready examples
	restarts := int64(0)
	for ns := range p.spaces {
		err := eachPod(ctx, r, ns, func(pod *cluster.Object) {
			n := containerRestarts(pod)
			now[string(pod.GetUID())] = n
			if more := n - p.base[string(pod.GetUID())]; p.base != nil && more > 0 {
				restarts += more
				restarted.add(cluster.RefOf(pod), fmt.Sprintf("%d times", more))
			}
			if c, _ := cluster.Condition(pod, "Ready"); c.Status != "True" {
				unready.add(cluster.RefOf(pod), "")
			}
		})
		if err != nil {
			return nil, fmt.Errorf("pods of %s: %w", ns, err)
		}
	}
	var out []Finding
	if t.MaxRestarts != nil && restarts > int64(*t.MaxRestarts) {
		out = append(out, Finding{
			Verdict: Block, Ref: cluster.Ref{Kind: "Threshold", Name: "restarts"},
			Problem: fmt.Sprintf("containers restarted %d times since the last wave: %s", restarts, restarted.some()),
			Expect:  fmt.Sprintf("at most %d, by the policy", *t.MaxRestarts), Next: "kubectl logs --previous of those pods says why",
		})
	}
	if t.MaxNotReady != nil && l.Settled && unready.n > *t.MaxNotReady {
		out = append(out, Finding{
			Verdict: Block, Ref: cluster.Ref{Kind: "Threshold", Name: "not-ready"},
			Problem: fmt.Sprintf("%d pods are not ready: %s", unready.n, unready.some()),
			Expect:  fmt.Sprintf("at most %d, by the policy", *t.MaxNotReady), Next: "kubectl describe of those pods says why",
		})
	}
	if l.rebase || p.base == nil {
		p.base = now
	}
	p.looked, p.pods = run.Now, out
	return out, nil
}

// eachPod calls f for the pods of a namespace that are meant to serve.
func eachPod(ctx context.Context, r cluster.Reader, namespace string, f func(*cluster.Object)) error {
	res, err := r.ResourceFor(ctx, podKind)
	if err != nil {
		return err
	}
	return r.List(ctx, res, cluster.ListOptions{Namespace: namespace}, func(o *cluster.Object) error {
		status, _ := o.Object["status"].(map[string]any)
		if o.GetDeletionTimestamp() == nil && status["phase"] != "Succeeded" && status["phase"] != "Failed" {
			f(o)
		}
		return nil
	})
}

func containerRestarts(pod *cluster.Object) int64 {
	status, _ := pod.Object["status"].(map[string]any)
	n := int64(0)
	for _, key := range []string{"containerStatuses", "initContainerStatuses"} {
		list, _ := status[key].([]any)
		for _, c := range list {
			m, _ := c.(map[string]any)
			if k, ok := m["restartCount"].(int64); ok {
				n += k
			}
		}
	}
	return n
}
