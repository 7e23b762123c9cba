package view

import (
	"fmt"
	"strings"

	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
)

// rollbackPlan is what a rollback is about to do: what it undoes, part by part
// in that order, then what it can't, and what others changed since.
func (l *lines) rollbackPlan(b *event.RollbackPlan) []string {
	n := 0
	for _, p := range b.Parts {
		n += len(p.Changes)
	}
	head := "• " + plural(n, "change") + " to make"
	if b.Until != "" {
		head += ", back to where " + event.CleanLine(b.Until) + " ended"
	}
	out := []string{head}
	for _, p := range b.Parts {
		out = append(out, l.info.Sprint("▸")+" "+fields(l.strong.Sprint(event.CleanLine(p.Name)), l.faint.Sprint(event.CleanLine(p.How))))
		for i := range p.Changes {
			out = append(out, "  "+l.change(&p.Changes[i]))
		}
		for _, s := range p.Notes {
			out = append(out, "    "+l.faint.Sprint(event.CleanLine(s)))
		}
	}
	if len(b.Left) > 0 {
		out = append(out, l.warn.Sprint("! can't be undone, and stays:"))
		for _, x := range b.Left {
			out = append(out, "  - "+event.CleanLine(x.Ref.String())+": "+event.CleanLine(x.Why))
		}
	}
	if len(b.Foreign) > 0 {
		out = append(out, l.warn.Sprint("! changed by somebody else since the run:"))
		for _, f := range b.Foreign {
			out = append(out, fmt.Sprintf("  - %s: %s was %s, the run made it %s, now it is %s",
				event.CleanLine(f.Ref.String()), event.CleanLine(f.Field), brief(f.Was), brief(f.Made), brief(f.Now)))
		}
	}
	var held []gate.Finding
	for _, g := range grouped(b.Findings) {
		if g.Verdict >= gate.Ask {
			continue
		}
		// It holds nothing up: a line is enough.
		out = append(out, l.warn.Sprintf("! %s %s", g.Code, g.Verdict)+"  "+event.CleanLine(g.Problem)+l.faint.Sprintf("  (%s)", plural(len(g.objects), "object")))
	}
	for _, f := range b.Findings {
		if f.Verdict >= gate.Ask {
			held = append(held, f)
		}
	}
	return append(out, l.findings("", &event.Findings{Findings: held})...)
}

// mostOfAValue bounds what is shown of a value.
const mostOfAValue = 60

func brief(v any) string {
	if v == nil {
		return "not there"
	}
	s := event.CleanLine(fmt.Sprint(v))
	if r := []rune(s); len(r) > mostOfAValue {
		s = string(r[:mostOfAValue]) + "…"
	}
	return s
}

// compared is the last word of a rollback: whether all is as it was.
func (l *lines) compared(in string, b *event.Compared) []string {
	sign := l.good.Sprint("✓ ")
	if len(b.Differ) > 0 {
		sign = l.bad.Sprint("✗ ")
	}
	out := strings.Split(event.Clean(b.Text), "\n")
	for i := range out {
		if i == 0 {
			out[i] = in + sign + out[i]
		} else {
			out[i] = in + out[i]
		}
	}
	return out
}

// drift is what others have changed since of what the run did.
func (l *lines) drift(b *event.Drift) []string {
	out := []string{l.warn.Sprintf("! changed by somebody else since this run did it (%d):", len(b.Changed))}
	for _, x := range b.Changed {
		out = append(out, "  - "+event.CleanLine(x.Ref.String())+": "+event.CleanLine(x.Why))
	}
	return out
}

func (l *lines) evidence(in string, b *event.EvidenceKept) []string {
	return []string{in + l.warn.Sprint("! ") + "what was found is in " + event.CleanLine(b.File)}
}
