package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/builtins/istioctl"
	"rutter.dev/rutter/cmd/cli/view"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/plan"
)

type resumeFlags struct {
	takeUp   takeUp
	given    given
	adopt    bool
	recorded bool
}

// takeUp are the flags of what goes on with a run that is in a journal.
type takeUp struct {
	answers  answers
	watching watching
	cluster  target        // how the run's cluster is reached now
	withheld []fs.FileInfo // the policy's files, once that is read
	signed   bool          // the policy wants signed runbooks
}

func (f *takeUp) flags(cmd *cobra.Command) {
	f.answers.flags(cmd)
	cmd.Flags().StringVar(&f.cluster.Context, "context", "", "kubeconfig context under which the same cluster is reached now")
	cmd.Flags().StringVar(&f.cluster.Kubeconfig, "kubeconfig", "", "kubeconfig file with which it is reached now")
	cmd.Flags().StringVar(&f.cluster.Policy, "policy", "", "where the organization's policy file is now")
	cmd.Flags().StringVar(&f.cluster.Knowledge, "knowledge", "", "where the file of what is known of Istio's releases is now")
	f.watching.flags(cmd)
}

func (a *app) resumeCmd() *cobra.Command {
	f := &resumeFlags{}
	cmd := &cobra.Command{
		Use:   "resume [RUN]",
		Short: "Finish a run that was killed, interrupted, refused or failed (the latest by default)",
		Long: `Takes a run up where its journal ends, on the cluster that it began on.

Finished steps return their recorded values. A change whose outcome is not known
is looked up in the cluster, never blindly repeated. What others have changed
since of what the run did is shown first. What runs is the runbook as it was when
the run began, with its parameters; those that are secret are not in the journal and
have to be given again, the same. Where the runbook, a parameter or rutter itself
has changed since, the difference is shown and nothing is done: --recorded goes on
with what was recorded, --adopt with what is there now, if it takes the same way
through everything that is done already. A run that was given to a rollback goes
on with that.`,
		Args: exactly(0, 1, "one run, or none for the latest"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.resume(cmd.Context(), f, args) },
	}
	f.takeUp.flags(cmd)
	cmd.Flags().BoolVar(&f.adopt, "adopt", false, "go on with the runbook and parameters as they are now, if they replay")
	cmd.Flags().BoolVar(&f.recorded, "recorded", false, "go on with the runbook and parameters as they were recorded, whatever has changed")
	f.given.flags(cmd, "; with --adopt, but for what is secret: that is always given again")
	cmd.MarkFlagsMutuallyExclusive("adopt", "recorded")
	return cmd
}

func (a *app) resume(ctx context.Context, f *resumeFlags, args []string) error {
	return a.takeUpRun(ctx, &f.takeUp, args, false, func(h *host.Host, s host.Session) error {
		switch st, err := standing(s.Journal); {
		case err != nil:
			return err
		case st.over == journal.RunDone:
			return a.talk("run %s is done; there is nothing to resume", s.Journal.Run())
		case st.over == journal.RunRolledBack:
			return &diag.Error{
				Code: diag.Usage, Subject: "run " + s.Journal.Run(), Problem: "was rolled back; there is nothing to resume",
				Changed: "nothing by this command", Next: "rutter run, again",
			}
		case st.rollback: // it goes on with what it was doing
			return h.Rollback(ctx, a.hard, s, engine.RollbackOptions{})
		}
		return a.resumeAsIs(ctx, f, h, s)
	})
}

// resumeAsIs resumes with a look at the runbook as it is now, where it is still
// found.
func (a *app) resumeAsIs(ctx context.Context, f *resumeFlags, h *host.Host, s host.Session) error {
	begin, err := host.Begun(s.Journal)
	if err != nil {
		return err
	}
	t := &target{}
	if err := json.Unmarshal(begin.Invocation, t); err != nil {
		return fmt.Errorf("run %s: how its runbook is found: %w", begin.Run, err)
	}
	if f.adopt && f.takeUp.signed {
		return &diag.Error{
			Code: diag.Blocked, Subject: "--adopt", Problem: "the policy wants signed runbooks, and what a run goes on with was never signed as a whole",
			Changed: "nothing by this command", Next: "rutter resume " + begin.Run + " --recorded, or rutter rollback and a new run",
		}
	}
	ro := host.ResumeOptions{Adopt: f.adopt, Recorded: f.recorded}
	if ro.Given, err = a.given(ctx, &f.given); err != nil {
		return err
	}
	if t.Runbook != "" && !f.recorded {
		l, err := a.source(ctx, h, t.Runbook, t.Root)
		switch {
		case err == nil:
			defer closeQuietly(l.Loader)
			l.Withhold(f.takeUp.withheld)
			ro.Source = l.Loader
		case f.adopt:
			return err
		default:
			if err := a.talk("the runbook as it is now can't be had (%v); it goes on as it was recorded", err); err != nil {
				return err
			}
		}
	}
	return h.ResumeWith(ctx, a.hard, s, ro)
}

// takeUpRun opens a run's journal, reaches its cluster and carries on with it.
// With planned, what is shown goes to stdout: it is what was asked for.
func (a *app) takeUpRun(ctx context.Context, f *takeUp, args []string, planned bool, carry func(*host.Host, host.Session) error) error {
	clock := &lateClock{a.env.Clock}
	at, err := a.stateAt(ctx, &f.cluster)
	if err != nil {
		return err
	}
	store := at.store(a, clock)
	id, err := a.findRun(at, store, args)
	if err != nil {
		return err
	}
	sink, err := a.sink(&f.watching, &f.answers)
	if err != nil {
		return err
	}
	if planned && f.watching.output != "json" {
		sink = view.NewPlain(a.env.Stdout, a.look(a.env.Stdout))
	}
	j, err := store.Open(id)
	if err != nil {
		return unopened(id, err)
	}
	defer func() { _ = j.Close() }() // sealed by the engine; nothing is lost here
	begin, err := host.Begun(j)
	if err != nil {
		return &diag.Error{Code: diag.Usage, Err: err, Changed: "nothing", Next: "rutter run it again"}
	}
	t := &target{}
	if err := json.Unmarshal(begin.Invocation, t); err != nil {
		return fmt.Errorf("run %s: how its cluster is reached: %w", id, err)
	}
	root, err := a.stateRoot()
	if err != nil {
		return err
	}
	t.moved(f.cluster, a.inCluster())
	dir := filepath.Join(root, id)
	err = a.goOn(ctx, f, t, j, begin, clock, dir, sink, carry)
	var told *diag.Error
	if lost := errors.Is(err, journal.ErrNoBlob) || errors.Is(err, journal.ErrDamaged); lost && !errors.As(err, &told) {
		return unkept(err, at, dir)
	}
	return err
}

// unkept says that what a run kept beside its journal, such as a backup, is gone
// or damaged. It is found out before anything is changed: a journal is read as a
// whole first.
func unkept(err error, at *stateAt, dir string) error {
	next := "put it back from a copy of " + dir
	if at.secrets != nil {
		next = "put it back from a copy of the Secrets labelled rutter.dev/run=" + filepath.Base(dir)
	}
	return &diag.Error{
		Code: diag.Usage, Err: err, Expect: "all that the run kept, its backup and its sources included",
		Changed: "nothing by this command", Next: next,
	}
}

// moved takes over how the cluster is reached now. What was so on another
// machine says nothing about this one.
func (t *target) moved(now target, elsewhere bool) {
	if elsewhere || now.Kubeconfig != "" {
		t.Kubeconfig = now.Kubeconfig
	}
	if elsewhere || now.Context != "" {
		t.Context = now.Context
	}
	if now.Policy != "" {
		t.Policy = now.Policy
	}
	if now.Knowledge != "" {
		t.Knowledge = now.Knowledge
	}
}

// unopened says why a run's journal could not be opened, and what to do.
func unopened(id string, err error) error {
	if diag.ExitCode(err) != diag.Failed {
		return err
	}
	next := "rutter show " + id
	switch {
	case errors.Is(err, journal.ErrNotBegun):
		next = "rutter run, again"
	case errors.Is(err, journal.ErrNewer):
		next = "use the rutter that wrote it, or a newer one"
	}
	return &diag.Error{Code: diag.Usage, Err: err, Changed: "nothing by this command", Next: next}
}

// stand is how a run in a journal stands.
type stand struct {
	over     journal.RunStatus // its end, if that is the last word
	rollback bool              // it was given to a rollback
}

func standing(j journal.Journal) (stand, error) {
	var st stand
	for rec, err := range j.Records() {
		if err != nil {
			return st, err
		}
		st.over = ""
		if rec.Type != journal.TypeEnd && rec.Type != journal.TypeResume {
			continue
		}
		body, err := rec.Decode()
		if err != nil {
			return st, err
		}
		switch b := body.(type) {
		case *journal.End:
			st.over = b.Status
		case *journal.Resume:
			st.rollback = st.rollback || b.Rollback
		}
	}
	return st, nil
}

func (a *app) goOn(ctx context.Context, f *takeUp, t *target, j journal.Journal, begin *journal.Begin, clock *lateClock, dir string, sink event.Sink, carry func(*host.Host, host.Session) error) error {
	renderer := a.renderer()
	h, err := a.assemble(renderer)
	if err != nil {
		return err
	}
	p, err := a.policyFor(ctx, h, t, t.Root, nil)
	if err != nil {
		return err
	}
	known, err := t.known(ctx, a.env.Workdir)
	if err != nil {
		return err
	}
	if err := a.tellPolicy(begin, p); err != nil {
		return err
	}
	if p != nil {
		f.withheld, f.signed = p.Files, p.Signers != ""
	}
	if t.Sim != "" && !exists(filepath.Join(dir, simName)) {
		// One made anew would have the same identity, but not what the run has done to it.
		return &diag.Error{
			Code: diag.Usage, Subject: "run " + j.Run(), Problem: "its simulated cluster is gone: there is no " + filepath.Join(dir, simName),
			Changed: "nothing by this command", Next: "rutter run, again",
		}
	}
	r, err := a.reach(ctx, t, dir, renderer)
	if err != nil {
		return err
	}
	defer func() { _ = r.close() }()
	clock.Clock = r.env.Clock
	sealer, err := a.sealer(p)
	if err != nil {
		return err
	}
	if err := a.sameKey(begin, sealer); err != nil {
		return err
	}
	err = carry(h, host.Session{
		Env: r.env, Cluster: r.client, Journal: j, Sink: sink, Approver: a.approver(&f.answers), Policy: inForce(p), Knowledge: known, Sealer: sealer, Lock: a.locking(t),
		Evidence: evidenceIn(dir), Analyze: istioctl.Mistakes, Conform: plan.Conform,
	})
	return errors.Join(err, a.tell(ctx, p, t, j))
}

// findRun is the run that the argument names, the latest without one.
func (a *app) findRun(at *stateAt, store *journal.Store, args []string) (string, error) {
	name := "latest"
	if len(args) == 1 {
		name = args[0]
	}
	id, err := store.Find(name)
	if errors.Is(err, journal.ErrNoRun) && name == "latest" {
		return "", &diag.Error{Code: diag.Usage, Subject: at.where, Problem: "holds no run yet", Next: "rutter run"}
	}
	if err != nil && diag.ExitCode(err) == diag.Failed {
		return "", &diag.Error{Code: diag.Usage, Err: err, Next: "rutter runs"}
	}
	return id, err
}
