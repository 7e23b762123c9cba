package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/policy"
)

func (a *app) policyCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Look at the organization's policy, rutter.yaml",
		Args:  noSuchCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.policyCheckCmd(), a.policyExplainCmd(), a.policyToSignCmd())
	return cmd
}

func (a *app) policyCheckCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Say everything that is wrong with a policy and its rules",
		Long: `Reads a policy file, by default the rutter.yaml that a run from here would find,
with the rules that it names, and says everything that is wrong with it. Exit
codes: 0 it is valid, 2 it is not.`,
		Args: exactly(0, 1, "one policy file, or none for that of the repository"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.namedPolicy(cmd.Context(), args, file)
			if err != nil {
				return err
			}
			for _, w := range p.Expired(a.env.Clock.Now()) {
				if err := a.talk("%s: %s", a.shown(p.Path), w); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintf(a.env.Stdout, "%s is valid: %s\n", a.shown(p.Path), p.Digest)
			return err
		},
	}
	cmd.Flags().StringVar(&file, "policy", "", samePolicy)
	return cmd
}

// samePolicy is the flag by which a run names its policy.
const samePolicy = "the same as FILE, as a run is told it"

func (a *app) policyExplainCmd() *cobra.Command {
	var at, file string
	cmd := &cobra.Command{
		Use:   "explain [FILE]",
		Short: "Say in words what a policy allows, when, and who must approve",
		Example: `  rutter policy explain
  rutter policy explain --at "2026-12-24 22:30"`,
		Args: exactly(0, 1, "one policy file, or none for that of the repository"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.namedPolicy(cmd.Context(), args, file)
			if err != nil {
				return err
			}
			now := a.env.Clock.Now()
			if at != "" {
				if now, err = p.Time(at); err != nil {
					return &diag.Error{Code: diag.Usage, Subject: "--at " + at, Err: err}
				}
			}
			_, err = fmt.Fprint(a.env.Stdout, p.Explain(now))
			return err
		},
	}
	cmd.Flags().StringVar(&file, "policy", "", samePolicy)
	cmd.Flags().StringVar(&at, "at", "", "say whether a change may begin at this time (2026-12-24 22:30 in the policy's zone, or RFC 3339), instead of now")
	return cmd
}

// namedPolicy reads the policy that the argument or the flag names, or that of the
// repository.
func (a *app) namedPolicy(ctx context.Context, args []string, file string) (*policy.Policy, error) {
	if len(args) == 1 && file != "" {
		return nil, diag.Usagef("--policy "+file, "names a policy, and so does the argument %s", args[0])
	}
	h, err := a.assemble(a.renderer())
	if err != nil {
		return nil, err
	}
	t := &target{}
	t.Policy = file
	if len(args) == 1 {
		t.Policy = args[0]
	}
	p, err := a.policyFor(ctx, h, t, "", nil)
	if err == nil && p == nil {
		return nil, &diag.Error{
			Code: diag.Usage, Subject: filepath.Join(a.env.Workdir, policy.Name), Problem: "there is no policy here, nor in a folder above",
			Expect: "a policy file", Next: "rutter policy explain FILE",
		}
	}
	return p, err
}
