package lib

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	analyzecmd "istio.io/istio/istioctl/pkg/analyze"
	"istio.io/istio/istioctl/pkg/cli"
	"istio.io/istio/istioctl/pkg/precheck"
	"istio.io/istio/istioctl/pkg/proxystatus"
	"istio.io/istio/istioctl/pkg/tag"
	"istio.io/istio/istioctl/pkg/util"
	versioncmd "istio.io/istio/istioctl/pkg/version"
	"istio.io/istio/operator/cmd/mesh"
)

// Exit codes of istioctl (istioctl/cmd, sysexits.go).
const (
	exitUsage       = 64
	exitData        = 65
	exitUnknown     = 1
	exitFoundIssues = 79
)

// Streams are what a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	// May says whether the cluster of a kubeconfig and context ("" for those that
	// hold without) may be reached, and the program for its credentials be run; nil
	// allows all.
	May func(kubeconfig, context string) error
}

// Command runs istioctl's own command of the linked version, for the arguments
// after "istioctl", and returns its exit code. Only commands that read are
// there: manifest generate and translate, precheck, version, analyze, tag list
// and generate, proxy-status. The commands of the library keep flags in
// variables of their packages: call it once in a process, or with one after the
// other and all flags given.
func Command(ctx context.Context, s Streams, args []string) int {
	root := commands()
	if s.May != nil {
		hold(root, s.May)
	}
	root.SetArgs(args)
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	if err := root.ExecuteContext(ctx); err != nil {
		return exitCode(err)
	}
	return 0
}

func commands() *cobra.Command {
	root := &cobra.Command{
		Use: "istioctl", Short: "istioctl of Istio " + LinkedVersion + ", the commands that read",
		SilenceUsage: true, DisableAutoGenTag: true, CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	ctx := cli.NewCLIContext(cli.AddRootFlags(root.PersistentFlags()))
	// As in istioctl, a flag that is not known is a usage error.
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return util.CommandParseError{Err: err} })
	manifest := mesh.ManifestCmd(ctx)
	refuse(manifest, "install", "istioctl.install in a runbook")
	tags := tag.TagCommand(ctx)
	refuse(tags, "set", "istioctl.set_tag in a runbook")
	refuse(tags, "remove", "istioctl.remove_tag in a runbook")
	experimental := &cobra.Command{Use: "experimental", Aliases: []string{"x", "exp"}, Short: "Experimental commands of istioctl"}
	experimental.AddCommand(precheck.Cmd(ctx))
	root.AddCommand(manifest, tags, experimental, precheck.Cmd(ctx), analyzecmd.Analyze(ctx), versioncmd.NewVersionCommand(ctx), proxystatus.StableXdsStatusCommand(ctx))
	return root
}

// hold has every command ask first, as soon as its flags are known.
func hold(c *cobra.Command, may func(kubeconfig, context string) error) {
	for _, sub := range c.Commands() {
		hold(sub, may)
	}
	if !c.Runnable() || c.Args == nil && c.HasSubCommands() { // the latter only says which commands it has
		return
	}
	args := c.Args
	c.Args = func(cmd *cobra.Command, given []string) error {
		if reaches(cmd) {
			if err := may(flagOf(cmd, cli.FlagKubeConfig), flagOf(cmd, cli.FlagContext)); err != nil {
				return err
			}
		}
		if args == nil {
			return nil
		}
		return args(cmd, given)
	}
}

// reaches reports whether a command asks a cluster: manifests are rendered without,
// unless they are to be for one.
func reaches(c *cobra.Command) bool {
	if c.Parent() == nil || c.Parent().Name() != "manifest" {
		return true
	}
	specific := c.Flags().Lookup("cluster-specific")
	return specific != nil && specific.Value.String() == "true"
}

func flagOf(c *cobra.Command, name string) string {
	if f := c.Flags().Lookup(name); f != nil {
		return f.Value.String()
	}
	return ""
}

// refuse takes a command that writes away: it would go past gates and journal.
func refuse(parent *cobra.Command, name, instead string) {
	for _, c := range parent.Commands() {
		if c.Name() != name {
			continue
		}
		parent.RemoveCommand(c)
		parent.AddCommand(&cobra.Command{
			Use: c.Use, Short: "Not here: it would write without gates and journal", Hidden: true, DisableFlagParsing: true,
			RunE: func(*cobra.Command, []string) error {
				return util.CommandParseError{Err: fmt.Errorf("%s %s writes to the cluster, past gates and journal; use %s", parent.Name(), name, instead)}
			},
		})
	}
}

// exitCode is istioctl's for an error.
func exitCode(err error) int {
	var usage util.CommandParseError
	var file analyzecmd.FileParseError
	var issues analyzecmd.AnalyzerFoundIssuesError
	switch {
	case errors.As(err, &usage), strings.Contains(err.Error(), "unknown command"):
		return exitUsage
	case errors.As(err, &file):
		return exitData
	case errors.As(err, &issues):
		return exitFoundIssues
	}
	return exitUnknown
}
