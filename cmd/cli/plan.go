package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/builtins/istioctl"
	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/plan"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/runtime/twin"
)

type planFlags struct {
	target target
	bound
	output   string
	html     string
	save     string
	offline  string
	endState string
	detailed bool
}

func (a *app) planCmd() *cobra.Command {
	f := &planFlags{}
	cmd := &cobra.Command{
		Use:   "plan RUNBOOK",
		Short: "Show what a run would do: a rehearsal on a twin of the cluster",
		Long: `Carries the runbook out on a twin: a simulated cluster that begins as the real
one. It reads from the cluster and sends it dry-runs; nothing that could change
anything leaves. Every approve() is answered with yes.

The plan lists steps, effects field by field, findings of gates, what restarts and
why, waves on virtual time, what can't be undone, and everything that the twin had
to assume. --save seals it: "rutter run --plan FILE" runs that and nothing else.
Exit codes: 0 the run would end well (4 with --detailed-exitcode where it would
change something), else what the run would exit with; 2 usage, or the cluster
stopped answering.`,
		Example: `  rutter plan istio/in-place --set to=1.31.0 --context prod
  rutter plan istio/in-place --set to=1.31.0 --context prod --save upgrade.plan --html plan.html
  rutter plan istio/in-place --set to=1.31.0 --offline prod.snapshot -o markdown`,
		Args: exactly(1, 1, "a runbook"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.plan(cmd.Context(), f, args[0]) },
	}
	f.target.flags(cmd, true)
	f.target.knowledgeFlag(cmd)
	f.bound.flags(cmd)
	cmd.Flags().StringVarP(&f.output, "output", "o", "", "json or markdown (default text)")
	cmd.Flags().StringVar(&f.html, "html", "", "write it as one HTML file, too, with the timeline drawn")
	cmd.Flags().StringVar(&f.save, "save", "", "write it sealed to this file, for rutter run --plan")
	cmd.Flags().StringVar(&f.offline, "offline", "", "rehearse on a snapshot (rutter snapshot) instead of a cluster")
	cmd.Flags().StringVar(&f.endState, "end-state", "", "write the objects that would be others afterwards to this file, as JSON, without the values of Secrets")
	cmd.Flags().BoolVar(&f.detailed, "detailed-exitcode", false, "exit with 4 where something would change")
	cmd.MarkFlagsMutuallyExclusive("offline", "sim")
	cmd.MarkFlagsMutuallyExclusive("offline", "context")
	cmd.AddCommand(a.planSignCmd(), a.planVerifyCmd())
	return cmd
}

func (a *app) plan(ctx context.Context, f *planFlags, name string) error {
	write, err := planView(f.output)
	if err != nil {
		return err
	}
	a.collectLate()
	renderer := a.renderer()
	h, err := a.assemble(renderer)
	if err != nil {
		return err
	}
	f.target.Runbook = name
	rb, held, err := a.load(ctx, h, &f.target, f.root)
	if err != nil {
		return err
	}
	given, err := a.given(ctx, &f.given)
	if err != nil {
		return err
	}
	params, err := rb.BindAll(given)
	if err != nil {
		return err
	}
	known, err := f.target.overrides(ctx, a.env.Workdir)
	if err != nil {
		return err
	}
	t, err := a.twin(ctx, &f.target, f.offline, renderer)
	if err != nil {
		return err
	}
	p, err := plan.Rehearse(ctx, plan.Rehearsal{
		Host: h, Runbook: rb, Params: params, Twin: t, Policy: inForce(held).Rehearsed(), Knowledge: known, Workdir: a.env.Workdir, Analyze: istioctl.Mistakes, Path: f.target.Runbook, Root: f.target.Root,
	})
	if err != nil {
		return err
	}
	out := bufio.NewWriter(a.env.Stdout)
	if err := errors.Join(write(p, out), out.Flush()); err != nil {
		return err
	}
	if held != nil { // hours and names are for the run; whether it may begin is worth knowing
		if err := a.talk("by the policy, %s", held.Standing(a.env.Clock.Now())); err != nil {
			return err
		}
	}
	if f.endState != "" {
		if err := writeTo(f.endState, func(w io.Writer) error { return jsonView(t.EndState(), w) }); err != nil {
			return err
		}
	}
	return a.keepPlan(f, p)
}

// keepPlan writes the files that were asked for, and ends with the plan's code.
func (a *app) keepPlan(f *planFlags, p *plan.Plan) error {
	if f.html != "" {
		if err := writeTo(f.html, p.HTML); err != nil {
			return err
		}
	}
	if f.save != "" {
		sealed, err := plan.Save(p)
		if err != nil {
			return err
		}
		if err := os.WriteFile(f.save, sealed, 0o600); err != nil {
			return &diag.Error{Code: diag.Usage, Subject: f.save, Problem: "can't be written", Err: err, Changed: "nothing"}
		}
		if err := a.talk("saved to %s: rutter run --plan %s", f.save, f.save); err != nil {
			return err
		}
	}
	switch {
	case p.Exit != 0:
		return exitError(p.Exit)
	case f.detailed && p.Changes():
		return exitError(diag.Changes)
	}
	return nil
}

func writeTo(path string, write func(io.Writer) error) error {
	file, err := os.Create(path)
	if err == nil {
		err = write(file)
		if cerr := file.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return &diag.Error{Code: diag.Usage, Subject: path, Problem: "can't be written", Err: err, Changed: "nothing"}
	}
	return nil
}

func planView(output string) (func(*plan.Plan, io.Writer) error, error) {
	switch output {
	case "":
		return (*plan.Plan).Text, nil
	case "markdown":
		return (*plan.Plan).Markdown, nil
	case "json":
		return jsonView[plan.Plan], nil
	}
	return nil, unknownFormat(output, "json or markdown")
}

// jsonView writes v as JSON for a program or a person: what a terminal shows is
// not a web page, so that < and & stay.
func jsonView[T any](v *T, w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// twin makes the twin of the cluster that t says, or of a snapshot.
func (a *app) twin(ctx context.Context, t *target, offline string, renderer *lib.Renderer) (*twin.Twin, error) {
	if err := lib.Setup(); err != nil {
		return nil, err
	}
	o := livingFrom(a.env.Clock.Now())
	if offline != "" {
		return a.offline(offline, o)
	}
	c, err := a.planned(ctx, t, renderer, &o)
	if err != nil {
		return nil, err
	}
	return twin.New(ctx, c, o)
}

// livingFrom is how a twin of a mesh lives on by itself, beginning now.
func livingFrom(now time.Time) twin.Options {
	istiods := mesh.NewIstiods()
	return twin.Options{
		Controllers: append(controllers.All(), istiods.Controllers()...), Injector: lib.NewInjector(), Now: now, Connector: mesh.NewAnswers(istiods, nil).Assuming(),
	}
}

// planned is a client of the cluster to be rehearsed on; for --sim, one in
// memory that nobody keeps.
func (a *app) planned(ctx context.Context, t *target, renderer *lib.Renderer, o *twin.Options) (*cluster.Client, error) {
	opts := cluster.ClientOptions{Version: version, Namespace: t.Namespace}
	if t.Sim == "" {
		r, err := a.reach(ctx, t, "", renderer)
		if err != nil {
			return nil, err
		}
		return r.client, nil
	}
	s, note, err := a.simulate(ctx, t.Sim, "", renderer, mesh.NewIstiods())
	if err != nil {
		return nil, err
	}
	if err := a.talk("simulated mesh from %s", note); err != nil {
		return nil, err
	}
	o.Now = s.Clock().Now()
	return cluster.New(s.Config(), "sim", s.Clock(), opts)
}

// offline makes a twin of a snapshot file.
func (a *app) offline(path string, o twin.Options) (*twin.Twin, error) {
	file, err := env.OpenFile(path)
	if err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: "--offline " + path, Problem: "can't be read", Err: err, Changed: "nothing", Next: "rutter snapshot FILE"}
	}
	defer func() { _ = file.Close() }() // read only
	s, err := twin.ReadSnapshot(file)
	if err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: "--offline " + path, Err: err, Changed: "nothing", Next: "rutter snapshot FILE makes another"}
	}
	return twin.Offline(s, o)
}

func (a *app) snapshotCmd() *cobra.Command {
	t := &target{}
	cmd := &cobra.Command{
		Use:   "snapshot FILE",
		Short: "Save what a rehearsal needs of a cluster, without its secrets",
		Long: `Reads every kind of object that the cluster serves and writes them to a file, for
rutter plan --offline FILE: plans without a cluster, in CI. Of Secrets only names,
types and keys are kept; Events and Leases are left out. What may not be read is
named in the file, and counts as an assumption of plans made from it. Nothing in
the cluster is changed.`,
		Example: `  rutter snapshot prod.snapshot --context prod`,
		Args:    exactly(1, 1, "a file"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.snapshot(cmd.Context(), t, args[0]) },
	}
	t.flags(cmd, true)
	return cmd
}

func (a *app) snapshot(ctx context.Context, t *target, path string) error {
	var o twin.Options
	c, err := a.planned(ctx, t, a.renderer(), &o)
	if err != nil {
		return err
	}
	now := o.Now
	if now.IsZero() {
		now = a.env.Clock.Now()
	}
	s, err := twin.Take(ctx, c, now)
	if err != nil {
		return &diag.Error{Code: diag.Usage, Subject: "cluster " + c.Context(), Err: err, Changed: "nothing"}
	}
	if err := writeTo(path, s.Write); err != nil {
		return err
	}
	for _, u := range s.Unread {
		if err := a.talk("%s", u); err != nil {
			return err
		}
	}
	return a.talk("%d objects of %s in %s", len(s.Objects), c.Context(), path)
}

// maxPlan bounds a saved plan, in bytes.
const maxPlan = 1 << 30

// savedPlan opens the file of --plan and takes from it what the flags do not
// say: runbook and parameters.
func (a *app) savedPlan(ctx context.Context, f *runFlags, args []string) (*plan.Plan, []byte, string, error) {
	raw, err := env.ReadFile(ctx, f.plan, maxPlan)
	if err != nil {
		return nil, nil, "", &diag.Error{Code: diag.Usage, Subject: "--plan " + f.plan, Problem: "can't be read", Err: err, Changed: "nothing"}
	}
	p, err := plan.Read(f.plan, raw)
	if err != nil {
		return nil, nil, "", err
	}
	name := p.Runbook.Path
	if len(args) == 1 {
		name = args[0]
	}
	if f.root == "" {
		f.root = p.Runbook.Root
	}
	if f.given.params == "" && len(f.given.sets) == 0 {
		if err := json.Unmarshal(p.Params, &f.planParams); err != nil {
			return nil, nil, "", fmt.Errorf("%s: parameters: %w", f.plan, err)
		}
	}
	return p, raw, name, nil
}

// hold refuses to begin a run that its saved plan is not for any more.
func (a *app) hold(ctx context.Context, f *runFlags, p *plan.Plan, w plan.World) error {
	var err error
	if w.From, err = host.Installed(ctx, w.Cluster); err != nil {
		return err
	}
	ds, err := p.Differences(ctx, w)
	if err != nil {
		return err
	}
	return p.Refuse(f.plan, ds)
}
