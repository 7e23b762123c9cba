package plan

import (
	"fmt"
	"strings"
	"time"

	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
)

// How the parts of a plan are worded, in every form of it alike.

func span(d time.Duration) string {
	d = d.Round(time.Second)
	if d < time.Second {
		return "0s"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// clean keeps text from the cluster from being anything but text.
func clean(s string) string { return event.CleanLine(s) }

func (p *Plan) title() string {
	s := strings.TrimSpace("plan of "+p.Runbook.Name+" "+p.Runbook.Version) + " on " + p.Cluster.Context
	if p.From != "" || p.To != "" {
		s += ", Istio " + strings.TrimSuffix(strings.TrimSuffix(p.From+" → "+p.To, " → "), " ")
	}
	return clean(s)
}

func (p *Plan) verdict() string {
	var parts []string
	if p.Changes() {
		parts = append(parts, count(len(p.Effects), "effect", "effects"))
	} else {
		parts = append(parts, "no changes")
	}
	if n := len(p.Restarts); n > 0 {
		parts = append(parts, count(n, "workload restarts", "workloads restart"))
	}
	if n := len(p.Asks); n > 0 {
		parts = append(parts, count(n, "question", "questions")+" to a person")
	}
	if n := len(p.Irreversible); n > 0 {
		parts = append(parts, count(n, "change", "changes")+" that can't be undone")
	}
	parts = append(parts, count(len(p.Assumptions), "assumption", "assumptions"))
	return fmt.Sprintf("would end as %s after %s: %s", p.Status, span(p.Duration), strings.Join(parts, ", "))
}

// Summary says in two lines what the plan is of, and what would come of it.
func (p *Plan) Summary() string { return p.title() + "\n" + p.verdict() }

// sign is how an effect begins in a list.
func (e *Effect) sign() string {
	switch {
	case e.Created:
		return "+"
	case e.Verb == effect.Delete || e.Verb == effect.Evict:
		return "-"
	}
	return "~"
}

func (e *Effect) headline() string {
	s := string(e.Verb) + " " + e.Ref.String()
	if e.Summary != "" && e.Summary != string(e.Verb) {
		s += "  " + e.Summary
	}
	if e.Wave != "" {
		s += "  (wave " + e.Wave + ")"
	}
	return clean(s)
}

func (f Field) String() string {
	switch {
	case f.Old == nil:
		return clean(f.Path + ": " + brief(f.New) + " (new)")
	case f.New == nil:
		return clean(f.Path + ": " + brief(f.Old) + " (goes)")
	}
	return clean(f.Path + ": " + brief(f.Old) + " → " + brief(f.New))
}

func (r *Restart) workload() string {
	return clean(strings.ToLower(r.Kind) + "/" + r.Name + " in " + r.Namespace)
}

// proxy is what becomes of the proxy; "" for a workload without one.
func (r *Restart) proxy() string {
	switch {
	case r.From == "" && r.To == "":
		return ""
	case r.From == r.To:
		return "proxy stays " + r.To
	case r.From == "":
		return "proxy " + r.To + " (new)"
	case r.To == "":
		return "proxy " + r.From + " goes"
	}
	return "proxy " + r.From + " → " + r.To
}

// Disruption is how far the workload falls short of its pods, in words; "" where
// that is not known.
func (r *Restart) Disruption() string {
	switch {
	case r.Wanted == 0:
		return ""
	case !r.Ready:
		return "not ready again in the end"
	case r.Least >= r.Wanted:
		return "no pod missing"
	}
	return fmt.Sprintf("%d of %d pods ready for %s", r.Least, r.Wanted, span(r.Short))
}

func (f *Found) line() string {
	s := string(f.Code) + " " + f.Verdict.String() + ": " + f.Ref.String()
	if f.Count > 1 {
		s += fmt.Sprintf(" and %d more", f.Count-1)
	}
	return clean(s + ": " + f.Problem)
}

func (a *Ask) line() string {
	if a.Gate == "" {
		return clean("approve: " + a.Message)
	}
	return clean(a.Gate + " asks for leave: " + a.Message)
}

// stepEffects are the effects of a step in order.
func (p *Plan) stepEffects(path string) []*Effect {
	var out []*Effect
	for i := range p.Effects {
		if p.Effects[i].Step == path {
			out = append(out, &p.Effects[i])
		}
	}
	return out
}
