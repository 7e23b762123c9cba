package plan_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/plan"
	"rutter.dev/rutter/runtime/sim"
)

var update = flag.Bool("update", false, "rewrite golden files")

// What is planned is what is done, object by object, and planning does nothing.
func TestPlanIsWhatIsDone(t *testing.T) {
	l := newLab(t)
	before := len(l.sim.Requests())
	p := l.planned()
	for _, r := range l.sim.Requests()[before:] {
		if r.Verb != "get" && r.Verb != "list" && !r.DryRun {
			t.Errorf("planning sent %s %s %s", r.Verb, r.Resource, r.Name)
		}
	}
	if p.Status != "done" {
		t.Fatalf("the plan ended as %s: %s", p.Status, p.Error)
	}
	if err := l.run(nil); err != nil {
		t.Fatal(err)
	}
	var planned []string
	for _, e := range p.Effects {
		planned = append(planned, e.Step+" "+string(e.Verb)+" "+e.Ref.String())
	}
	if made := l.made(); !slices.Equal(planned, made) {
		t.Errorf("planned\n%s\ndone\n%s", strings.Join(planned, "\n"), strings.Join(made, "\n"))
	}
}

func TestViews(t *testing.T) {
	p := newLab(t).planned()
	for name, write := range map[string]func(*bytes.Buffer) error{
		"plan.txt":  func(b *bytes.Buffer) error { return p.Text(b) },
		"plan.md":   func(b *bytes.Buffer) error { return p.Markdown(b) },
		"plan.html": func(b *bytes.Buffer) error { return p.HTML(b) },
		"plan.json": func(b *bytes.Buffer) error {
			e := json.NewEncoder(b)
			e.SetIndent("", "  ")
			return e.Encode(p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := write(&b); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil { //nolint:gosec // a golden file
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(want, b.Bytes()) {
				t.Errorf("%s differs (-update rewrites it):\n%s", file, b.String())
			}
		})
	}
}

// A runbook that a gate would refuse is a plan that says so.
func TestRefusalIsPlanned(t *testing.T) {
	l := newLab(t)
	l.sim = l.cluster(objects + "\n---\n{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: strict, namespace: shop}, spec: {minAvailable: 3, selector: {matchLabels: {app: db}}}}\n")
	p := l.planned()
	if p.Status != "refused" || diag.Code(p.Exit) != diag.Blocked {
		t.Fatalf("status %s, exit %d", p.Status, p.Exit)
	}
	if !slices.ContainsFunc(p.Findings, func(f plan.Found) bool { return f.Code == "RUT013" }) {
		t.Errorf("findings: %+v", p.Findings)
	}
	if _, err := plan.Save(p); err == nil {
		t.Error("a plan that is refused was saved")
	}
}

// What the live server's admission refuses is refused in the plan.
func TestLiveAdmissionIsHeard(t *testing.T) {
	l := newLab(t)
	l.sim.Inject(sim.Fault{Verb: "apply", Resource: "configmaps", Name: "added", Kind: sim.FaultDeny, Message: "policy.example: no such thing here", Times: -1})
	p := l.planned()
	if p.Status == "done" || !strings.Contains(p.Error, "no such thing here") {
		t.Errorf("status %s: %s", p.Status, p.Error)
	}
}
