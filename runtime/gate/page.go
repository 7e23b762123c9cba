package gate

import (
	"fmt"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/effect"
)

// Page is what a person is told of a gate besides its rationale and source:
// rutter explain and the docs are made from it.
type Page struct {
	// Looks is what the gate reads: the request, the cluster, facts of the run.
	Looks string `json:"looks"`
	// Thresholds are the numbers that it goes by, and where they are set.
	Thresholds []Threshold `json:"thresholds,omitempty"`
	// Verdicts says when it warns, asks and blocks; what is not listed it never
	// says. When nothing of it holds, it passes.
	Verdicts []Outcome `json:"verdicts"`
	// Mend is how to get past it.
	Mend string `json:"mend"`
}

// Threshold is one number or list that a gate goes by.
type Threshold struct {
	Name    string `json:"name"`
	Default string `json:"default"`
	Key     string `json:"key,omitempty"` // of the policy, or the argument of a builtin; "" where it can't be set
}

// Outcome is the case for a verdict.
type Outcome struct {
	Verdict Verdict `json:"verdict"`
	Case    string  `json:"case"`
}

// Enforced are the gates that a rollback must pass, too. What the others find is
// shown and does not hold it, since it is the way out (DESIGN §3).
func Enforced() []Code {
	return []Code{ClusterPinned, LockHeld, DryRun, CRDSafe, WebhookSafe, InUse, ControlPlaneReady, Disruption, Scope}
}

// PageOf is the page of a gate; ok is false for a code without one.
func PageOf(c Code) (p Page, ok bool) {
	p, ok = pages()[c]
	return p, ok
}

// Find is the gate of a code or name, as a person types it: "RUT013", "13",
// "disruption". nil if there is none.
func Find(s string) *Gate {
	s = strings.ToLower(strings.TrimSpace(s))
	for _, g := range All() {
		number := strings.TrimPrefix(strings.ToLower(string(g.Code)), "rut")
		if s == strings.ToLower(string(g.Code)) || s == g.Name || s == number || s == strings.TrimLeft(number, "0") {
			return g
		}
	}
	return nil
}

// Classes are the classes of effects that pass the gate.
func (g *Gate) Classes() []effect.Class {
	return slices.DeleteFunc(effect.Classes(), func(c effect.Class) bool { return !slices.Contains(For(c), g.Code) })
}

// Markdown is the gate's page in the docs.
func (g *Gate) Markdown() string {
	p, _ := PageOf(g.Code)
	var b strings.Builder
	fmt.Fprintf(&b, "## %s %s\n\n%s\n", g.Code, g.Name, g.Rationale)
	section := func(title, text string) {
		if text != "" {
			fmt.Fprintf(&b, "\n%s: %s\n", title, text)
		}
	}
	section("Source", g.Source)
	section("Looks at", p.Looks)
	section("Effects", joinClasses(g.Classes()))
	section("When", g.when())
	if len(p.Thresholds) > 0 {
		b.WriteString("\nThresholds:\n")
		for _, t := range p.Thresholds {
			fmt.Fprintf(&b, "- %s: %s", t.Name, t.Default)
			if t.Key != "" {
				fmt.Fprintf(&b, "; set by `%s`", t.Key)
			}
			b.WriteString("\n")
		}
	}
	b.WriteString("\nVerdicts:\n")
	for _, v := range p.Verdicts {
		fmt.Fprintf(&b, "- %s: %s\n", v.Verdict, v.Case)
	}
	if g.Before != nil || g.After != nil {
		b.WriteString("- block: it could not find out\n")
	}
	section("Rollback", g.rollback())
	section("To mend", p.Mend)
	return b.String()
}

func (g *Gate) when() string {
	var out []string
	if g.Before != nil {
		out = append(out, "before the first write of a call, for all of its effects, and again right before each")
	}
	if g.After != nil {
		out = append(out, "after each")
	}
	return strings.Join(out, ", and ")
}

func (g *Gate) rollback() string {
	if slices.Contains(Enforced(), g.Code) {
		return "must pass it, too"
	}
	return "is not held by it"
}

func joinClasses(cs []effect.Class) string {
	out := make([]string, len(cs))
	for i, c := range cs {
		out[i] = string(c)
	}
	return strings.Join(out, ", ")
}

// Table is the docs' table of which class of effect passes which gate.
func Table() string {
	var b strings.Builder
	b.WriteString("| class |")
	for _, g := range All() {
		fmt.Fprintf(&b, " %s %s |", g.Code, g.Name)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(All())) + "\n")
	for _, c := range effect.Classes() {
		fmt.Fprintf(&b, "| %s |", c)
		codes := For(c)
		for _, g := range All() {
			mark := " "
			if slices.Contains(codes, g.Code) {
				mark = " × "
			}
			b.WriteString(mark + "|")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// Docs are all pages and the table.
func Docs() string {
	var b strings.Builder
	b.WriteString("# Gates\n\nWhich gates a change passes, by its class. The host derives the class from the\nrequest.\n\n")
	b.WriteString(Table())
	for _, g := range All() {
		b.WriteString("\n" + g.Markdown())
	}
	return b.String()
}
