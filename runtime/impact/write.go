package impact

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/plan"
)

// How much is listed in text and Markdown of one thing; the JSON has all of it.
const (
	shownFields = 6
	shownPods   = 8
)

func clean(s string) string { return event.CleanLine(s) }

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// size is how many workloads and pods a list is.
func size(list []Affected) string {
	pods := 0
	for i := range list {
		pods += len(list[i].Pods)
	}
	return count(len(list), "workload", "workloads") + ", " + count(pods, "pod", "pods")
}

func (r *Report) verdict() string {
	return fmt.Sprintf("now %s; later %s; never %s", size(r.Now), size(r.Later), size(r.Never))
}

// parts are the three lists under their titles.
func (r *Report) parts() []struct {
	title string
	list  []Affected
} {
	return []struct {
		title string
		list  []Affected
	}{{"now, as soon as the change is made", r.Now}, {"later, at their next restart", r.Later}}
}

// Text writes the report for a terminal. Of what is never made anew only names are
// listed, by why and namespace.
func (r *Report) Text(w io.Writer) error {
	b := bufio.NewWriter(w)
	line := func(indent int, format string, args ...any) {
		fmt.Fprintf(b, "%s%s\n", strings.Repeat("  ", indent), fmt.Sprintf(format, args...))
	}
	line(0, "impact on %s", clean(r.Cluster.Context))
	line(0, "%s", r.verdict())
	line(0, "")
	line(0, "change")
	for i := range r.Changes {
		m := &r.Changes[i]
		line(1, "%s%s", clean(m.Text), m.note())
		fields(m.Fields, func(s string) { line(2, "%s", s) })
	}
	for _, p := range r.parts() {
		if len(p.list) == 0 {
			continue
		}
		line(0, "")
		line(0, "%s: %s", p.title, size(p.list))
		for _, g := range groups(p.list) {
			line(1, "%s", clean(g.why))
			shared, told := g.shared(), g.told()
			if !told { // what a proxy consists of says nothing of the change
				shared = nil
			}
			fields(shared, func(s string) { line(3, "%s", s) })
			for _, a := range g.list {
				line(2, "%s", a.line())
				if shared == nil && told {
					fields(a.Fields, func(s string) { line(4, "%s", s) })
				}
			}
		}
	}
	if len(r.Never) > 0 {
		line(0, "")
		line(0, "never: %s", size(r.Never))
		for _, g := range groups(r.Never) {
			line(1, "%s", clean(g.why))
			for _, s := range g.namespaces() {
				line(2, "%s", s)
			}
		}
	}
	list := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		line(0, "")
		line(0, "%s", title)
		for _, s := range lines {
			line(1, "%s", s)
		}
	}
	list("stored objects", r.findings())
	list("assumed", r.assumed())
	return b.Flush()
}

func (m *Made) note() string {
	switch {
	case m.Nothing:
		return ": nothing changes"
	case m.Masked:
		return ": a Secret, of which nothing is shown"
	}
	return ""
}

func fields(list []plan.Field, say func(string)) {
	for i, f := range list {
		if i == shownFields {
			say(fmt.Sprintf("… and %s", count(len(list)-shownFields, "more field", "more fields")))
			return
		}
		say(f.String())
	}
}

// told reports whether the fields of a group say more than that a proxy comes or
// goes.
func (g *group) told() bool {
	return !slices.ContainsFunc(g.list, func(a *Affected) bool { return a.Role != "" && (a.From == "") != (a.To == "") })
}

// shared are the fields that all of a group have alike; nil where they differ.
func (g *group) shared() []plan.Field {
	var first string
	for i, a := range g.list {
		s := fmt.Sprint(a.Fields)
		if i == 0 {
			first = s
		}
		if s != first {
			return nil
		}
	}
	return g.list[0].Fields
}

func (a *Affected) name() string {
	return clean(strings.ToLower(a.Ref.Kind) + "/" + a.Ref.Name + " in " + a.Ref.Namespace)
}

func (a *Affected) proxy() string {
	switch {
	case a.From == a.To:
		return a.From
	case a.To == "" && a.Course == nil: // it is not made anew by this, or loses its proxy
		return a.From
	case a.From == "":
		return "→ " + a.To
	case a.To == "":
		return a.From + " →"
	}
	return a.From + " → " + a.To
}

func (a *Affected) line() string {
	s := a.name()
	if a.Role != "" {
		s += " (" + a.Role + ")"
	}
	s += ": " + count(len(a.Pods), "pod", "pods")
	if p := a.proxy(); p != "" {
		s += ", proxy " + clean(p)
	}
	if a.Course != nil {
		if d := a.Course.Disruption(); d != "" {
			s += ", " + d
		}
	}
	if len(a.Pods) > 0 {
		s += ": " + clean(clip(a.Pods, shownPods))
	}
	return s
}

// namespaces lists the names of a group's workloads, a line for each namespace.
func (g *group) namespaces() []string {
	var order []string
	names, pods := map[string][]string{}, map[string]int{}
	for _, a := range g.list {
		ns := a.Ref.Namespace
		if names[ns] == nil {
			order = append(order, ns)
		}
		names[ns] = append(names[ns], strings.ToLower(a.Ref.Kind)+"/"+a.Ref.Name)
		pods[ns] += len(a.Pods)
	}
	out := make([]string, len(order))
	for i, ns := range order {
		out[i] = clean(fmt.Sprintf("%s (%s): %s", ns, count(pods[ns], "pod", "pods"), strings.Join(names[ns], ", ")))
	}
	return out
}

func (r *Report) findings() []string {
	out := make([]string, len(r.Findings))
	for i, f := range r.Findings {
		out[i] = clean(fmt.Sprintf("%s: %s", f.Ref, f.Problem))
	}
	return out
}

func (r *Report) assumed() []string {
	out := make([]string, len(r.Assumptions))
	for i, a := range r.Assumptions {
		out[i] = clean(a.String())
	}
	return out
}

// Markdown writes the report as a comment on a pull request.
func (r *Report) Markdown(w io.Writer) error {
	b := bufio.NewWriter(w)
	v := r.verdict()
	fmt.Fprintf(b, "## Impact on %s\n\n%s.\n\n### Change\n\n", plan.Escape(clean(r.Cluster.Context)), strings.ToUpper(v[:1])+v[1:])
	for i := range r.Changes {
		m := &r.Changes[i]
		fmt.Fprintf(b, "- %s\n", plan.Escape(clean(m.Text)+m.note()))
		fields(m.Fields, func(s string) { fmt.Fprintf(b, "  - %s\n", plan.Escape(s)) })
	}
	for _, p := range r.parts() {
		if len(p.list) == 0 {
			continue
		}
		fmt.Fprintf(b, "\n### %s: %s\n\n| workload | is | proxy | pods | why |\n| --- | --- | --- | --- | --- |\n", strings.ToUpper(p.title[:1])+p.title[1:], size(p.list))
		for i := range p.list {
			a := &p.list[i]
			why := a.Why
			if a.Course != nil && a.Course.Disruption() != "" {
				why += "; " + a.Course.Disruption()
			}
			fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", plan.Escape(a.name()), a.Role, plan.Escape(clean(a.proxy())), plan.Escape(clean(strings.Join(a.Pods, ", "))), plan.Escape(clean(why)))
		}
	}
	if len(r.Never) > 0 {
		fmt.Fprintf(b, "\n<details><summary>Never: %s</summary>\n\n", size(r.Never))
		for _, g := range groups(r.Never) {
			fmt.Fprintf(b, "- %s\n", plan.Escape(clean(g.why)))
			for _, s := range g.namespaces() {
				fmt.Fprintf(b, "  - %s\n", plan.Escape(s))
			}
		}
		fmt.Fprint(b, "\n</details>\n")
	}
	section := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintf(b, "\n### %s\n\n", title)
		for _, s := range lines {
			fmt.Fprintf(b, "- %s\n", plan.Escape(s))
		}
	}
	section("Stored objects", r.findings())
	section("Assumed", r.assumed())
	return b.Flush()
}
