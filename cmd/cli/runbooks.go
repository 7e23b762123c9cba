package cli

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/runbooks"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/stdlib"
)

// listed is one runbook of the catalogue.
type listed struct {
	Path     string `json:"path"`
	Name     string `json:"name"`
	Version  string `json:"version"`
	Upgrades string `json:"upgrades,omitempty"`
	Summary  string `json:"summary"`
}

func (a *app) runbooksCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "runbooks",
		Short: "List the catalogue: each runbook with its version and the Istio versions that it is for",
		Args:  exactly(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := a.catalogue(cmd.Context())
			if err != nil {
				return err
			}
			switch output {
			case "json":
				return writeJSON(a.env.Stdout, all)
			case "":
				t := tabwriter.NewWriter(a.env.Stdout, 0, 4, 2, ' ', 0)
				fmt.Fprintln(t, "RUNBOOK\tVERSION\tUPGRADES\tSUMMARY")
				for _, r := range all {
					fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.Path, r.Version, r.Upgrades, r.Summary)
				}
				return t.Flush()
			}
			return diag.Usagef("--output "+output, "unknown format; expected json")
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	return cmd
}

func (a *app) catalogue(ctx context.Context) ([]listed, error) {
	h, err := a.assemble(a.renderer())
	if err != nil {
		return nil, err
	}
	names, err := catalogueNames()
	if err != nil {
		return nil, err
	}
	var out []listed
	for _, name := range names {
		l := loader.FS(runbooks.FS, name+".star", stdlib.FS, h.Cache, nil)
		rb, err := h.Load(ctx, l)
		if err != nil {
			return nil, err
		}
		summary, _, _ := strings.Cut(strings.TrimSpace(rb.Doc), "\n")
		out = append(out, listed{Path: name, Name: rb.Name, Version: rb.Version, Upgrades: rb.Upgrades.Text, Summary: summary})
	}
	return out, nil
}

// catalogueNames lists the runbooks as run takes them, "istio/in-place".
func catalogueNames() ([]string, error) {
	var names []string
	err := fs.WalkDir(runbooks.FS, ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(p, ".star") && !strings.HasSuffix(p, "_test.star") {
			names = append(names, strings.TrimSuffix(p, ".star"))
		}
		return err
	})
	return names, err
}
