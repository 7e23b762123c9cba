// Package testrun is rutter test: it runs the functions test_… of *_test.star
// files, each against simulated clusters of its own, and compares transcripts
// with golden files.
//
// A test gets one value, t (see Docs for its methods). What it runs comes
// through runtime/host, along the same path as a real run; only the cluster,
// the clock, the journal and the approver are the test's.
//
// The package knows no builtin: those, and how a simulated cluster is made,
// are handed in as Options.
package testrun

import (
	"context"
	"io"
	"regexp"
	"time"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/sim"
)

// Suffix is how the name of a test file ends.
const Suffix = "_test.star"

// Options are what a test run is made of. Host, NewSim and View are required.
type Options struct {
	Host *host.Host
	// NewSim makes the cluster that spec describes. It is called once per spec;
	// tests get clones.
	NewSim func(ctx context.Context, spec SimSpec) (*sim.Cluster, error)
	// View is the sink whose lines are the transcript.
	View func(w io.Writer) event.Sink
	// Root is the folder that the runbooks beside a test file may load from;
	// nil means the folder of the file.
	Root func(file string) string
	// Open loads from a root, beginning with a file of it; nil means from its
	// files alone, without dependencies.
	Open func(ctx context.Context, root, entry string) (*loader.Loader, error)
	// Sealer encrypts Secrets in the journals of tests; nil means that runbooks
	// which record any are refused.
	Sealer builtin.Sealer
	// Clock measures how long tests take; nil means the machine's.
	Clock env.Clock
	// Workdir is what paths are shown relative to.
	Workdir string
	// Select picks tests by name or "file::name"; nil picks all.
	Select *regexp.Regexp
	// Update rewrites golden files instead of comparing.
	Update bool
	// Recorded, if set, is given every run that is done, from several goroutines
	// at once: what a fault sweep starts from.
	Recorded func(Recorded)
	// Parallel bounds the tests that run at once; 0 means GOMAXPROCS.
	Parallel int
}

// SimSpec describes a simulated cluster before a test changes it. Equal specs
// make equal clusters.
type SimSpec struct {
	// Mesh is a generated mesh as the command line takes it ("mesh,istio=1.30.3");
	// "" for a cluster without one.
	Mesh string
	// Kubernetes is the server's version, "v1.34.0"; "" for the usual one.
	Kubernetes string
}

// Result is how one test ended.
type Result struct {
	File    string // as shown to a person
	Name    string
	Took    time.Duration
	Failure *Failure // nil when it passed
	Output  []string // what it printed
	Golden  []string // golden files that were written
}

// Failure is why a test failed.
type Failure struct {
	Pos     diag.Pos
	Message string // one line
	Detail  string // more lines, such as a diff
	Source  string // the source line with a caret, and where it was called from
}

// Summary is how all tests ended.
type Summary struct {
	Results []Result // in the order of files, then of lines
	// Broken are files that did not load.
	Broken []error
	Passed int
	Failed int
}

// Err is nil when all tests passed; its exit code is 2 when a file did not
// load, and else 1.
func (s *Summary) Err() error {
	switch {
	case len(s.Broken) > 0:
		return &diag.Error{Code: diag.Usage, Subject: "rutter test", Problem: plural(len(s.Broken), "file") + " did not load"}
	case s.Failed > 0:
		return &diag.Error{Code: diag.Failed, Subject: "rutter test", Problem: plural(s.Failed, "test") + " failed"}
	}
	return nil
}
