package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/runbooks"
	"rutter.dev/rutter/runtime/catalogue"
	"rutter.dev/rutter/runtime/deps"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/stdlib"
)

// listed is one version of one runbook of the catalogue.
type listed struct {
	Path       string `json:"path"` // as rutter run takes it
	Name       string `json:"name"`
	Version    string `json:"version"`
	Upgrades   string `json:"upgrades,omitempty"`
	Requires   string `json:"requires,omitempty"`
	Deprecated string `json:"deprecated,omitempty"`
	Summary    string `json:"summary"`
}

func (a *app) runbooksCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "runbooks [FOLDER…]",
		Short: "List the catalogue: each runbook with its versions and the Istio versions that they are for",
		Long: `Lists the runbooks that come with rutter and those of the dependencies of the module
that the present folder is in or, where folders are named, the runbooks in them. Each
is named as rutter run takes it. Another version of runbook NAME than the one in
NAME.star stands beside it, as NAME@VERSION.star; each line says which pair of Istio
versions that one covers, and the host refuses any other.`,
		Example: "  rutter runbooks\n  rutter runbooks runbooks -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := onlyJSON(output); err != nil {
				return err
			}
			all, err := a.catalogue(cmd.Context(), args)
			if err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(a.env.Stdout, append([]listed{}, all...))
			}
			t := tabwriter.NewWriter(a.env.Stdout, 0, 4, 2, ' ', 0)
			fmt.Fprintln(t, "RUNBOOK\tVERSION\tUPGRADES\tSUMMARY")
			for _, r := range all {
				pair, summary := r.Upgrades, r.Summary
				if pair == "" {
					pair = "any"
				}
				if r.Deprecated != "" {
					summary = "deprecated: " + r.Deprecated
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.Path, r.Version, pair, summary)
			}
			return t.Flush()
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	return cmd
}

func (a *app) catalogue(ctx context.Context, folders []string) ([]listed, error) {
	h, err := a.assemble(a.renderer())
	if err != nil {
		return nil, err
	}
	var out []listed
	for _, folder := range folders {
		if out, err = a.listFolder(ctx, h, folder, out); err != nil {
			return nil, err
		}
	}
	if len(folders) > 0 {
		return out, nil
	}
	files, err := catalogueFiles()
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		l := loader.FS(runbooks.FS, file, stdlib.FS, h.Cache, nil)
		one, err := list(ctx, h, l, file)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	out = sorted(out)
	o, err := a.opened(ctx, a.env.Workdir, "")
	if err != nil { // what comes with rutter is there all the same
		return out, a.talk("those of dependencies can't be listed: %v", err)
	}
	return a.listDependencies(ctx, h, o, out)
}

// list is one runbook, by what it declares.
func list(ctx context.Context, h *host.Host, l *loader.Loader, file string) (listed, error) {
	defer closeQuietly(l)
	rb, err := h.Load(ctx, l)
	if err != nil {
		return listed{}, err
	}
	if err := (catalogue.Edition{File: file, Version: rb.Version}).Agrees(); err != nil {
		return listed{}, err
	}
	summary, _, _ := strings.Cut(strings.TrimSpace(rb.Doc), "\n")
	return listed{
		Path: strings.TrimSuffix(file, ".star"), Name: rb.Name, Version: rb.Version, Upgrades: rb.Upgrades.Text, Requires: rb.Requires, Deprecated: rb.Deprecated, Summary: summary,
	}, nil
}

// sorted puts the versions of a runbook below it, the latest first.
func sorted(all []listed) []listed {
	slices.SortStableFunc(all, func(x, y listed) int {
		return catalogue.Compare(catalogue.Edition{File: x.Path, Version: x.Version}, catalogue.Edition{File: y.Path, Version: y.Version})
	})
	return all
}

// listDependencies adds the runbooks of what the module declares.
func (a *app) listDependencies(ctx context.Context, h *host.Host, o *deps.Opened, out []listed) ([]listed, error) {
	if o.File == nil {
		return out, nil
	}
	for _, d := range o.File.Dependencies {
		var of []listed
		for _, file := range o.Libraries[d.Name].Names() {
			if !catalogue.IsRunbook(file) || !catalogue.Declares(o.Libraries[d.Name].Text(file)) {
				continue
			}
			l, err := o.Loader(loader.LibraryLabel(d.Name, file), h.Stdlib, h.Cache)
			if err != nil {
				return nil, err
			}
			one, err := list(ctx, h, l, file)
			if err != nil {
				return nil, err
			}
			one.Path = "@" + d.Name + "//" + one.Path
			of = append(of, one)
		}
		out = append(out, sorted(of)...)
	}
	return out, nil
}

// listFolder adds the runbooks of a folder.
func (a *app) listFolder(ctx context.Context, h *host.Host, folder string, out []listed) ([]listed, error) {
	at := &runbooksAt{path: a.abs(folder)}
	if st, err := os.Stat(at.path); err != nil || !st.IsDir() {
		return nil, &diag.Error{Code: diag.Usage, Subject: folder, Problem: "is no folder", Err: err, Changed: "nothing"}
	}
	files, err := runbooksIn(at)
	if err != nil {
		return nil, err
	}
	var of []listed
	for _, file := range files {
		f, err := a.fileSource(ctx, h, file, filepath.Join(at.path, filepath.FromSlash(file)), "")
		if err != nil {
			return nil, err
		}
		one, err := list(ctx, h, f.Loader, file)
		if err != nil {
			return nil, err
		}
		one.Path = a.shown(filepath.Join(at.path, filepath.FromSlash(one.Path)))
		of = append(of, one)
	}
	return append(out, sorted(of)...), nil
}
