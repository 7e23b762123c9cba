package review

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/plan"
)

// effects tells which effects came, went, or change something else.
func effects(add func(Kind, string, ...any), was, is *plan.Plan) {
	before, then := keyed(was)
	after, now := keyed(is)
	sequence(add, Effects, "effect", then, now)
	for _, key := range now {
		a, b := before[key], after[key]
		if a == nil {
			continue
		}
		if a.Step != b.Step {
			add(Effects, "~ effect %s is made in step %q, not in %q", key, b.Step, a.Step)
		}
		for _, f := range fields(a, b) {
			add(Effects, "~ effect %s: %s", key, f)
		}
	}
}

// keyed are a plan's effects by what they do to which object, and these keys in
// order.
func keyed(p *plan.Plan) (map[string]*plan.Effect, []string) {
	names := make([]string, len(p.Effects))
	for i := range p.Effects {
		e := &p.Effects[i]
		names[i] = string(e.Verb) + " " + e.Ref.String()
	}
	names = numbered(names)
	out := map[string]*plan.Effect{}
	for i, key := range names {
		out[key] = &p.Effects[i]
	}
	return out, names
}

// marks are fields in which a run marks what it made; they say nothing of what
// it does.
const marks = "rutter.dev/"

// fields tells in which fields two effects on the same object differ.
func fields(a, b *plan.Effect) []string {
	old, now := map[string]plan.Field{}, map[string]plan.Field{}
	var order []string
	take := func(e *plan.Effect, into map[string]plan.Field) {
		for _, f := range e.Fields {
			if strings.Contains(f.Path, marks) {
				continue
			}
			into[f.Path] = f
			if !slices.Contains(order, f.Path) {
				order = append(order, f.Path)
			}
		}
	}
	take(a, old)
	take(b, now)
	var out []string
	for _, path := range order {
		f, was := old[path]
		g, is := now[path]
		switch {
		case !is:
			out = append(out, path+" is left as it is")
		case !was:
			out = append(out, g.String())
		case !reflect.DeepEqual(f.New, g.New):
			out = append(out, fmt.Sprintf("%s, and did before: %s", g.String(), f.String()))
		}
	}
	return out
}

// restarts tells how the blast radius changed.
func restarts(add func(Kind, string, ...any), was, is *plan.Plan) {
	name := func(r *plan.Restart) string { return strings.ToLower(r.Kind) + "/" + r.Name + " in " + r.Namespace }
	before, after := map[string]*plan.Restart{}, map[string]*plan.Restart{}
	var then, now []string
	for i := range was.Restarts {
		then = append(then, name(&was.Restarts[i]))
		before[then[i]] = &was.Restarts[i]
	}
	for i := range is.Restarts {
		now = append(now, name(&is.Restarts[i]))
		after[now[i]] = &is.Restarts[i]
	}
	sets(add, Restarts, "restarts", "does not restart", then, now)
	for _, n := range now {
		a, b := before[n], after[n]
		if a == nil {
			continue
		}
		if a.Wave != b.Wave {
			add(Restarts, "~ %s restarts in wave %q, not in %q", n, b.Wave, a.Wave)
		}
		if a.Least != b.Least || a.Wanted != b.Wanted {
			add(Restarts, "~ %s has at least %d of %d pods ready meanwhile, not %d of %d", n, b.Least, b.Wanted, a.Least, a.Wanted)
		}
		if a.To != b.To {
			add(Restarts, "~ %s gets proxy %q, not %q", n, b.To, a.To)
		}
	}
	if a, b := longest(was), longest(is); a != b {
		add(Restarts, "~ the longest wave takes %s, not %s", b, a)
	}
}

func longest(p *plan.Plan) time.Duration {
	var most time.Duration
	for _, w := range p.Waves {
		most = max(most, w.Duration.Round(time.Second))
	}
	return most
}

// capabilities notes what a runbook does to which kinds, and where.
func (r *Report) capabilities(was, is *plan.Plan) {
	before, after := capable(was), capable(is)
	note := func(to *[]string, what []string) {
		for _, s := range what {
			if !slices.Contains(*to, s) {
				*to = append(*to, s)
			}
		}
		slices.Sort(*to)
	}
	note(&r.had, before)
	note(&r.has, after)
	r.Gained, r.Lost = append([]string{}, missing(r.has, r.had)...), append([]string{}, missing(r.had, r.has)...)
}

// capable lists what a plan's effects are: "deletes MutatingWebhookConfiguration
// (cluster-wide)", "restarts Deployment in shop".
func capable(p *plan.Plan) []string {
	var out []string
	for i := range p.Effects {
		e := &p.Effects[i]
		where := " (cluster-wide)"
		if e.Ref.Namespace != "" {
			where = " in " + e.Ref.Namespace
		}
		s := verbed(e) + " " + e.Ref.Kind + where
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func verbed(e *plan.Effect) string {
	switch {
	case e.Created:
		return "creates"
	case e.Class == effect.Restart:
		return "restarts"
	}
	switch v := string(e.Verb); {
	case strings.HasSuffix(v, "y"):
		return strings.TrimSuffix(v, "y") + "ies"
	case strings.HasSuffix(v, "ch"):
		return v + "es"
	default:
		return v + "s"
	}
}
