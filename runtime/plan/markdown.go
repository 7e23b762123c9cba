package plan

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Markdown writes the plan as a comment on a pull request.
func (p *Plan) Markdown(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "## %s\n\n%s\n", Escape(capital(p.title())), Escape(capital(p.verdict())+"."))
	if p.Error != "" {
		fmt.Fprintf(b, "\n> %s\n", strings.ReplaceAll(Escape(p.Error), "\n", "\n> "))
	}
	fmt.Fprint(b, "\n### Steps\n\n| step | at | takes | effects |\n| --- | --- | --- | --- |\n")
	for i := range p.Steps {
		s := &p.Steps[i]
		mark := ""
		if !s.OK {
			mark = "✗ "
		}
		fmt.Fprintf(b, "| %s%s%s | %s | %s | %d |\n", strings.Repeat("&nbsp;&nbsp;", s.Depth), mark, cell(s.Name), span(s.After), span(s.Duration), s.Effects)
	}
	p.markdownEffects(b)
	p.markdownRestarts(b)
	section := func(title string, list []string) {
		if len(list) == 0 {
			return
		}
		fmt.Fprintf(b, "\n### %s\n\n", title)
		for _, s := range list {
			fmt.Fprintf(b, "- %s\n", Escape(s))
		}
	}
	section("Budgets that hold it up", budgetLines(p))
	section("Findings of gates", lines(p.Findings, func(f *Found) string { return f.line() }))
	section("Questions to a person", lines(p.Asks, func(a *Ask) string { return a.line() }))
	section("Can't be undone", lines(p.Irreversible, func(i *Irreversible) string { return clean(i.Ref.String() + ": " + i.Why) }))
	var assumed []string
	for _, a := range p.Assumptions {
		assumed = append(assumed, clean(a.String()))
	}
	section("Assumed", assumed)
	return b.Flush()
}

func (p *Plan) markdownEffects(b io.Writer) {
	if len(p.Effects) == 0 {
		return
	}
	fmt.Fprint(b, "\n### Effects\n")
	for i := range p.Steps {
		es := p.stepEffects(p.Steps[i].Path)
		if len(es) == 0 {
			continue
		}
		fmt.Fprintf(b, "\n<details><summary>%s: %s</summary>\n\n```diff\n", Escape(clean(p.Steps[i].Path)), count(len(es), "effect", "effects"))
		for _, e := range es {
			sign := e.sign()
			if sign == "~" {
				sign = "!"
			}
			fmt.Fprintf(b, "%s %s\n", sign, fence(e.headline()))
			for n, f := range e.Fields {
				if n == shownFields {
					fmt.Fprintf(b, "#     and %s\n", count(len(e.Fields)-shownFields, "more field", "more fields"))
					break
				}
				fmt.Fprintf(b, "#     %s\n", fence(f.String()))
			}
		}
		fmt.Fprint(b, "```\n\n</details>\n")
	}
}

func (p *Plan) markdownRestarts(b io.Writer) {
	if len(p.Restarts) == 0 {
		return
	}
	fmt.Fprint(b, "\n### Restarts\n\n| workload | wave | pods | proxy | at | takes | disruption | why |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for i := range p.Restarts {
		r := &p.Restarts[i]
		fmt.Fprintf(
			b, "| %s | %s | %d | %s | %s | %s | %s | %s |\n", cell(r.workload()), cell(r.Wave), len(r.Pods), cell(strings.TrimPrefix(r.proxy(), "proxy ")),
			span(r.After), span(r.Duration), cell(r.Disruption()), cell(clean(r.Why)),
		)
	}
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// Escape keeps text from being Markdown.
func Escape(s string) string {
	return strings.NewReplacer("\\", "\\\\", "`", "\\`", "*", "\\*", "_", "\\_", "<", "&lt;", ">", "&gt;", "[", "\\[", "]", "\\]", "|", "\\|", "@", "@\u200b", "#", "\\#").Replace(s)
}

func cell(s string) string { return Escape(strings.ReplaceAll(s, "\n", " ")) }

// fence keeps text inside a code block.
func fence(s string) string { return strings.ReplaceAll(s, "```", "`` `") }
