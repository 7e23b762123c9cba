package cli

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/lock"
)

// locking says for whom a run on the target locks its mesh.
func (a *app) locking(t *target) *lock.Options {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	o := &lock.Options{Rand: a.env.Rand, Holder: person(), Host: host, Alone: !a.inCluster()}
	if t.Sim == "" { // nobody else can reach a simulated mesh
		o.Taken = func(l *lock.Lock) {
			_ = a.talk("mesh locked: lease %s in %s, nonce %s", lock.Name, l.Info().Namespace, l.Nonce())
		}
	}
	return o
}

func (a *app) unlockCmd() *cobra.Command {
	t := &target{}
	cmd := &cobra.Command{
		Use:   "unlock [NONCE]",
		Short: "Take the lock on a mesh away from a run that is dead or gone astray",
		Long: `Takes the lock on a mesh away from the run that holds it. That run changes
nothing more, and stops with exit code 5; it can be resumed.

A lock whose run was killed needs no unlocking: it runs out within a minute, and
"rutter resume" takes it back at once on the host where the run was.

The lock is a Lease named rutter in the namespace of the mesh's root: that of its
control plane, istio-system where there is none yet, and kube-system where that
namespace does not exist either.

The nonce proves that you looked at the run that you lock out. It was said when
the run began, and "rutter show RUN" has it on the run's host. Without a nonce
rutter says who holds the lock. Exit codes: 0 unlocked, or not locked at all; 2
no nonce given, 3 not this lock's nonce.`,
		Example: `  rutter unlock --context prod
  rutter unlock 7k3f-x2bq --context prod`,
		Args: exactly(0, 1, "the lock's nonce, or none to see who holds it"),
		RunE: func(cmd *cobra.Command, args []string) error {
			nonce := ""
			if len(args) == 1 {
				nonce = args[0]
			}
			return a.unlock(cmd.Context(), t, nonce)
		},
	}
	t.flags(cmd, false)
	return cmd
}

func (a *app) unlock(ctx context.Context, t *target, nonce string) error {
	r, err := a.reach(ctx, t, "", nil)
	if err != nil {
		return err
	}
	defer func() { _ = r.close() }()
	subject := "cluster " + r.client.Context()
	namespace, err := engine.LockNamespace(ctx, r.client)
	if err != nil {
		return &diag.Error{Subject: subject, Problem: "where its lock is can't be found out", Err: err, Changed: "nothing"}
	}
	if nonce == "" {
		return a.holder(ctx, r, namespace)
	}
	held, err := lock.Unlock(ctx, r.client, namespace, nonce)
	switch {
	case errors.Is(err, lock.ErrNonce):
		return &diag.Error{
			Code: diag.Blocked, Subject: subject, Problem: "that is not the nonce of its lock, which is held by " + held.String(),
			Changed: "nothing", Next: "rutter show " + held.Run + " on host " + held.Host + " has the nonce",
		}
	case err != nil:
		return &diag.Error{Subject: subject, Problem: "the lock can't be taken away", Err: err, Changed: "nothing"}
	case held == nil:
		return a.talk("%s is not locked", subject)
	}
	return a.talk("%s is unlocked: it was held by %s", subject, held)
}

// holder says who holds the lock, which takes no nonce; to take it away does.
func (a *app) holder(ctx context.Context, r *reached, namespace string) error {
	held, err := lock.Look(ctx, r.client, namespace)
	if err != nil {
		return &diag.Error{Subject: "cluster " + r.client.Context(), Err: err, Changed: "nothing"}
	}
	if held == nil {
		return a.talk("cluster %s is not locked", r.client.Context())
	}
	problem := "its lock is held by " + held.String()
	if !held.Live(a.env.Clock.Now()) {
		problem += ", and has run out"
	}
	return &diag.Error{
		Code: diag.Usage, Subject: "cluster " + r.client.Context(), Problem: problem,
		Expect:  "the lock's nonce: it was said when that run began, and rutter show " + held.Run + " has it on host " + held.Host,
		Changed: "nothing", Next: "rutter unlock NONCE",
	}
}
