// Command gosec runs the rules of gosec over packages of this module. gosec's own
// command asks the go command for each package apart, which for those that link Istio
// means their 2,000 dependencies again each time: it was never seen to end here. This
// one loads all of them at once, takes what they import from the build cache, and
// needs half a minute of computing.
//
// A finding is mended, or it is annotated where it is found with its rule and why it
// is none: "#nosec G204 -- no shell is between". An annotation without a reason is a
// finding itself.
//
//	go run ./tests/gosec ./runtime/... ./cmd/...
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/securego/gosec/v2"
	"github.com/securego/gosec/v2/analyzers"
	"github.com/securego/gosec/v2/issue"
	"github.com/securego/gosec/v2/rules"
	"golang.org/x/tools/go/packages"
)

// leftOut are rules that say nothing here, and why.
var leftOut = []string{
	// A file is opened by a name that is no constant. That is what a command line is
	// for: the names are those that a person gives. What a runbook names goes through
	// os.Root (runtime/loader, runtime/policy), which tests/hostile tries to get past.
	"G304",
}

func main() {
	root := flag.String("root", ".", "folder of the module")
	flag.Parse()
	found, err := run(*root, flag.Args())
	for _, f := range found {
		fmt.Println(f)
	}
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "gosec:", err)
		os.Exit(2)
	case len(found) > 0:
		os.Exit(1)
	}
}

// run returns what is found in the packages, a line each, sorted.
func run(root string, patterns []string) ([]string, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	pkgs, err := packages.Load(&packages.Config{Mode: gosec.LoadMode, Dir: root}, patterns...)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", strings.Join(patterns, " "), err)
	}
	var said bytes.Buffer
	a := analyzer(&said)
	for _, pkg := range pkgs {
		// What does not compile is not looked into, and so not clean.
		for _, e := range pkg.Errors {
			return nil, e
		}
		a.CheckRules(pkg)
		a.CheckAnalyzers(pkg)
	}
	issues, stats, _ := a.Report()
	if stats.NumFiles == 0 {
		return nil, fmt.Errorf("no files in %s", strings.Join(patterns, " "))
	}
	return findings(root, issues), failures(&said)
}

func analyzer(w io.Writer) *gosec.Analyzer {
	a := gosec.NewAnalyzer(gosec.NewConfig(), false, true, true, 1, log.New(w, "", 0))
	a.LoadRules(rules.Generate(false, rules.NewRuleFilter(true, leftOut...)).RulesInfo())
	a.LoadAnalyzers(analyzers.Generate(false, analyzers.NewAnalyzerFilter(true, leftOut...)).AnalyzersInfo())
	return a
}

// failures are what gosec only logs, and goes on after: a rule that panicked, or a
// package for which no analyzer ran.
func failures(said io.Reader) error {
	text, err := io.ReadAll(said)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "Error ") || strings.HasPrefix(line, "Panic ") {
			err = errors.Join(err, errors.New(strings.TrimSpace(line)))
		}
	}
	return err
}

// findings are the issues that nobody answered, each once.
func findings(root string, issues []*issue.Issue) []string {
	var out []string
	for _, i := range issues {
		what := i.What
		if len(i.Suppressions) > 0 {
			if slices.ContainsFunc(i.Suppressions, func(s issue.SuppressionInfo) bool { return s.Justification != "" }) {
				continue
			}
			what = fmt.Sprintf("#nosec without a reason, want #nosec %s -- why", i.RuleID)
		}
		file := i.File
		if rel, err := filepath.Rel(root, file); err == nil {
			file = rel
		}
		out = append(out, fmt.Sprintf("%s:%s:%s: %s: %s", file, i.Line, i.Col, i.RuleID, what))
	}
	slices.Sort(out)
	return slices.Compact(out)
}
