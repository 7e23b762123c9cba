package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
)

// explained is a gate as rutter explain -o json prints it.
type explained struct {
	Code      gate.Code      `json:"code"`
	Name      string         `json:"name"`
	Rationale string         `json:"rationale"`
	Source    string         `json:"source"`
	Effects   []effect.Class `json:"effects"`
	Page      gate.Page      `json:"page"`
}

func (a *app) explainCmd() *cobra.Command {
	var output string
	var table, all bool
	cmd := &cobra.Command{
		Use:   "explain [CODE]",
		Short: "Explain a gate: why it is there, what it looks at, its thresholds and verdicts, how to get past it",
		Long: `Explains the gate of a code (RUT013) or name (disruption), and lists all gates
without one. With --table it prints which class of change passes which gates,
with --all the pages of all of them, as Markdown.`,
		Example: `  rutter explain
  rutter explain RUT013
  rutter explain --table`,
		Args: exactly(0, 1, "a gate's code, or none to list them"),
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case output != "" && output != "json":
				return unknownFormat(output, "json")
			case len(args) == 1 && (table || all), table && all:
				return diag.Usagef("rutter explain", "CODE, --table and --all don't go together")
			case len(args) == 1:
				return a.explain(args[0], output)
			case output == "json":
				var out []explained
				for _, g := range gate.All() {
					out = append(out, explainedOf(g))
				}
				return writeJSON(a.env.Stdout, out)
			case table:
				return a.say(gate.Table())
			case all:
				return a.say(gate.Docs())
			}
			return a.listGates()
		},
		ValidArgsFunction: completeGates,
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	cmd.Flags().BoolVar(&table, "table", false, "which class of change passes which gates")
	cmd.Flags().BoolVar(&all, "all", false, "the pages of all gates")
	return cmd
}

func completeGates(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var out []string
	for _, g := range gate.All() {
		if len(args) == 0 {
			out = append(out, string(g.Code)+"\t"+g.Name)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func explainedOf(g *gate.Gate) explained {
	p, _ := gate.PageOf(g.Code)
	return explained{Code: g.Code, Name: g.Name, Rationale: g.Rationale, Source: g.Source, Effects: g.Classes(), Page: p}
}

func (a *app) explain(code, output string) error {
	g := gate.Find(code)
	if g == nil {
		var names []string
		for _, g := range gate.All() {
			names = append(names, string(g.Code), g.Name)
		}
		err := diag.Usagef(code, "no such gate")
		if near := diag.Nearest(strings.ToUpper(code), names); near != "" {
			err.Problem += "; did you mean " + near + "?"
		} else if near := diag.Nearest(code, names); near != "" {
			err.Problem += "; did you mean " + near + "?"
		}
		err.Next = "rutter explain lists them"
		return err
	}
	if output == "json" {
		return writeJSON(a.env.Stdout, explainedOf(g))
	}
	return a.say(g.Markdown())
}

func (a *app) listGates() error {
	t := tabwriter.NewWriter(a.env.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "CODE\tGATE\tBLOCKS WHEN")
	for _, g := range gate.All() {
		p, _ := gate.PageOf(g.Code)
		for _, v := range p.Verdicts {
			if v.Verdict == gate.Block {
				fmt.Fprintf(t, "%s\t%s\t%s\n", g.Code, g.Name, v.Case)
			}
		}
	}
	return t.Flush()
}

// say prints to stdout.
func (a *app) say(text string) error {
	_, err := fmt.Fprint(a.env.Stdout, text)
	return err
}
