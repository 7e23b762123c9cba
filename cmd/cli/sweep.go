package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/tool/sweep"
	"rutter.dev/rutter/runtime/tool/testrun"
)

type sweepFlags struct {
	on    bool
	cases int
	only  []string
	seed  uint64
}

func (f *sweepFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.on, "sweep", false, "fault sweep of every run that a test brings to its end")
	cmd.Flags().IntVar(&f.cases, "cases", 0, "with --sweep: try so many cases of each run, spread evenly; 0 for all")
	cmd.Flags().StringArrayVar(&f.only, "case", nil, "with --sweep: try the case of this id alone; may be given more than once")
	cmd.Flags().Uint64Var(&f.seed, "seed", 1, "with --sweep: what is sampled, and how much a power cut loses")
}

// check refuses flags that don't go together.
func (f *sweepFlags) check(t *testFlags) error {
	switch {
	case !f.on && (f.cases != 0 || len(f.only) > 0):
		return diag.Usagef("--cases, --case", "are for --sweep")
	case f.on && (t.update || t.output != ""):
		return diag.Usagef("--sweep", "does not go with --update or --output")
	case f.cases < 0:
		return diag.Usagef("--cases", "is %d; expected 0 or more", f.cases)
	}
	return nil
}

// sweep runs the tests, and sweeps what they ran.
func (a *app) sweep(ctx context.Context, f *testFlags, files []string, o testrun.Options) error {
	var mu sync.Mutex
	var runs []testrun.Recorded
	o.Recorded = func(r testrun.Recorded) {
		mu.Lock()
		defer mu.Unlock()
		runs = append(runs, r)
	}
	var failed error
	s := testrun.Run(ctx, files, o, func(r testrun.Result) {
		if r.Failure != nil && failed == nil {
			failed = &diag.Error{Code: diag.Failed, Subject: r.File + "::" + r.Name, Problem: "fails without any fault: " + r.Failure.Message}
		}
	})
	if len(s.Broken) > 0 {
		return s.Broken[0]
	}
	if failed != nil {
		return failed
	}
	if len(runs) == 0 {
		return &diag.Error{
			Code: diag.Usage, Subject: "--sweep", Problem: "no selected test brings a run to its end: there is nothing to sweep",
			Expect: `a function test_…(t) with t.run(…) whose status is "done"`,
		}
	}
	slices.SortStableFunc(runs, func(x, y testrun.Recorded) int { return strings.Compare(x.File+"::"+x.Test, y.File+"::"+y.Test) })
	if len(f.sweep.only) > 0 && len(runs) > 1 {
		return diag.Usagef("--case", "%d runs are selected; choose one with --run", len(runs))
	}
	bad := 0
	for _, r := range runs {
		n, err := a.sweepOne(ctx, f, r, o)
		if err != nil {
			return err
		}
		bad += n
	}
	if bad > 0 {
		return exitError(diag.Failed) // the report has said everything
	}
	return ctx.Err()
}

func (a *app) sweepOne(ctx context.Context, f *testFlags, r testrun.Recorded, o testrun.Options) (failed int, err error) {
	w := a.env.Stdout
	name := r.File + "::" + r.Test
	s := &sweep.Subject{
		Name: name, Before: r.Before, Load: r.Load, Params: r.Params, Policy: r.Policy, Approver: r.Approver, Sealer: o.Sealer, Host: o.Host,
	}
	n, of := 0, 0
	began := a.env.Clock.Now()
	var told time.Time
	rep, err := sweep.Run(ctx, s, sweep.Options{
		Seed: f.sweep.seed, Cases: f.sweep.cases, Only: f.sweep.only,
		Started: func(ref sweep.Reference, cases int) {
			of = cases
			fmt.Fprintf(a.env.Stderr, "%s: %d requests, %d of them changes; %d operations on the journal; %d cases\n",
				name, ref.Requests, ref.Mutations, ref.Disk, cases)
			if ref.Overdraws {
				fmt.Fprintf(a.env.Stderr, "%s: the run overdraws a PodDisruptionBudget even without faults; that is not checked\n", name)
			}
		},
	}, func(r sweep.Result) {
		n++
		if now := a.env.Clock.Now(); now.Sub(told) > 10*time.Second && n < of {
			told = now
			fmt.Fprintf(a.env.Stderr, "%s: %d of %d cases\n", name, n, of)
		}
	})
	if rep == nil {
		return 0, err
	}
	tellSweep(w, name, f.sweep.seed, rep, a.env.Clock.Now().Sub(began))
	return len(rep.Failed), err
}

// shownFailures bounds the cases that are told in full.
const shownFailures = 20

func tellSweep(w io.Writer, name string, seed uint64, rep *sweep.Report, took time.Duration) {
	file, test, _ := strings.Cut(name, "::")
	for i, r := range rep.Failed {
		if i == shownFailures {
			fmt.Fprintf(w, "… and %d more\n", len(rep.Failed)-i)
			break
		}
		if i == 0 {
			fmt.Fprintln(w, "the first point that fails:")
		}
		fmt.Fprintf(w, "✗ %s  %s\n", r.Case, r.What)
		for _, b := range r.Broken {
			fmt.Fprintf(w, "    %s\n", b)
		}
		fmt.Fprintf(w, "    rutter test %s --run '^%s$' --sweep --seed %d --case %s\n", file, test, seed, r.Case)
	}
	fmt.Fprintf(w, "%s: %d cases, %d of them stopped the run, %d were back on its way before its end, %d failed (%s)\n", name, rep.Tried, rep.Stopped, rep.Back, len(rep.Failed), took.Round(time.Second/10))
}
