package builtin

import (
	"strings"
)

// Signature is the call as documentation shows it:
// kube.get(ref, *, namespace = "", wait = "10m").
func (s *Spec) Signature() string { return s.args.signature(s.Name) }

func (p *argPlan) signature(name string) string {
	var parts []string
	starred := false
	for i, f := range p.fields {
		if i == p.positional {
			if p.star >= 0 {
				parts = append(parts, p.restName("*"))
			} else {
				parts = append(parts, "*")
			}
			starred = true
		}
		parts = append(parts, argText(f.doc))
	}
	if !starred && p.star >= 0 {
		parts = append(parts, p.restName("*"))
	}
	if p.starStar >= 0 {
		parts = append(parts, p.restName("**"))
	}
	return name + "(" + strings.Join(parts, ", ") + ")"
}

func (p *argPlan) restName(stars string) string {
	for _, d := range p.rest {
		if strings.HasPrefix(d.Name, "**") == (stars == "**") {
			return d.Name
		}
	}
	return stars
}

func argText(d ArgDoc) string {
	switch {
	case d.Required:
		return d.Name
	case d.Default != "":
		return d.Name + " = " + d.Default
	}
	return d.Name + " = None"
}

// Stub is the builtin as a Starlark function without a body, for editors:
// signature, documentation, arguments and example in the docstring.
func (s *Spec) Stub() string {
	var b strings.Builder
	b.WriteString("def " + s.args.signature(s.Short()) + ":\n    \"\"\"")
	b.WriteString(indent(escapeDoc(s.Doc)) + "\n")
	if len(s.Args) > 0 {
		b.WriteString("\n    Args:\n")
		for _, a := range s.Args {
			b.WriteString("        " + a.Name + " (" + a.Type + "): " + escapeDoc(a.Doc))
			if len(a.Enum) > 0 {
				b.WriteString(" One of: " + strings.Join(a.Enum, ", ") + ".")
			}
			b.WriteString("\n")
		}
	}
	b.WriteString("\n    Returns:\n        " + escapeDoc(s.Returns) + "\n")
	b.WriteString("\n    Example:\n        " + strings.ReplaceAll(escapeDoc(s.Example), "\n", "\n        ") + "\n    \"\"\"\n")
	return b.String()
}

func escapeDoc(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `"""`, `\"\"\"`)
}

func indent(s string) string { return strings.ReplaceAll(s, "\n", "\n    ") }
