package view

import (
	"fmt"
	"strings"
	"time"

	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
)

// lines turns events into the lines that stay on the screen. It remembers how
// deep each step is and which error has been shown.
type lines struct {
	*palette
	depth map[string]int
	shown string // the last error shown, so that the steps around it don't repeat it
	lastP map[string]time.Time
}

func newLines(o Options) *lines {
	return &lines{palette: newPalette(o), depth: map[string]int{}, lastP: map[string]time.Time{}}
}

// render is the lines for e, without newlines; often none.
func (l *lines) render(e event.Event) []string {
	in := l.indent(e.Step)
	switch b := e.Body.(type) {
	case *event.RunStarted:
		return []string{l.runStarted(b)}
	case *event.StepStarted:
		l.depth[e.Step] = b.Depth
		return []string{l.stepStarted(b)}
	case *event.StepEnded:
		delete(l.depth, e.Step)
		delete(l.lastP, e.Step)
		return []string{l.stepEnded(b)}
	case *event.PlanMade:
		return l.planMade(in, b)
	case *event.EffectDone:
		return []string{in + l.change(&b.Change)}
	case *event.EffectReplayed:
		return []string{in + l.change(&b.Change) + l.faint.Sprint("  from the journal")}
	case *event.EffectObserved:
		return []string{in + l.change(&b.Change) + l.warn.Sprint("  was in doubt: "+observed(b.Observation))}
	case *event.EffectFailed:
		return l.effectFailed(in, b)
	case *event.Findings:
		return l.findings(in, b)
	case *event.ApprovalAsked:
		return []string{in + l.warn.Sprint("?") + " approve: " + event.CleanLine(b.Message)}
	case *event.ApprovalAnswered:
		return []string{in + l.answered(b)}
	case *event.Log:
		return l.log(in, b)
	case *event.WaveStarted:
		return []string{in + l.info.Sprint("▸") + fmt.Sprintf(" wave %s  %d of %s", event.CleanLine(b.Name), b.Size, plural(b.Total, "workload"))}
	case *event.WaveEnded:
		return l.waveEnded(in, b)
	case *event.Diff:
		return l.diff(in, b)
	case *event.RunEnded:
		return l.runEnded(b)
	case *event.RollbackPlan:
		return l.rollbackPlan(b)
	case *event.Compared:
		return l.compared(in, b)
	case *event.Drift:
		return l.drift(b)
	case *event.EvidenceKept:
		return l.evidence(in, b)
	}
	return nil
}

func (l *lines) indent(step string) string {
	d, ok := l.depth[step]
	if !ok {
		return ""
	}
	return strings.Repeat("  ", d+1)
}

func (l *lines) took(d time.Duration) string {
	if !l.o.Durations {
		return ""
	}
	return l.faint.Sprint(duration(d))
}

func (l *lines) runStarted(b *event.RunStarted) string {
	what := "run"
	switch {
	case b.Rehearsal && b.Rollback:
		what = "plan to roll back run"
	case b.Rehearsal:
		what = "plan"
	case b.Rollback:
		what = "rollback of run"
	case b.Resumed:
		what = "resume run"
	}
	on, istio := "", ""
	if b.Context != "" {
		on = "on " + event.CleanLine(b.Context)
		if b.ClusterUID != "" {
			on += " (uid " + short(b.ClusterUID) + ")"
		}
	}
	if b.From != "" || b.To != "" {
		istio = "Istio " + strings.TrimSuffix(b.From+" -> "+b.To, " -> ")
	}
	return l.strong.Sprint(what+" "+b.Run) + "  " + fields(event.CleanLine(b.Runbook+" "+b.Version), on, istio)
}

// short is the beginning of an identifier.
func short(s string) string {
	if len(s) <= 8 {
		return s
	}
	return s[:4] + "…"
}

func (l *lines) stepStarted(b *event.StepStarted) string {
	s := strings.Repeat("  ", b.Depth) + l.info.Sprint("▸") + " " + l.strong.Sprint(event.CleanLine(b.Name))
	if b.Attempt > 1 {
		s += l.warn.Sprintf("  attempt %d", b.Attempt)
	}
	return s
}

func (l *lines) stepEnded(b *event.StepEnded) string {
	in := strings.Repeat("  ", b.Depth)
	name := event.CleanLine(b.Name)
	switch {
	case !b.OK:
		return in + l.bad.Sprint("✗") + " " + fields(l.strong.Sprint(name), paint(l.bad, l.once(b.Error)), counts(b.Counts), l.took(b.Duration))
	case b.Replayed:
		return in + l.good.Sprint("✓") + " " + fields(name, l.faint.Sprint("from the journal"), event.CleanLine(b.Note))
	}
	return in + l.good.Sprint("✓") + " " + fields(name, counts(b.Counts), event.CleanLine(b.Note), l.took(b.Duration))
}

// once is an error's text, or "" when it was the last one shown.
func (l *lines) once(err string) string {
	err = event.CleanLine(err)
	if err == "" || l.shown != "" && strings.Contains(err, l.shown) {
		return ""
	}
	l.shown = err
	return err
}

func counts(c event.Counts) string {
	var parts []string
	for _, n := range []struct {
		n    int
		word string
	}{
		{c.Applied, "applied"},
		{c.Unchanged, "unchanged"},
		{c.Pruned, "pruned"},
		{c.Restarted, "restarted"},
		{c.Evicted, "evicted"},
		{c.Failed, "failed"},
		{c.Observed, "found done"},
		{c.Replayed, "from the journal"},
	} {
		if n.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n.n, n.word))
		}
	}
	return strings.Join(parts, ", ")
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

func (l *lines) planMade(in string, b *event.PlanMade) []string {
	out := []string{in + l.faint.Sprint("• ") + b.Builtin + ": " + plural(b.Effects, "effect") + " to make"}
	if b.Unchanged > 0 {
		out[0] += fmt.Sprintf(", %d unchanged", b.Unchanged)
	}
	for _, n := range b.Notes {
		out = append(out, in+l.faint.Sprint("  "+event.CleanLine(n)))
	}
	return out
}

// change is one effect: what is done to it as a sign, the object, its class,
// and what changes.
func (l *lines) change(c *event.Change) string {
	sign := l.warn.Sprint("~")
	switch {
	case c.Class == effect.Restart:
		sign = l.info.Sprint("↻")
	case c.Verb == effect.Delete:
		sign = l.bad.Sprint("-")
	case c.Verb == effect.Evict:
		sign = l.bad.Sprint("»")
	case c.Verb == effect.Create || c.Created:
		sign = l.good.Sprint("+")
	}
	class := string(c.Class)
	if c.Class == effect.Plain {
		class = ""
	}
	return sign + " " + fields(event.CleanLine(c.Ref.String()), paint(l.name, class), event.CleanLine(c.Summary))
}

func observed(o effect.Observation) string {
	switch o {
	case effect.Happened:
		return "it had happened"
	case effect.NotHappened:
		return "it had not happened"
	}
	return "a look at the cluster did not settle it"
}

func (l *lines) effectFailed(in string, b *event.EffectFailed) []string {
	word := "not made"
	if b.InDoubt {
		word = "in doubt"
	}
	first := in + l.bad.Sprint("✗") + " " + fields(event.CleanLine(b.Ref.String()), l.name.Sprint(string(b.Class)), l.bad.Sprint(word))
	if e := l.once(b.Error); e != "" {
		return []string{first, in + "  " + e}
	}
	return []string{first}
}

func (l *lines) findings(in string, b *event.Findings) []string {
	var out []string
	for _, g := range grouped(b.Findings) {
		if g.Verdict == gate.Pass {
			continue
		}
		subject := ""
		if len(g.objects) == 1 && g.Ref.Kind != "" {
			subject = g.objects[0] + ": "
		}
		out = append(out, in+l.verdict(g.Verdict).Sprintf("! %s %s", g.Code, g.Verdict)+"  "+subject+event.CleanLine(g.Problem))
		if len(g.objects) > 1 {
			for _, o := range g.objects {
				out = append(out, in+"    - "+o)
			}
		}
		if g.Expect != "" {
			out = append(out, in+"  expected "+event.CleanLine(g.Expect))
		}
		if g.Next != "" {
			out = append(out, in+"  next: "+event.CleanLine(l.o.advice(g.Next)))
		}
	}
	return out
}

func (l *lines) answered(b *event.ApprovalAnswered) string {
	by := ""
	if b.By != "" {
		by = " by " + event.CleanLine(b.By)
	}
	if b.Replayed {
		by += l.faint.Sprint("  from the journal")
	}
	if b.Granted {
		return l.good.Sprint("✓") + " approved" + by
	}
	return l.bad.Sprint("✗") + " not approved" + by
}

func (l *lines) log(in string, b *event.Log) []string {
	var out []string
	for s := range strings.SplitSeq(strings.TrimRight(event.Clean(b.Message), "\n"), "\n") {
		if b.Level == "warn" {
			s = l.warn.Sprint("! " + s)
		}
		out = append(out, in+s)
	}
	return out
}

// progressEvery keeps the log of a long wait short, in the run's time.
const progressEvery = 15 * time.Second

// progress is the line for a progress event where lines can't be redrawn: the
// first of a step, then one every progressEvery, and the last.
func (l *lines) progress(e event.Event, b *event.Progress) []string {
	last, seen := l.lastP[e.Step]
	if seen && e.Time.Sub(last) < progressEvery && (b.Total == 0 || b.Done < b.Total) {
		return nil
	}
	l.lastP[e.Step] = e.Time
	return []string{l.indent(e.Step) + l.faint.Sprint("⋯ ") + fields(event.CleanLine(b.Message), ratio(b))}
}

func ratio(b *event.Progress) string {
	switch {
	case b.Total > 0:
		return fmt.Sprintf("%d/%d", b.Done, b.Total)
	case b.Done > 0:
		return fmt.Sprint(b.Done)
	}
	return ""
}

func (l *lines) waveEnded(in string, b *event.WaveEnded) []string {
	if b.OK {
		return []string{in + l.good.Sprint("✓") + " wave " + fields(event.CleanLine(b.Name), l.took(b.Duration))}
	}
	return []string{in + l.bad.Sprint("✗") + " wave " + fields(event.CleanLine(b.Name), paint(l.bad, l.once(b.Error)), l.took(b.Duration))}
}

func (l *lines) diff(in string, b *event.Diff) []string {
	out := []string{in + l.strong.Sprint(event.CleanLine(b.Title))}
	if b.Text == "" {
		return out
	}
	shown, hidden := 0, 0
	rest := func() {
		if hidden > 0 {
			out = append(out, in+"  "+l.faint.Sprintf("… %d more lines of this object (--full-diff shows them)", hidden))
		}
		shown, hidden = 0, 0
	}
	for s := range strings.SplitSeq(strings.TrimRight(event.Clean(b.Text), "\n"), "\n") {
		if strings.HasPrefix(s, "--- ") || strings.HasPrefix(s, "# ") {
			rest()
		}
		if shown++; l.o.DiffLines > 0 && shown > l.o.DiffLines {
			hidden++
			continue
		}
		out = append(out, in+"  "+l.diffLine(s))
	}
	rest()
	return out
}

func (l *lines) diffLine(s string) string {
	switch {
	case strings.HasPrefix(s, "+++"), strings.HasPrefix(s, "---"):
		return l.strong.Sprint(s)
	case strings.HasPrefix(s, "+"):
		return l.good.Sprint(s)
	case strings.HasPrefix(s, "-"):
		return l.bad.Sprint(s)
	case strings.HasPrefix(s, "@@"):
		return l.name.Sprint(s)
	}
	return s
}

func (l *lines) runEnded(b *event.RunEnded) []string {
	sign := l.good.Sprint("✓")
	if b.Exit != 0 {
		sign = l.bad.Sprint("✗")
	}
	out := []string{sign + " " + fields(l.strong.Sprint("run "+b.Run+" "+b.Status), paint(l.bad, l.once(b.Error)), counts(b.Counts), l.took(b.Duration))}
	if b.Next != "" {
		out = append(out, "  next: "+l.o.advice(b.Next))
	}
	return out
}
