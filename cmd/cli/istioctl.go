package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/env"
)

// istioctlCmd runs istioctl's own commands, with its own flags, output, errors
// and exit codes.
func (a *app) istioctlCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "istioctl manifest generate|precheck|version|analyze|tag list|proxy-status [FLAGS]",
		Short: "The istioctl that is linked: its commands that read, with its own flags and exit codes",
		Long: `Runs a command of the linked istioctl with istioctl's own flags, output, errors
and exit codes, so that anybody can compare:

  rutter istioctl manifest generate --set profile=ambient | diff - <(istioctl manifest generate --set profile=ambient)

Only commands that read are there. What writes (install, tag set, uninstall)
goes through a runbook, and so through the gates and the journal.`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := lib.Setup(); err != nil {
				return err
			}
			code := lib.Command(cmd.Context(), lib.Streams{In: a.env.Stdin, Out: a.env.Stdout, Err: a.env.Stderr, May: a.mayReach}, args)
			if code != 0 {
				return exitError(code)
			}
			return nil
		},
	}
}

// mayReach refuses a kubeconfig that would run a program which may not be run, or that
// would be waited for. What else is wrong with it istioctl says in its own words.
func (a *app) mayReach(kubeconfig, context string) error {
	_, _, err := cluster.Config(cluster.Options{Kubeconfig: kubeconfig, Context: context, Getenv: a.env.Getenv, Clock: a.env.Clock})
	if errors.Is(err, cluster.ErrPlugin) || errors.Is(err, env.ErrNoFile) {
		return err
	}
	return nil
}
