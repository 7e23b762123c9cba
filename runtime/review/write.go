package review

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/event"
)

// shown is how many changes of one scenario are told in text and Markdown.
const shown = 60

// Text writes the report for a terminal.
func (r *Report) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "review of %s: %s → %s\n", r.Runbook, r.Old, r.New)
	for _, s := range r.Gained {
		fmt.Fprintf(&b, "  ! now %s\n", event.CleanLine(s))
	}
	for _, s := range r.Lost {
		fmt.Fprintf(&b, "    no longer %s\n", event.CleanLine(s))
	}
	for i := range r.Scenarios {
		s := &r.Scenarios[i]
		fmt.Fprintf(&b, "\n%s\n  %s\n", s.Name, event.CleanLine(s.New))
		if same := r.like(i); same != "" {
			b.WriteString("  " + same + "\n")
			continue
		}
		for n, c := range s.Changes {
			if n == shown {
				fmt.Fprintf(&b, "  … and %d more; -o json has all\n", len(s.Changes)-shown)
				break
			}
			fmt.Fprintf(&b, "  %-12s %s\n", c.Kind, event.CleanLine(c.What))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Markdown writes the report as a comment on a pull request.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "## Review of %s\n\n", code(r.Runbook))
	if r.Changed() {
		fmt.Fprintf(&b, "The behaviour changes between %s and %s.\n", code(r.Old), code(r.New))
	} else {
		fmt.Fprintf(&b, "%s and %s do the same.\n", code(r.Old), code(r.New))
	}
	if len(r.Gained)+len(r.Lost) > 0 {
		b.WriteString("\n### What it may do\n\n")
		for _, s := range r.Gained {
			fmt.Fprintf(&b, "- **now** %s\n", code(s))
		}
		for _, s := range r.Lost {
			fmt.Fprintf(&b, "- no longer %s\n", code(s))
		}
	}
	for i := range r.Scenarios {
		s := &r.Scenarios[i]
		fmt.Fprintf(&b, "\n### On %s\n\nNow: %s\n", s.Name, code(s.New))
		if same := r.like(i); same != "" {
			b.WriteString("\nIt " + same + ".\n")
			continue
		}
		b.WriteString("\n```diff\n")
		for n, c := range s.Changes {
			if n == shown {
				fmt.Fprintf(&b, "# and %d more; -o json has all\n", len(s.Changes)-shown)
				break
			}
			sign := "!"
			if strings.HasPrefix(c.What, "+ ") || strings.HasPrefix(c.What, "- ") {
				sign = c.What[:1]
			}
			fmt.Fprintf(&b, "%s %s: %s\n", sign, c.Kind, strings.ReplaceAll(event.CleanLine(strings.TrimLeft(c.What, "+-~ ")), "```", "`` `"))
		}
		b.WriteString("```\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// like says what the changes of a scenario need not be listed for; "" if they
// need.
func (r *Report) like(i int) string {
	s := &r.Scenarios[i]
	if len(s.Changes) == 0 {
		return "does what it did before"
	}
	for _, earlier := range r.Scenarios[:i] {
		if slices.Equal(earlier.Changes, s.Changes) {
			return "differs in the same way as on " + earlier.Name
		}
	}
	return ""
}

// code sets text as code, so that nothing in it is markup.
func code(s string) string {
	s = strings.ReplaceAll(event.CleanLine(s), "`", "'")
	return "`" + s + "`"
}
