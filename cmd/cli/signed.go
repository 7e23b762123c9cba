package cli

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/policy"
)

// vouched refuses a runbook that none of the policy's signers vouches for. One
// of the catalogue (root "") is part of this program.
func (a *app) vouched(p *policy.Policy, l *found, b *loader.Bundle) error {
	if p == nil || p.Signers == "" || l.root == "" {
		return nil
	}
	file := l.name
	if _, _, _, ok := ofDependency(file); !ok {
		file = a.shown(file)
	}
	next := fmt.Sprintf("rutter policy to-sign %s | ssh-keygen -Y sign -n %s -f KEY > %s", file, policy.Namespace, a.shown(l.sig))
	who, err := a.signedBy(l.sig, func(sig []byte) (string, error) { return p.Signed(b, sig, a.env.Clock.Now()) })
	if err != nil {
		return &diag.Error{
			Code: diag.Blocked, Subject: file, Problem: "the policy wants a signed runbook", Err: err,
			Expect: "a signature by one of " + a.shown(p.Signers), Changed: "nothing", Next: next,
		}
	}
	return a.talk("signed by %s", who)
}

// signedBy says who vouches for a file by the signature of it.
func (a *app) signedBy(file string, verify func(sig []byte) (string, error)) (string, error) {
	sig, err := env.ReadFile(a.hard, file, maxGiven)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no signature %s", a.shown(file))
	}
	if err != nil {
		return "", err
	}
	return verify(sig)
}

func (a *app) policyToSignCmd() *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use:   "to-sign RUNBOOK",
		Short: "Print what a signature on a runbook is made over",
		Long: `Prints a text that names a runbook with everything that it loads, from dependencies,
too, but for the library that comes with rutter. Its signature is kept beside the
runbook, in RUNBOOK.sig, that of @NAME//FILE in signatures/NAME/FILE.sig beside
rutter.mod.star; a policy with signers wants one.`,
		Example: `  rutter policy to-sign up.star | ssh-keygen -Y sign -n rutter-runbook -f ~/.ssh/id_ed25519 > up.star.sig`,
		Args:    exactly(1, 1, "a runbook"),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := a.assemble(a.renderer())
			if err != nil {
				return err
			}
			l, err := a.source(cmd.Context(), h, args[0], root)
			if err != nil {
				return err
			}
			defer closeQuietly(l.Loader)
			rb, err := h.Load(cmd.Context(), l.Loader)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(a.env.Stdout, policy.ToSign(rb.Bundle))
			return err
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "folder that the runbook may load from, as for rutter run")
	return cmd
}
