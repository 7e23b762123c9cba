package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/runtime/deps"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/loader"
)

const moduleUsage = "folder of the module (default the nearest one with rutter.mod.star)"

// module is the one at or above a folder, which must have a rutter.mod.star.
func (a *app) module(dir string) (*deps.Module, error) {
	dir = a.abs(dir)
	mod, err := deps.Find(dir, rootOf(filepath.Join(dir, "x")))
	if err != nil {
		return nil, err
	}
	if mod.File == nil {
		return nil, &diag.Error{
			Code: diag.Usage, Subject: a.shown(dir), Problem: "is in no module: there is no " + loader.ModFile, Changed: "nothing",
			Next: `write one: dependency("ops", version = "1.0.0", git = "https://…", commit = "…")`,
		}
	}
	return mod, nil
}

func (a *app) depsCmd() *cobra.Command {
	var dir, output string
	cmd := &cobra.Command{
		Use:   "deps",
		Short: "Show, lock and fetch what runbooks load from other folders and repositories",
		Long: `Runbooks load from what rutter.mod.star declares beside them:

  module("payments", version = "1.0.0", api = 1, requires = ">=1.0")
  dependency("shared", path = "../shared")
  dependency("ops", version = "1.4.0", git = "https://git.example.com/ops.git",
             commit = "0123456789abcdef0123456789abcdef01234567", folder = "runbooks")

as load("@ops//preflight.star", "ready"). Each of them is a folder with a
rutter.mod.star of its own, which names it. rutter deps lock selects one version of
each, the highest of the lowest that anybody asks for, and writes it with a digest of
its content into rutter.lock. Runs, plans, reviews and tests take what is locked, from
vendor/, the folder or the cache; they use no network, and refuse content of another
digest. Without a subcommand it lists what is locked, and exits with 2 where something
would be refused.`,
		Example: "  rutter deps lock\n  rutter deps fetch\n  rutter vendor",
		Args:    noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			mod, err := a.module(dir)
			if err != nil {
				return err
			}
			return a.listDeps(cmd.Context(), mod, output)
		},
	}
	cmd.PersistentFlags().StringVar(&dir, "module", ".", moduleUsage)
	cmd.PersistentFlags().StringVarP(&output, "output", "o", "", "json")
	cmd.AddCommand(a.depsLockCmd(&dir, &output), a.depsFetchCmd(&dir, &output))
	return cmd
}

func (a *app) listDeps(ctx context.Context, mod *deps.Module, output string) error {
	if err := onlyJSON(output); err != nil {
		return err
	}
	all, err := a.modules().States(ctx, mod)
	if err != nil {
		return err
	}
	if output == "json" {
		if all == nil {
			all = []deps.State{}
		}
		err = writeJSON(a.env.Stdout, all)
	} else {
		t := tabwriter.NewWriter(a.env.Stdout, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "DEPENDENCY\tVERSION\tHERE\tFROM")
		for _, s := range all {
			here := s.Place
			if s.Problem != "" && here != deps.Missing {
				here += ", changed"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", s.Name, s.Version, here, s.Source)
		}
		err = t.Flush()
	}
	if err != nil {
		return err
	}
	_, err = a.modules().Open(ctx, mod) // whether all of it goes together
	return err
}

func onlyJSON(output string) error {
	if output != "" && output != "json" {
		return unknownFormat(output, "json")
	}
	return nil
}

func (a *app) depsLockCmd(dir, output *string) *cobra.Command {
	return &cobra.Command{
		Use: "lock", Short: "Select a version of every dependency and write rutter.lock",
		Long: `Looks at every version that anybody asks for, takes the highest of each module, and
never a newer one. What is not on this machine is fetched into the cache. A version
whose content is another than the one in rutter.lock is refused; of a folder of the
repository, which changes with it, the new content is locked.`,
		Args: exactly(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := onlyJSON(*output); err != nil {
				return err
			}
			mod, err := a.module(*dir)
			if err != nil {
				return err
			}
			was, is, err := a.modules().LockAll(cmd.Context(), mod)
			if err != nil {
				return err
			}
			if *output == "json" {
				return writeJSON(a.env.Stdout, lockedOf(is))
			}
			return a.tellLock(was, is)
		},
	}
}

func lockedOf(lock deps.Lock) []deps.Locked {
	if len(lock) == 0 {
		return []deps.Locked{}
	}
	return lock.Sorted()
}

// tellLock says what is locked now, and what of that is new.
func (a *app) tellLock(was, is deps.Lock) error {
	for _, l := range is.Sorted() {
		what := ""
		switch old, ok := was[l.Name]; {
		case !ok:
			what = "  new"
		case !old.Version.Equal(l.Version):
			what = "  was " + old.Version.String()
		case old.Digest != l.Digest:
			what = "  its content changed"
		case old.Source != l.Source:
			what = "  was from " + old.Source.String()
		}
		if _, err := fmt.Fprintf(a.env.Stdout, "%s %s  %s%s\n", l.Name, l.Version, l.Source, what); err != nil {
			return err
		}
	}
	for _, l := range was.Sorted() {
		if _, ok := is[l.Name]; !ok {
			if _, err := fmt.Fprintf(a.env.Stdout, "%s %s  is no dependency any more\n", l.Name, l.Version); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *app) depsFetchCmd(dir, output *string) *cobra.Command {
	return &cobra.Command{
		Use: "fetch", Short: "Bring here what rutter.lock has and this machine has not",
		Args: exactly(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := onlyJSON(*output); err != nil {
				return err
			}
			mod, err := a.module(*dir)
			if err != nil {
				return err
			}
			got, err := a.modules().Fetch(cmd.Context(), mod)
			if err != nil {
				return err
			}
			if *output == "json" {
				return writeJSON(a.env.Stdout, append([]deps.Locked{}, got...))
			}
			for _, l := range got {
				if _, err := fmt.Fprintf(a.env.Stdout, "%s %s fetched from %s\n", l.Name, l.Version, l.Source.Git); err != nil {
					return err
				}
			}
			if len(got) == 0 {
				return a.talk("everything is here")
			}
			return nil
		},
	}
}

func (a *app) vendorCmd() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "vendor",
		Short: "Keep what runbooks load from other repositories in vendor/, beside rutter.mod.star",
		Long: `Copies every dependency of another repository, as rutter.lock has it, to vendor/NAME,
from which runs take it then, with no cache and no network. What is there is held to
the lock each time. What is no dependency any more is removed; folders of this
repository stay where they are.`,
		Args: exactly(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			mod, err := a.module(dir)
			if err != nil {
				return err
			}
			got, err := a.modules().VendorAll(cmd.Context(), mod)
			if err != nil {
				return err
			}
			for _, l := range got {
				if _, err := fmt.Fprintf(a.env.Stdout, "%s %s in %s\n", l.Name, l.Version, a.shown(filepath.Join(mod.Dir, deps.Vendor, l.Name))); err != nil {
					return err
				}
			}
			if len(got) == 0 {
				return a.talk("nothing comes from another repository")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "module", ".", moduleUsage)
	return cmd
}
