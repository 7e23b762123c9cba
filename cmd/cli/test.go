package cli

import (
	"context"
	"io"
	"path/filepath"
	"regexp"
	"runtime/debug"

	"github.com/fatih/color"
	"github.com/spf13/cobra"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/cmd/cli/view"
	"rutter.dev/rutter/runtime/deps"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/seal"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/runtime/tool/sweep"
	"rutter.dev/rutter/runtime/tool/testrun"
)

type testFlags struct {
	run    string
	update bool
	output string
	sweep  sweepFlags
}

func (a *app) testCmd() *cobra.Command {
	f := &testFlags{}
	cmd := &cobra.Command{
		Use:   "test [PATH…]",
		Short: "Run the golden tests of runbooks: the functions test_… of *_test.star files",
		Long: `Runs the functions test_… of *_test.star files, in files or folders (the present
one by default), each against simulated clusters of its own.

A test gets one value, t: t.cluster(mesh = "istio=1.30.3,workloads=12") makes a
cluster, t.run("in-place.star", cluster = c, params = {…}) runs a runbook on it,
t.golden(result, name = "…") compares its transcript with a golden file, which
--update rewrites. The last line of output is "N passed, N failed". Exit codes: 0
all passed, 1 some failed, 2 a file does not load.

With --sweep each run that a test brings to its end is done again and again with
something gone wrong: every request failing in each way that requests do, watches
cut or silent, the host dying at every operation on the journal. Then the run is
resumed, or rolled back, and what must hold is checked: gates, nothing twice, no
change without an intent on the disk before it, disruption budgets and waves at
every instant, the cluster in the end as after the undisturbed run or as before
it, owners of fields included, no secret told. --cases takes an even sample; of a
failure the first point at which it comes is looked for, and printed with the
command that repeats that case alone.`,
		Example: `  rutter test
  rutter test runbooks/istio --run upgrade
  rutter test runbooks/istio/in-place_test.star --run '^test_upgrade$' --update
  rutter test runbooks/istio/in-place_test.star --run '^test_small_mesh$' --sweep --cases 500`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.test(cmd.Context(), f, args) },
	}
	cmd.Flags().StringVar(&f.run, "run", "", "only tests whose name, or FILE::NAME, matches this regular expression")
	cmd.Flags().BoolVar(&f.update, "update", false, "rewrite golden files instead of comparing with them")
	cmd.Flags().StringVarP(&f.output, "output", "o", "", "json or junit: a report for machines on stdout")
	f.sweep.add(cmd)
	return cmd
}

func (a *app) test(ctx context.Context, f *testFlags, paths []string) error {
	if err := f.sweep.check(f); err != nil {
		return err
	}
	report, err := a.testReport(f.output)
	if err != nil {
		return err
	}
	var sel *regexp.Regexp
	if f.run != "" {
		if sel, err = regexp.Compile(f.run); err != nil {
			return &diag.Error{Code: diag.Usage, Subject: "--run " + f.run, Problem: "is no regular expression", Err: err}
		}
	}
	files, err := testrun.Discover(a.env.Workdir, paths)
	if err != nil {
		return err
	}
	renderer := a.renderer()
	h, err := a.assemble(renderer)
	if err != nil {
		return err
	}
	sealer, err := seal.Ephemeral()
	if err != nil {
		return err
	}
	if a.env.Getenv("GOGC") == "" {
		// Simulated clusters make much garbage and live shortly: collecting it
		// less often takes a third off the time.
		defer debug.SetGCPercent(debug.SetGCPercent(400))
	}
	var werr error
	o := testrun.Options{
		Host: h, Root: moduleRoot, Open: a.moduleLoader(h), Sealer: sealer, Clock: a.env.Clock, Workdir: a.env.Workdir, Select: sel, Update: f.update,
		View: func(w io.Writer) event.Sink { return view.NewPlain(w, view.Options{}) },
		NewSim: func(ctx context.Context, spec testrun.SimSpec) (*sim.Cluster, error) {
			istiods := mesh.NewIstiods()
			all := append(controllers.All(), istiods.Controllers()...)
			if f.sweep.on {
				all = append(all, sweep.Auditor())
			}
			return a.testSim(ctx, spec, renderer, all, mesh.NewAnswers(istiods, nil))
		},
	}
	if f.sweep.on {
		return a.sweep(ctx, f, files, o)
	}
	s := testrun.Run(ctx, files, o, func(r testrun.Result) {
		if werr == nil {
			werr = report.each(r)
		}
	})
	if werr == nil {
		werr = report.end(s)
	}
	if werr != nil {
		return werr
	}
	if err := s.Err(); err != nil {
		return exitError(diag.ExitCode(err)) // the report has said everything
	}
	return ctx.Err()
}

// moduleRoot is the folder of the module that a file belongs to. What is wrong with
// it is said when that is opened.
func moduleRoot(file string) string {
	root := rootOf(file)
	if mod, err := deps.Find(filepath.Dir(file), root); err == nil {
		return mod.Dir
	}
	return root
}

// moduleLoader loads from a module with what it depends on.
func (a *app) moduleLoader(h *host.Host) func(ctx context.Context, root, entry string) (*loader.Loader, error) {
	return func(ctx context.Context, root, entry string) (*loader.Loader, error) {
		o, err := a.opened(ctx, root, "")
		if err != nil {
			return nil, err
		}
		return o.Loader(loader.Label(entry), h.Stdlib, h.Cache)
	}
}

// testReport is how results are shown.
type testReport struct {
	each func(testrun.Result) error
	end  func(*testrun.Summary) error
}

func (a *app) testReport(output string) (testReport, error) {
	w := a.env.Stdout
	silent := func(testrun.Result) error { return nil }
	switch output {
	case "":
		m := testrun.Marks{Pass: a.paint(color.FgGreen), Fail: a.paint(color.FgRed)}
		return testReport{func(r testrun.Result) error { return m.Text(w, r) }, func(s *testrun.Summary) error { return m.TextEnd(w, s) }}, nil
	case "json":
		return testReport{silent, func(s *testrun.Summary) error { return s.JSON(w) }}, nil
	case "junit":
		return testReport{silent, func(s *testrun.Summary) error { return s.JUnit(w) }}, nil
	}
	return testReport{}, unknownFormat(output, "json or junit")
}

// paint colours text for stdout, where that takes colour.
func (a *app) paint(attr color.Attribute) func(string) string {
	c := color.New(attr)
	if a.look(a.env.Stdout).Color {
		c.EnableColor()
	} else {
		c.DisableColor()
	}
	return func(s string) string { return c.Sprint(s) }
}

// testSim makes the cluster that a test starts from. A mesh is always made of
// the re-tagged manifest, so that golden files are the same on every machine
// (DESIGN §8 ruling 13).
func (a *app) testSim(ctx context.Context, spec testrun.SimSpec, renderer *lib.Renderer, all []sim.Controller, answers sim.Connector) (*sim.Cluster, error) {
	opts := sim.Options{Controllers: all, Connector: answers, Injector: lib.NewInjector(), KubernetesVersion: spec.Kubernetes}
	if spec.Mesh == "" {
		return sim.New(opts)
	}
	m, err := mesh.Parse(spec.Mesh)
	if err != nil {
		return nil, err
	}
	opts.Seed, opts.InjectOnLoad = m.Seed, true
	manifest, _, err := a.startingManifest(ctx, m, "", renderer)
	if err != nil {
		return nil, err
	}
	c, err := sim.New(opts)
	if err != nil {
		return nil, err
	}
	if err := mesh.Populate(c, mesh.Build(m, manifest)); err != nil {
		return nil, err
	}
	c.Advance(settleTime)
	return c, nil
}
