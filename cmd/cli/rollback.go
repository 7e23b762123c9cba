package cli

import (
	"context"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/host"
)

type rollbackFlags struct {
	takeUp  takeUp
	to      string
	plan    bool
	foreign string
}

func (a *app) rollbackCmd() *cobra.Command {
	f := &rollbackFlags{}
	cmd := &cobra.Command{
		Use:   "rollback RUN",
		Short: "Undo what a run did, from its journal",
		Long: `Undoes the changes of a run, whether it is done, failed or was killed: what it
made goes, what it deleted comes back, what it changed becomes what it was, and
workloads are rolled back to their old proxy once the old control plane serves.
Only what the run changed is taken back; where somebody else has changed the
same field since, you are asked. Steps with an undo of their own are undone by it.

The plan is shown and approved as one. A rollback that was killed is finished by
the same command. At its end the cluster is compared with what it was, and the
result says so. Exit codes: 0 rolled back, 1 failed, 2 usage, 3 refused by a gate
or not approved, 5 in doubt, 130 interrupted.`,
		Example: `  rutter rollback latest --plan
  rutter rollback 20260101-120000-ab3d --to "back up"`,
		Args: exactly(1, 1, "a run, or latest"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.rollback(cmd.Context(), f, args) },
	}
	f.takeUp.flags(cmd)
	cmd.Flags().StringVar(&f.to, "to", "", "undo only what came after this step, which stays")
	cmd.Flags().BoolVar(&f.plan, "plan", false, "show what would be undone, and what can't be; nothing is changed")
	cmd.Flags().StringVar(&f.foreign, "foreign", "", "fields that somebody else changed since the run: keep or overwrite (default: ask)")
	return cmd
}

func (a *app) rollback(ctx context.Context, f *rollbackFlags, args []string) error {
	switch f.foreign {
	case "", "keep", "overwrite":
	default:
		return &diag.Error{Code: diag.Usage, Subject: "--foreign " + f.foreign, Problem: "unknown choice", Expect: "keep or overwrite"}
	}
	ro := engine.RollbackOptions{Until: f.to, PlanOnly: f.plan, Foreign: f.foreign}
	return a.takeUpRun(ctx, &f.takeUp, args, f.plan, func(h *host.Host, s host.Session) error {
		return h.Rollback(ctx, a.hard, s, ro)
	})
}
