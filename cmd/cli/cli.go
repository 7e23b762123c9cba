// Package cli is the command line: a thin file per command over the packages
// that do the work, and the wiring of one to the other.
package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"rutter.dev/rutter/cmd/cli/view"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/env"
)

// version is set by the linker.
var version = "dev"

// Main is the whole program: it returns the exit code (DESIGN §7).
func Main(args []string) int {
	e, err := env.System(isTerminal)
	if err != nil {
		_, _ = os.Stderr.WriteString("rutter: " + err.Error() + "\n")
		return int(diag.Failed)
	}
	deepStacks()
	soft, hard, stop := interrupts()
	defer stop()
	return Run(soft, hard, e, args)
}

// Run executes one command line within e. soft ends at the first interrupt,
// hard at the second. Tests call it in the process.
func Run(soft, hard context.Context, e *env.Env, args []string) int {
	a := &app{env: e, hard: hard}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(e.Stdin)
	root.SetOut(e.Stdout)
	root.SetErr(e.Stderr)
	err := root.ExecuteContext(soft)
	if err == nil {
		return int(diag.OK)
	}
	var exit exitError
	if errors.As(err, &exit) {
		return int(exit)
	}
	if errors.Is(err, syscall.EPIPE) {
		return readerGone
	}
	_ = view.Error(e.Stderr, err, a.look(e.Stderr)) // where there is no terminal any more, the code is all that is left to say
	return int(diag.ExitCode(err))
}

// readerGone is how a shell reports what SIGPIPE ended: "rutter show | head" has
// nothing to complain about.
const readerGone = 128 + int(syscall.SIGPIPE)

// exitError ends the program with a code and nothing more to say.
type exitError diag.Code

// Error implements error.
func (e exitError) Error() string { return "" }

// app is what the commands share.
type app struct {
	env   *env.Env
	hard  context.Context
	color string
	state string
	// at is what names the cluster, with --state cluster: flags as they were typed.
	at []string
}

func (a *app) root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rutter",
		Short: "Runs, reviews and tests runbooks that upgrade Istio, and refuses what is unsafe",
		Long: `rutter runs versioned Starlark runbooks that upgrade Istio on Kubernetes.

Every change goes through the host's safety gates and a write-ahead journal: a
run that was killed is finished with "rutter resume". Start without a cluster:

  rutter run istio/in-place --set to=1.31.0 --sim mesh,istio=1.30.3 --yes`,
		SilenceErrors: true, SilenceUsage: true,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.SetFlagErrorFunc(flagError)
	cmd.PersistentFlags().StringVar(&a.color, "color", "auto", "colour: auto, always or never (NO_COLOR is respected)")
	cmd.PersistentFlags().StringVar(&a.state, "state", "", "folder for runs (default $XDG_STATE_HOME/rutter/runs), or cluster: keep them in the cluster, for a colleague to go on with")
	cmd.PersistentPreRunE = func(*cobra.Command, []string) error {
		switch a.color {
		case "auto", "always", "never":
			return nil
		}
		return &diag.Error{Code: diag.Usage, Subject: "--color " + a.color, Problem: "unknown choice", Expect: "auto, always or never"}
	}
	cmd.SetHelpCommand(helpCmd(cmd))
	cmd.AddCommand(a.planCmd(), a.impactCmd(), a.reviewCmd(), a.runCmd(), a.resumeCmd(), a.rollbackCmd(), a.runsCmd(), a.showCmd(), a.unlockCmd(), a.testCmd(), a.simCmd(), a.rbacCmd(), a.snapshotCmd(), a.policyCmd(), a.depsCmd(), a.vendorCmd(), a.fixCmd(), a.knowledgeCmd(), a.runbooksCmd(), a.explainCmd(), a.istioctlCmd(), a.toolchainCmd(), a.versionCmd())
	refuseUnknownShells(cmd)
	return cmd
}

// noSuchCommand takes what is left over after the last command's name: a
// subcommand that does not exist is a usage error, not a reason to print help.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	d := diag.Usagef(cmd.CommandPath()+" "+args[0], "no such command")
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	if near := diag.Nearest(args[0], names); near != "" {
		d.Problem += "; did you mean " + near + "?"
	}
	d.Next = cmd.CommandPath() + " --help"
	return d
}

// helpCmd is cobra's, but refuses what does not exist.
func helpCmd(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about any command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil {
				return err
			}
			if err := noSuchCommand(cmd, rest); err != nil {
				return err
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// refuseUnknownShells makes "completion NAME" an error where cobra prints help.
func refuseUnknownShells(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Args = noSuchCommand
			c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
}

// flagError names the flag and, where one is near, the flag that was meant.
func flagError(cmd *cobra.Command, err error) error {
	d := &diag.Error{Code: diag.Usage, Subject: cmd.CommandPath(), Problem: err.Error(), Next: cmd.CommandPath() + " --help"}
	if name, ok := strings.CutPrefix(err.Error(), "unknown flag: --"); ok {
		var names []string
		cmd.Flags().VisitAll(func(f *flagT) { names = append(names, f.Name) })
		if near := diag.Nearest(name, names); near != "" {
			d.Problem += "; did you mean --" + near + "?"
		}
	}
	return d
}

// exactly refuses a wrong number of arguments with what was expected.
func exactly(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		problem := "too many arguments"
		if len(args) < least {
			problem = "missing argument"
		}
		return &diag.Error{Code: diag.Usage, Subject: cmd.CommandPath(), Problem: problem, Expect: what, Next: cmd.CommandPath() + " --help"}
	}
}

func (a *app) look(stream any) view.Options {
	width := 0
	if f, ok := stream.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			width = w
		}
	}
	o := view.OptionsFor(a.env, stream, a.color, width)
	o.Runs = findRuns{a}
	return o
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// interrupts gives the contexts that the first and the second signal end; a third
// one ends the process where it stands. A
// closed terminal sends SIGHUP.
func interrupts() (soft, hard context.Context, stop func()) {
	soft, endSoft := context.WithCancel(context.Background())
	hard, endHard := context.WithCancel(context.Background())
	ch, pipe := make(chan os.Signal, 2), make(chan os.Signal, 1)
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	signal.Notify(pipe, syscall.SIGPIPE) // else the write to a reader that is gone would kill the process
	go func() {
		for n := 0; n < 2; {
			select {
			case <-ch:
				n++
			case <-pipe: // where nobody sees any more what the run does, that is a first interrupt, and never a second
				if !nobodyReads() {
					continue
				}
				n = max(n, 1)
			}
			endSoft()
			if n == 2 {
				endHard()
				// Where something waits that no context ends, a third one is the
				// system's own: what is in the journal can be resumed.
				signal.Reset(os.Interrupt, syscall.SIGTERM)
			}
		}
	}()
	return soft, hard, func() {
		signal.Stop(ch)
		signal.Stop(pipe)
		endSoft()
		endHard()
	}
}

// unknownFormat is the error of an --output that is none of a command's.
func unknownFormat(output, expected string) error {
	return diag.Usagef("--output "+output, "unknown format; expected %s", expected)
}
