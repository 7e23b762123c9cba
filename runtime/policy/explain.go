package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"rutter.dev/rutter/runtime/gate"
)

// Explain says in words what the policy allows, when, and who must approve, as
// things stand at now.
func (p *Policy) Explain(now time.Time) string {
	var b strings.Builder
	section := func(title string, lines []string) {
		if len(lines) > 0 {
			fmt.Fprintf(&b, "%s\n  %s\n", title, strings.Join(lines, "\n  "))
		}
	}
	section("What may be changed", p.what())
	section("When", p.when(now))
	section("Who", p.who())
	section("Gates", p.gates(now))
	section("Health", p.health())
	section("Told", p.told())
	section("Istioctl", p.fetched())
	section("Secrets are sealed to this machine's key and to", p.Recipients)
	if b.Len() == 0 {
		return "the policy demands nothing beyond the gates' own rules\n"
	}
	return b.String()
}

func (p *Policy) what() []string {
	var out []string
	for _, c := range p.ProtectedContexts {
		out = append(out, "nothing at all in context "+c)
	}
	for _, r := range p.Allow {
		out = append(out, "only "+r.String()+orOther(len(p.Allow)))
	}
	for _, r := range p.Deny {
		out = append(out, "never "+r.String())
	}
	if p.MaxWave > 0 {
		out = append(out, fmt.Sprintf("at most %d workloads in one wave", p.MaxWave))
	}
	if len(p.Leave) > 0 {
		out = append(out, "all pods of a workload may go down at once: "+strings.Join(p.Leave, ", "))
	}
	if p.Signers != "" {
		out = append(out, "only by runbooks that are signed by somebody of "+p.Signers+", or come with rutter")
	}
	if p.PlanRequired {
		out = append(out, "only what a saved plan has (rutter run --plan), on a real cluster")
	}
	if p.PlanSigners != "" {
		out = append(out, "of saved plans only those that are signed by somebody of "+p.PlanSigners)
	}
	return out
}

func orOther(n int) string {
	if n > 1 {
		return ", or what another of these lines allows"
	}
	return ""
}

func (p *Policy) when(now time.Time) []string {
	c := &p.Calendar
	if !c.Any() {
		return nil
	}
	var out []string
	for _, w := range c.Windows {
		out = append(out, w.String())
	}
	if len(c.Windows) == 0 {
		out = append(out, "at any time")
	}
	zone := p.zone()
	for _, f := range c.Freezes {
		line := fmt.Sprintf("not from %s until %s: %s", gate.When(f.From, zone), gate.When(f.To, zone), f.Reason)
		if !f.To.After(now) {
			line += " (over)"
		}
		out = append(out, line)
	}
	return append(out, fmt.Sprintf("a window that closes within %s is warned of", short(c.Warn)), p.Standing(now))
}

// Time reads a time as the policy file has them: with an offset, or in the
// file's own zone, UTC where it names none.
func (p *Policy) Time(s string) (time.Time, error) {
	return parseInstant(s, p.zone(), false)
}

// Expired says of each waiver that has expired by now that it does not count
// any more.
func (p *Policy) Expired(now time.Time) []string {
	var out []string
	for _, w := range p.Waivers {
		if !now.Before(w.Expires) {
			out = append(out, fmt.Sprintf("%s's waiver of %s on %s expired at %s", w.Person, w.Gate, strings.Join(w.Objects, ", "), gate.When(w.Expires, p.zone())))
		}
	}
	return out
}

// zone is that by which times are shown.
func (p *Policy) zone() *time.Location {
	if p.Zone != nil {
		return p.Zone
	}
	return time.UTC
}

// Standing says whether a change may begin at t, and until when or from when on.
func (p *Policy) Standing(t time.Time) string {
	o := p.Calendar.At(t)
	zone := p.zone()
	at := gate.When(t, zone)
	next := "; nothing opens in the next 400 days"
	if !o.Next.IsZero() {
		next = "; from " + gate.When(o.Next, zone) + " on it may"
	}
	switch {
	case o.Freeze != nil:
		return fmt.Sprintf("at %s no change may begin: frozen until %s, %s%s", at, gate.When(o.Freeze.To, zone), o.Freeze.Reason, next)
	case !o.Open:
		return fmt.Sprintf("at %s no change may begin: outside of every window%s", at, next)
	case o.Until.IsZero():
		return fmt.Sprintf("at %s a change may begin", at)
	}
	return fmt.Sprintf("at %s a change may begin; it closes at %s", at, gate.When(o.Until, zone))
}

// short is a duration without the units that are nothing.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func (p *Policy) who() []string {
	var out []string
	for _, a := range p.Approvals {
		switch {
		case a.Ask && len(a.Gates) == 0:
			out = append(out, fmt.Sprintf("where a gate asks: %s", a))
		case a.Ask:
			out = append(out, fmt.Sprintf("where %s asks: %s", codes(a.Gates), a))
		case a.Step == gate.RollbackStep:
			out = append(out, fmt.Sprintf("a rollback: %s", a))
		default:
			out = append(out, fmt.Sprintf("approve() of %q: %s", a.Step, a))
		}
	}
	if len(out) > 0 {
		out = append(out, "by name: --yes does not count there")
	}
	return out
}

func codes(list []gate.Code) string {
	out := make([]string, len(list))
	for i, c := range list {
		out[i] = string(c)
	}
	return strings.Join(out, ", ")
}

func (p *Policy) gates(now time.Time) []string {
	var out []string
	if len(p.Required) > 0 {
		out = append(out, codes(p.Required)+": every finding blocks, and none is waived")
	}
	if p.AskUnknown {
		out = append(out, "a gate that could not find out asks")
	}
	for _, w := range p.Waivers {
		objects := strings.Join(w.Objects, ", ")
		if len(w.Kinds) > 0 {
			objects = strings.Join(w.Kinds, ", ") + " " + objects
		}
		word := "until " + gate.When(w.Expires, p.zone())
		if !now.Before(w.Expires) {
			word = "EXPIRED at " + gate.When(w.Expires, p.zone())
		}
		out = append(out, fmt.Sprintf("%s is waived for %s by %s, %s: %s", w.Gate, objects, w.Person, word, w.Reason))
	}
	for _, v := range []struct{ prefix, word string }{{"deny_", "block"}, {"ask_", "ask"}, {"warn_", "warn"}} {
		rules := slices.DeleteFunc(slices.Clone(p.Rules), func(r string) bool { return !strings.HasPrefix(r, v.prefix) })
		if len(rules) > 0 {
			out = append(out, fmt.Sprintf("rules of the organization that %s: %s", v.word, strings.Join(rules, ", ")))
		}
	}
	return out
}

func (p *Policy) health() []string {
	var out []string
	if p.Prometheus != nil {
		for _, q := range p.Prometheus.Queries {
			interval := q.Interval
			if interval == 0 {
				interval = p.Prometheus.Interval
			}
			var bounds []string
			if q.Min != nil {
				bounds = append(bounds, fmt.Sprintf("at least %g", *q.Min))
			}
			if q.Max != nil {
				bounds = append(bounds, fmt.Sprintf("at most %g", *q.Max))
			}
			out = append(out, fmt.Sprintf("%s is %s, asked of %s every %s: %s", q.Name, strings.Join(bounds, " and "), p.Prometheus.URL, short(interval), q.Query))
		}
	}
	if n := p.Thresholds.MaxRestarts; n != nil {
		out = append(out, fmt.Sprintf("at most %d containers restarted since the last wave", *n))
	}
	if n := p.Thresholds.MaxNotReady; n != nil {
		out = append(out, fmt.Sprintf("at most %d pods not ready", *n))
	}
	return out
}

func (p *Policy) fetched() []string {
	var out []string
	if p.Toolchain.Mirror != "" {
		out = append(out, "is fetched from "+p.Toolchain.Mirror)
	}
	if hosts := p.Toolchain.RedirectHosts; len(hosts) > 0 {
		out = append(out, "may be redirected to "+strings.Join(hosts, ", "))
	}
	if p.Toolchain.TrustOnFirstUse {
		out = append(out, "is trusted at its first use, where rutter.lock has no pin")
	}
	return out
}

func (p *Policy) told() []string {
	var out []string
	for _, n := range p.Notify {
		on := "of every end of a run"
		if len(n.On) > 0 {
			on = "of runs that end " + strings.Join(n.On, ", ")
		}
		out = append(out, fmt.Sprintf("%s (%s) %s", n.Name, n.Kind, on))
	}
	return out
}
