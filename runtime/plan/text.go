package plan

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// shownFields is how many changed fields of an effect are listed; the JSON has
// all of them.
const shownFields = 8

// Text writes the plan in lines for a terminal.
func (p *Plan) Text(w io.Writer) error {
	b := bufio.NewWriter(w)
	line := func(indent int, format string, args ...any) {
		fmt.Fprintf(b, "%s%s\n", strings.Repeat("  ", indent), fmt.Sprintf(format, args...))
	}
	line(0, "%s", p.title())
	line(0, "%s", p.verdict())
	if p.Error != "" {
		line(0, "%s", clean(p.Error))
	}
	line(0, "")
	line(0, "steps")
	for i := range p.Steps {
		s := &p.Steps[i]
		mark := "✓"
		if !s.OK {
			mark = "✗"
		}
		line(1+s.Depth, "%s %s  %s", mark, clean(s.Name), strings.Join(stepNotes(s), ", "))
		for _, e := range p.stepEffects(s.Path) {
			line(3+s.Depth, "%s %s", e.sign(), e.headline())
			p.textFields(e, 5+s.Depth, line)
		}
	}
	p.textRestarts(line)
	textList(line, "budgets that hold it up", budgetLines(p))
	textList(line, "findings of gates", lines(p.Findings, func(f *Found) string { return f.line() }))
	textList(line, "questions to a person", lines(p.Asks, func(a *Ask) string { return a.line() }))
	textList(line, "can't be undone", lines(p.Irreversible, func(i *Irreversible) string { return clean(i.Ref.String() + ": " + i.Why) }))
	var assumed []string
	for _, a := range p.Assumptions {
		assumed = append(assumed, clean(a.String()))
	}
	textList(line, "assumed", assumed)
	return b.Flush()
}

func stepNotes(s *Step) []string {
	out := []string{"at " + span(s.After), "takes " + span(s.Duration)}
	if s.Effects > 0 {
		out = append(out, count(s.Effects, "effect", "effects"))
	}
	if s.Error != "" {
		out = append(out, clean(s.Error))
	}
	return out
}

func (p *Plan) textFields(e *Effect, indent int, line func(int, string, ...any)) {
	if e.Masked {
		line(indent, "a Secret: what changes is not shown")
		return
	}
	for i, f := range e.Fields {
		if i == shownFields {
			line(indent, "… and %s", count(len(e.Fields)-shownFields, "more field", "more fields"))
			return
		}
		line(indent, "%s", f)
	}
}

func (p *Plan) textRestarts(line func(int, string, ...any)) {
	if len(p.Restarts) == 0 {
		return
	}
	line(0, "")
	line(0, "restarts")
	for i := range p.Restarts {
		r := &p.Restarts[i]
		if r.Wave == "" {
			line(1, "%s", restartLine(r))
		}
	}
	for _, w := range p.Waves {
		line(1, "wave %s: %s, at %s, takes %s", clean(w.Name), count(len(w.Workloads), "workload", "workloads"), span(w.After), span(w.Duration))
		if w.Error != "" {
			line(2, "stops: %s", clean(w.Error))
		}
		for i := range p.Restarts {
			if r := &p.Restarts[i]; r.Wave == w.Name && r.Step == w.Step {
				line(2, "%s", restartLine(r))
			}
		}
	}
}

func restartLine(r *Restart) string {
	parts := []string{r.workload() + ": " + count(len(r.Pods), "pod", "pods")}
	for _, s := range []string{r.proxy(), "at " + span(r.After) + " for " + span(r.Duration), r.Disruption(), clean(r.Why)} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ", ")
}

func budgetLines(p *Plan) []string {
	var out []string
	for _, b := range p.Budgets {
		s := "poddisruptionbudget/" + b.Name + " in " + b.Namespace + " allows no disruption"
		if b.Exhausted > 0 {
			s += " for " + span(b.Exhausted)
		}
		out = append(out, clean(s))
	}
	return out
}

func lines[T any](list []T, f func(*T) string) []string {
	out := make([]string, len(list))
	for i := range list {
		out[i] = f(&list[i])
	}
	return out
}

func textList(line func(int, string, ...any), title string, list []string) {
	if len(list) == 0 {
		return
	}
	line(0, "")
	line(0, "%s", title)
	for _, s := range list {
		line(1, "%s", s)
	}
}
