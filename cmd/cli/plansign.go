package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/plan"
	"rutter.dev/rutter/runtime/policy"
	"rutter.dev/rutter/runtime/signature"
)

// sigSuffix is where the signature of a file is, as ssh-keygen has it.
const sigSuffix = ".sig"

func (a *app) planSignCmd() *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use:   "sign PLAN --key FILE",
		Short: "Sign a saved plan with an SSH key",
		Long: `Writes PLAN.sig, as ssh-keygen -Y sign -n rutter-plan -f FILE PLAN does, and says
what was signed. FILE is a private key, or a public or encrypted one that the agent of
SSH_AUTH_SOCK holds. A policy with planSigners runs only plans that one of them signed.`,
		Example: `  rutter plan sign upgrade.plan --key ~/.ssh/id_ed25519`,
		Args:    exactly(1, 1, "a saved plan"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if key == "" {
				return diag.Usagef(cmd.CommandPath(), "--key says with which key")
			}
			return a.planSign(cmd.Context(), args[0], key)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "SSH key to sign with")
	return cmd
}

func (a *app) planSign(ctx context.Context, path, keyFile string) error {
	p, raw, err := planFile(ctx, path)
	if err != nil {
		return err
	}
	data, err := env.ReadFile(ctx, keyFile, maxGiven)
	if err != nil {
		return &diag.Error{Code: diag.Usage, Subject: "--key " + keyFile, Problem: "can't be read", Err: err, Changed: "nothing"}
	}
	key, err := signature.Key(data, a.agent())
	if err != nil {
		d := &diag.Error{Code: diag.Usage, Subject: "--key " + keyFile, Err: err, Expect: "a private SSH key, or one that the agent of SSH_AUTH_SOCK holds", Changed: "nothing"}
		if errors.Is(err, signature.ErrNoAgent) || errors.Is(err, signature.ErrNotHeld) {
			d.Next = "ssh-add " + keyFile
		}
		return d
	}
	sig, err := signature.Sign(key, policy.PlanNamespace, raw)
	if err != nil {
		return &diag.Error{Code: diag.Failed, Subject: "--key " + keyFile, Problem: "can't sign", Err: err, Changed: "nothing"}
	}
	out, err := os.OpenFile(path+sigSuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) // #nosec G302 -- a signature is for others to read, as ssh-keygen writes it
	if errors.Is(err, fs.ErrExist) {
		return &diag.Error{Code: diag.Usage, Subject: path + sigSuffix, Problem: "is there already, and perhaps somebody else's", Changed: "nothing", Next: "rm " + path + sigSuffix}
	}
	if err == nil {
		_, err = out.Write(sig)
		err = errors.Join(err, out.Close())
	}
	if err != nil {
		return &diag.Error{Code: diag.Usage, Subject: path + sigSuffix, Problem: "can't be written", Err: err}
	}
	return a.talk("%s\nsigned by %s in %s", p.Summary(), ssh.FingerprintSHA256(key.PublicKey()), path+sigSuffix)
}

// agent asks the SSH agent for its keys; nil where there is none.
func (a *app) agent() func() ([]ssh.Signer, error) {
	socket := a.env.Getenv("SSH_AUTH_SOCK")
	if socket == "" {
		return nil
	}
	return func() ([]ssh.Signer, error) {
		c, err := net.Dial("unix", socket)
		if err != nil {
			return nil, fmt.Errorf("the agent of SSH_AUTH_SOCK: %w", err)
		}
		return agent.NewClient(c).Signers() // they sign over c, which ends with the program
	}
}

func (a *app) planVerifyCmd() *cobra.Command {
	t, root := &target{}, ""
	cmd := &cobra.Command{
		Use:   "verify PLAN",
		Short: "Say who signed a saved plan, by the policy's signers",
		Long: `Looks whether PLAN.sig is a signature of the plan by one of the policy's planSigners,
as rutter run --plan does before it begins. Exit codes: 0 it is, 3 it is not, 2 the
plan or the policy can't be used.`,
		Example: `  rutter plan verify upgrade.plan`,
		Args:    exactly(1, 1, "a saved plan"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.planVerify(cmd.Context(), t, root, args[0])
		},
	}
	cmd.Flags().StringVar(&t.Policy, "policy", "", policyUsage)
	cmd.Flags().StringVar(&root, "root", "", "folder whose rutter.yaml counts (default that of the plan's runbook)")
	return cmd
}

func (a *app) planVerify(ctx context.Context, t *target, root, path string) error {
	pl, raw, err := planFile(ctx, path)
	if err != nil {
		return err
	}
	if root == "" {
		root = pl.Runbook.Root
	}
	h, err := a.assemble(a.renderer())
	if err != nil {
		return err
	}
	p, err := a.policyFor(ctx, h, t, root, nil)
	if err != nil {
		return err
	}
	if p == nil || p.PlanSigners == "" {
		return &diag.Error{
			Code: diag.Usage, Subject: path, Problem: "there is no policy that names planSigners, so that nobody's signature would count", Changed: "nothing",
			Next: "ssh-keygen -Y check-novalidate -n " + policy.PlanNamespace + " -s " + path + sigSuffix + " < " + path,
		}
	}
	if err := a.planVouched(p, path, raw); err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.env.Stdout, pl.Summary())
	return err
}

// planFile reads a saved plan, and its bytes.
func planFile(ctx context.Context, path string) (*plan.Plan, []byte, error) {
	raw, err := env.ReadFile(ctx, path, maxPlan)
	if err != nil {
		return nil, nil, &diag.Error{Code: diag.Usage, Subject: path, Problem: "can't be read", Err: err, Changed: "nothing"}
	}
	p, err := plan.Read(path, raw)
	return p, raw, err
}

// planVouched refuses a saved plan that none of the policy's planSigners signed. raw
// are the bytes that will be run: the file is not read again.
func (a *app) planVouched(p *policy.Policy, path string, raw []byte) error {
	if p == nil || p.PlanSigners == "" {
		return nil
	}
	who, err := a.signedBy(path+sigSuffix, func(sig []byte) (string, error) { return p.PlanSigned(raw, sig, a.env.Clock.Now()) })
	if err != nil {
		return &diag.Error{
			Code: diag.Blocked, Subject: path, Problem: "the policy wants a signed plan", Err: err,
			Expect: "a signature by one of " + a.shown(p.PlanSigners), Changed: "nothing", Next: "rutter plan sign " + path + " --key KEY",
		}
	}
	return a.talk("plan signed by %s", who)
}

// onlyPlanned refuses a run without a saved plan where the policy wants one. A
// simulated cluster is nobody's.
func onlyPlanned(p *policy.Policy, f *runFlags) error {
	if p == nil || !p.PlanRequired || f.plan != "" || f.target.Sim != "" {
		return nil
	}
	return &diag.Error{
		Code: diag.Blocked, Subject: f.target.Runbook, Problem: "the policy lets only saved plans run", Expect: "--plan FILE", Changed: "nothing",
		Next: "rutter plan " + f.target.Runbook + " --save FILE",
	}
}
