package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/runtime/journal"
)

func (a *app) runsCmd() *cobra.Command {
	var output string
	t := &target{}
	cmd := &cobra.Command{
		Use:   "runs",
		Short: "List the runs in the state folder, newest first (--state cluster: in the cluster)",
		Args:  exactly(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			at, err := a.stateAt(cmd.Context(), t)
			if err != nil {
				return err
			}
			all, err := at.store(a, a.env.Clock).List()
			if err != nil {
				return err
			}
			switch output {
			case "json":
				return writeJSON(a.env.Stdout, all)
			case "":
				if len(all) == 0 {
					return a.talk("no runs in %s", at.where)
				}
				return runTable(a.env.Stdout, all)
			}
			return unknownFormat(output, "json")
		},
	}
	t.stateFlags(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	return cmd
}

func runTable(w io.Writer, all []journal.Summary) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "RUN\tSTATUS\tRUNBOOK\tISTIO\tCLUSTER\tSTEPS\tEFFECTS\tSTARTED")
	for _, s := range all {
		istio := ""
		if s.From != "" || s.To != "" {
			istio = s.From + " -> " + s.To
		}
		started := ""
		if !s.Started.IsZero() {
			started = s.Started.UTC().Format(time.DateTime)
		}
		fmt.Fprintf(t, "%s\t%s\t%s %s\t%s\t%s\t%d\t%d\t%s\n", s.Run, s.Status, s.Runbook, s.Version, istio, s.Context, s.Steps, s.Effects, started)
	}
	return t.Flush()
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
