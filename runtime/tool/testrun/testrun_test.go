package testrun_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"flag"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/builtins/core"
	"rutter.dev/rutter/builtins/core/lang"
	"rutter.dev/rutter/builtins/diff"
	"rutter.dev/rutter/builtins/kube"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/tool/testrun"
	"rutter.dev/rutter/runtime/value"
)

var update = flag.Bool("update", false, "rewrite golden files")

// lines is a view of a line per event that matters here.
func lines(w io.Writer) event.Sink {
	return event.SinkFunc(func(e event.Event) {
		var s string
		switch b := e.Body.(type) {
		case *event.StepEnded:
			s = e.Step + " " + b.Error
		case *event.EffectDone:
			s = "  " + string(b.Verb) + " " + b.Ref.String()
		case *event.ApprovalAnswered:
			s = "approved by " + b.By
		case *event.RunEnded:
			s = "run " + b.Run + " " + b.Status
		default:
			return
		}
		_, _ = io.WriteString(w, strings.TrimRight(s, " ")+"\n") // to memory
	})
}

type clock struct{ now time.Time }

func (c *clock) Now() time.Time                             { return c.now }
func (c *clock) Virtual() bool                              { return true }
func (c *clock) Sleep(context.Context, time.Duration) error { return nil }

func options(t *testing.T) testrun.Options {
	t.Helper()
	var specs []*builtin.Spec
	for _, s := range [][]*builtin.Spec{interp.Builtins(), lang.Builtins(), core.Specs(), kube.Specs(), diff.Specs()} {
		specs = append(specs, s...)
	}
	set, err := builtin.NewSet(specs...)
	if err != nil {
		t.Fatal(err)
	}
	decoders := map[string]value.Decoder{manifest.Kind: manifest.Decode}
	maps.Copy(decoders, kube.Decoders())
	maps.Copy(decoders, diff.Decoders())
	return testrun.Options{
		Host: &host.Host{Builtins: set, Decoders: decoders, Version: "test", Cache: loader.NewCache(), Limits: interp.Limits{Steps: 3_000_000}},
		NewSim: func(_ context.Context, spec testrun.SimSpec) (*sim.Cluster, error) {
			return sim.New(sim.Options{Controllers: controllers.All(), KubernetesVersion: spec.Kubernetes})
		},
		View: lines, Clock: &clock{}, Workdir: workdir(t),
	}
}

func workdir(t *testing.T) string {
	t.Helper()
	wd, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	return wd
}

func run(t *testing.T, o testrun.Options, paths ...string) (*testrun.Summary, string) {
	t.Helper()
	files, err := testrun.Discover(o.Workdir, paths)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	plain := func(s string) string { return s }
	m := testrun.Marks{Pass: plain, Fail: plain}
	s := testrun.Run(t.Context(), files, o, func(r testrun.Result) {
		if err := m.Text(&out, r); err != nil {
			t.Error(err)
		}
	})
	if err := m.TextEnd(&out, s); err != nil {
		t.Error(err)
	}
	return s, out.String()
}

func TestTestsThatPass(t *testing.T) {
	o := options(t)
	o.Update = *update
	s, out := run(t, o, "suite/good_test.star")
	if s.Err() != nil || s.Passed != 9 {
		t.Fatalf("%v\n%s", s.Err(), out)
	}
	if !strings.HasSuffix(out, "\n9 passed, 0 failed\n") {
		t.Errorf("last line:\n%s", out)
	}
}

func TestFailuresAreExplained(t *testing.T) {
	s, out := run(t, options(t), "suite")
	if s.Passed != 10 || s.Failed != 9 || len(s.Broken) != 1 {
		t.Fatalf("%d passed, %d failed, %d broken\n%s", s.Passed, s.Failed, len(s.Broken), out)
	}
	if got := diag.ExitCode(s.Err()); got != diag.Usage {
		t.Errorf("exit %d, want 2 because a file does not load", got)
	}
	golden(t, "testdata/report.txt", out)
}

// An organization tests its rules with rutter test; the tests hold that no
// runbook reaches them, too.
func TestPolicies(t *testing.T) {
	o := options(t)
	o.Root = func(string) string { return filepath.Join(o.Workdir, "policy") }
	s, out := run(t, o, "policy")
	if s.Err() != nil || s.Passed != 11 {
		t.Errorf("%v\n%s", s.Err(), out)
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestSelect(t *testing.T) {
	for re, want := range map[string]int{`^test_equal$`: 1, `bad_test.star::test_(equal|typo)$`: 2, `good_test.star::test_bad`: 1, `none`: 0} {
		o := options(t)
		o.Select = regexp.MustCompile(re)
		s, _ := run(t, o, "suite/good_test.star", "suite/bad_test.star")
		if len(s.Results) != want {
			t.Errorf("%s: %d tests, want %d", re, len(s.Results), want)
		}
	}
}

func TestMachineReports(t *testing.T) {
	s, _ := run(t, options(t), "suite")
	var j, x bytes.Buffer
	if err := s.JSON(&j); err != nil {
		t.Fatal(err)
	}
	var report struct {
		Tests []struct {
			Name    string
			OK      bool
			Failure *struct {
				File, Message string
				Line          int
			}
		}
		Passed, Failed int
	}
	if err := json.Unmarshal(j.Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	first := report.Tests[0]
	if report.Passed != 10 || report.Failed != 9 || first.OK || first.Failure.Line != 4 || first.Failure.File != "suite/bad_test.star" {
		t.Errorf("%+v %+v", report, first.Failure)
	}
	if err := s.JUnit(&x); err != nil {
		t.Fatal(err)
	}
	var suites struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Suites   []struct {
			Cases []struct {
				Name    string  `xml:"name,attr"`
				Failure *string `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(x.Bytes(), &suites); err != nil {
		t.Fatal(err)
	}
	if suites.Tests != 20 || suites.Failures != 9 || len(suites.Suites) != 3 || suites.Suites[0].Cases[0].Failure == nil {
		t.Errorf("%s", x.String())
	}
}

func TestUpdateWritesGoldenFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "x_test.star")
	write(t, file, "def test_x(t):\n    t.golden(\"a\\nb\", name = \"x\")\n")
	o := options(t)
	o.Workdir, o.Update = dir, true
	if s, out := run(t, o); s.Err() != nil || !strings.Contains(out, "wrote testdata/x/x.golden") {
		t.Fatalf("%v\n%s", s.Err(), out)
	}
	if s, out := run(t, o); s.Err() != nil || strings.Contains(out, "wrote") {
		t.Fatalf("a second time: %v\n%s", s.Err(), out)
	}
	o.Update = false
	if s, out := run(t, o); s.Err() != nil {
		t.Fatalf("%v\n%s", s.Err(), out)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestBadFiles(t *testing.T) {
	for text, want := range map[string]string{
		"def test_x(a, b):\n    pass\n":    "x_test.star:1:1: test_x takes 2 parameters; expected one: def test_x(t):",
		"def test_x(t:\n":                  "x_test.star:1:",
		"load(\"none.star\", \"a\")\n":     "none.star",
		"runbook(name = \"x\")\n":          "runbook",
		"def f(t):\n    return f(t)\nf(1)": "recursion",
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "x_test.star"), text)
		o := options(t)
		o.Workdir = dir
		s, out := run(t, o)
		if len(s.Broken) != 1 || !strings.Contains(out, want) || diag.ExitCode(s.Err()) != diag.Usage {
			t.Errorf("%q: want %q, got\n%s", text, want, out)
		}
	}
}

func TestDiscover(t *testing.T) {
	dir := t.TempDir()
	for _, p := range []string{"a_test.star", "b/c_test.star", "b/testdata/d_test.star", ".git/e_test.star", "f.star"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(p)), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, p), "")
	}
	got, err := testrun.Discover(dir, []string{"b", ".", "a_test.star"})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{filepath.Join(dir, "a_test.star"), filepath.Join(dir, "b/c_test.star")}; strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got %v", got)
	}
	for _, bad := range []string{"none", "f.star"} {
		if _, err := testrun.Discover(dir, []string{bad}); diag.ExitCode(err) != diag.Usage {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestPanicsAreFailures(t *testing.T) {
	o := options(t)
	inner := o.NewSim
	o.NewSim = func(ctx context.Context, s testrun.SimSpec) (*sim.Cluster, error) {
		if s.Mesh != "" {
			panic("no mesh")
		}
		return inner(ctx, s)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "x_test.star"), "def test_a(t):\n    t.cluster(mesh = \"\")\n\ndef test_b(t):\n    t.cluster()\n")
	o.Workdir = dir
	s, out := run(t, o)
	if s.Passed != 1 || s.Failed != 1 || !strings.Contains(out, "x_test.star:1:1: run: the interpreter failed: no mesh") {
		t.Errorf("%s", out)
	}
}

// Every method is documented, as builtins are.
func TestDocs(t *testing.T) {
	for _, s := range testrun.Docs() {
		if s.Doc == "" || s.Example == "" || s.Returns == "" {
			t.Errorf("%s: not documented", s.Name)
		}
	}
}
