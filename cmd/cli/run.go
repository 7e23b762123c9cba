package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/builtins/istioctl"
	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/plan"
	"rutter.dev/rutter/runtime/policy"
)

type runFlags struct {
	target target
	bound
	answers  answers
	watching watching
	plan     string
	// planParams are the parameters of the saved plan, where no flag gives any.
	planParams map[string]any
}

func (a *app) runCmd() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "run [RUNBOOK]",
		Short: "Run a runbook against a cluster, or a simulated one",
		Long: `Runs a runbook: a .star file, the name of one in the catalogue (rutter runbooks), or
@NAME//FILE of a dependency that rutter.mod.star declares. A name followed by @1.2 is
its highest version 1.2: runbooks/up.star is one version of up, and others stand beside
it as up@1.2.star.

Every change is judged by the gates, written to the journal before it is made,
and can be resumed after a kill. With --plan it runs what was planned and nothing
else: it does not begin where runbook, parameters, policy, cluster or an object that
the plan relies on are otherwise, and an effect that is not in the plan is refused
(RUT008). Exit codes: 0 done, 1 failed, 2 usage or bad
runbook, 3 refused by a gate or not approved, 5 in doubt, 130 interrupted.`,
		Example: `  rutter run istio/in-place --set to=1.31.0 --context prod
  rutter run istio/in-place@1.0 --set to=1.31.0 --context prod
  rutter run --plan upgrade.plan
  rutter run runbooks/istio/in-place.star --set to=1.31.0 --sim mesh,istio=1.30.3,workloads=60 --yes`,
		Args: func(cmd *cobra.Command, args []string) error {
			least := 1
			if f.plan != "" {
				least = 0
			}
			return exactly(least, 1, "a runbook, or --plan FILE")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.run(cmd.Context(), f, args) },
	}
	f.target.flags(cmd, true)
	f.target.knowledgeFlag(cmd)
	f.answers.flags(cmd)
	f.bound.flags(cmd)
	f.watching.flags(cmd)
	cmd.Flags().StringVar(&f.plan, "plan", "", "run this saved plan (rutter plan --save), and nothing that is not in it")
	return cmd
}

func (a *app) run(ctx context.Context, f *runFlags, args []string) error {
	sink, err := a.sink(&f.watching, &f.answers)
	if err != nil {
		return err
	}
	var saved *plan.Plan
	var sealed []byte
	name := ""
	if f.plan != "" {
		if saved, sealed, name, err = a.savedPlan(ctx, f, args); err != nil {
			return err
		}
	} else {
		name = args[0]
	}
	renderer := a.renderer()
	h, err := a.assemble(renderer)
	if err != nil {
		return err
	}
	f.target.Runbook = name
	rb, p, err := a.load(ctx, h, &f.target, f.root)
	if err != nil {
		return err
	}
	if err := onlyPlanned(p, f); err != nil {
		return err
	}
	if saved != nil {
		if err := a.planVouched(p, f.plan, sealed); err != nil {
			return err
		}
	}
	given, err := a.given(ctx, &f.given)
	if err != nil {
		return err
	}
	if f.planParams != nil {
		given.File = f.planParams
	}
	params, err := rb.BindAll(given)
	if err != nil {
		return err
	}
	return a.begin(ctx, f, p, renderer, sink, func(s host.Session) error {
		if saved != nil {
			if err := a.hold(ctx, f, saved, plan.World{Runbook: rb, Params: params, Policy: s.Policy, Cluster: s.Cluster}); err != nil {
				return err
			}
			s.Plan = sealed
		}
		return h.Run(ctx, a.hard, s, rb, params)
	})
}

// load reads the runbook that t names, with the policy that it is held to, and
// keeps in t where both are. root is the folder that it may load from, "" for its own.
func (a *app) load(ctx context.Context, h *host.Host, t *target, root string) (*host.Runbook, *policy.Policy, error) {
	l, err := a.source(ctx, h, t.Runbook, root)
	if err != nil {
		return nil, nil, err
	}
	defer closeQuietly(l.Loader)
	t.Root, t.Runbook = l.root, l.name
	p, err := a.policyFor(ctx, h, t, l.root, l.Loader)
	if err != nil {
		return nil, nil, err
	}
	rb, err := h.Load(ctx, l.Loader)
	if err != nil {
		return nil, nil, err
	}
	if err := a.warnDeprecated(h, l, rb); err != nil {
		return nil, nil, err
	}
	return rb, p, a.vouched(p, l, rb.Bundle)
}

// begin makes the run's folder, reaches the cluster and carries the run out.
func (a *app) begin(ctx context.Context, f *runFlags, p *policy.Policy, renderer *lib.Renderer, sink event.Sink, carry func(host.Session) error) (err error) {
	known, err := f.target.known(ctx, a.env.Workdir)
	if err != nil {
		return err
	}
	root, err := a.stateRoot()
	if err != nil {
		return err
	}
	id, err := journal.NewID(a.env.Clock.Now(), a.env.Rand)
	if err != nil {
		return err
	}
	dir := filepath.Join(root, id)
	clock := &lateClock{a.env.Clock}
	at, err := a.stateAt(ctx, &f.target)
	if err != nil {
		return err
	}
	fresh := !exists(dir)
	j, err := at.store(a, clock).Create(id)
	if err != nil {
		if fresh {
			err = errors.Join(err, os.RemoveAll(dir))
		}
		return err
	}
	defer func() { err = errors.Join(err, at.dismiss(j, dir)) }()
	r, err := a.reach(ctx, &f.target, dir, renderer)
	if err != nil {
		return err
	}
	defer func() { _ = r.close() }()
	clock.Clock = r.env.Clock
	if r.note != "" {
		if err := a.talk("simulated mesh from %s", r.note); err != nil {
			return err
		}
	}
	inv, err := f.target.invocation()
	if err != nil {
		return err
	}
	sealer, err := a.sealer(p)
	if err != nil {
		return err
	}
	err = carry(host.Session{
		Env: r.env, Cluster: r.client, Journal: j, Sink: sink, Approver: a.approver(&f.answers),
		Policy: inForce(p), Knowledge: known, Sealer: sealer, Lock: a.locking(&f.target), Invocation: inv, Evidence: evidenceIn(dir), Analyze: istioctl.Mistakes, Conform: plan.Conform,
	})
	return errors.Join(err, a.tell(ctx, p, &f.target, j))
}

// lateClock is the journal's clock: the machine's until the cluster is reached,
// then the cluster's. The journal's lock must be held before a simulated
// cluster, and so its clock, is opened.
type lateClock struct{ env.Clock }

func closeQuietly(l *loader.Loader) { _ = l.Close() } // read only: nothing can be lost
