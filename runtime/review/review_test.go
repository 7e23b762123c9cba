package review

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/plan"
)

func deployment(namespace, name string) cluster.Ref {
	return cluster.Ref{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: namespace, Name: name}
}

var webhook = cluster.Ref{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "MutatingWebhookConfiguration", Name: "istio-revision-tag-default"}

func base() *plan.Plan {
	return &plan.Plan{
		Status: "done", Duration: time.Minute,
		Steps: []plan.Step{{Path: "preflight", OK: true}, {Path: "control plane", OK: true}, {Path: "data plane", OK: true}},
		Effects: []plan.Effect{
			{Step: "control plane", Verb: effect.Apply, Ref: deployment("istio-system", "istiod"), Fields: []plan.Field{{Path: "spec.replicas", Old: 1, New: 2}, {Path: "metadata.annotations.rutter.dev/run", New: "a"}}},
			{Step: "data plane", Verb: effect.Patch, Class: effect.Restart, Ref: deployment("shop", "web")},
			{Step: "data plane", Verb: effect.Patch, Class: effect.Restart, Ref: deployment("shop", "api")},
		},
		Restarts: []plan.Restart{{Kind: "Deployment", Namespace: "shop", Name: "web", Wave: "canary", Wanted: 2, Least: 2}},
		Asks:     []plan.Ask{{Step: "approve", Message: "apply?"}},
	}
}

func changes(was, is *plan.Plan) (r Report, out []string) {
	r.Add("a mesh", Run{Plan: was}, Run{Plan: is})
	for _, c := range r.Scenarios[0].Changes {
		out = append(out, string(c.Kind)+" "+c.What)
	}
	return r, out
}

func TestSameBehaviour(t *testing.T) {
	is := base()
	is.Effects[0].Fields[1].New = "b" // the mark of another run
	is.Duration = 2 * time.Minute
	if r, got := changes(base(), is); len(got) > 0 || r.Changed() {
		t.Errorf("changes %q, gained %q", got, r.Gained)
	}
}

// Each edit of a plan is told in words that name it, and nothing else is.
func TestChanges(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(p *plan.Plan)
		want []string
	}{
		"a new step":      {func(p *plan.Plan) { p.Steps = append(p.Steps, plan.Step{Path: "soak", OK: true}) }, []string{"step + step soak"}},
		"a step less":     {func(p *plan.Plan) { p.Steps = p.Steps[1:] }, []string{"step - step preflight"}},
		"steps swapped":   {func(p *plan.Plan) { p.Steps[0], p.Steps[1] = p.Steps[1], p.Steps[0] }, []string{"order step control plane comes at another place: first"}},
		"effects swapped": {func(p *plan.Plan) { p.Effects[1], p.Effects[2] = p.Effects[2], p.Effects[1] }, []string{"order effect patch deployment.apps/api in shop comes at another place: after apply deployment.apps/istiod in istio-system"}},
		"a new effect": {func(p *plan.Plan) {
			p.Effects = append(p.Effects, plan.Effect{Step: "tidy", Verb: effect.Delete, Ref: webhook})
		}, []string{"effect + effect delete mutatingwebhookconfiguration.admissionregistration.k8s.io/istio-revision-tag-default"}},
		"another step's": {func(p *plan.Plan) { p.Effects[2].Step = "canary" }, []string{`effect ~ effect patch deployment.apps/api in shop is made in step "canary", not in "data plane"`}},
		"another value":  {func(p *plan.Plan) { p.Effects[0].Fields[0].New = 3 }, []string{"effect ~ effect apply deployment.apps/istiod in istio-system: spec.replicas"}},
		"a field less":   {func(p *plan.Plan) { p.Effects[0].Fields = nil }, []string{"spec.replicas is left as it is"}},
		"a gate's doubts": {func(p *plan.Plan) {
			p.Findings = []plan.Found{{Finding: gate.Finding{Code: "RUT013", Verdict: gate.Ask, Ref: deployment("shop", "web"), Problem: "takes all down"}}}
		}, []string{"gate + found: RUT013 ask for deployment.apps/web in shop: takes all down"}},
		"a gate's pass": {func(p *plan.Plan) { p.Findings = []plan.Found{{Finding: gate.Finding{Code: "RUT013"}}} }, nil},
		"no question":   {func(p *plan.Plan) { p.Asks = nil }, []string{"question - does not ask any more: apply?"}},
		"more restarts": {func(p *plan.Plan) {
			p.Restarts = append(p.Restarts, plan.Restart{Kind: "StatefulSet", Namespace: "shop", Name: "db"})
		}, []string{"restart + restarts: statefulset/db in shop"}},
		"another wave": {func(p *plan.Plan) { p.Restarts[0].Wave = "2" }, []string{`restart ~ deployment/web in shop restarts in wave "2", not in "canary"`}},
		"less ready":   {func(p *plan.Plan) { p.Restarts[0].Least = 1 }, []string{"restart ~ deployment/web in shop has at least 1 of 2 pods ready meanwhile, not 2 of 2"}},
		"final":        {func(p *plan.Plan) { p.Irreversible = []plan.Irreversible{{Ref: webhook, Why: "gone"}} }, []string{"irreversible + can't be undone: mutatingwebhookconfiguration"}},
		"it fails":     {func(p *plan.Plan) { p.Status, p.Exit, p.Error, p.Steps[2].OK = "failed", 1, "a.star:1:2: no", false }, []string{"outcome before, it ends as done"}},
	} {
		t.Run(name, func(t *testing.T) {
			is := base()
			c.edit(is)
			r, got := changes(base(), is)
			if len(got) != len(c.want) || r.Changed() != (len(c.want) > 0) {
				t.Fatalf("got %q, want %q", got, c.want)
			}
			for i := range got {
				if !strings.Contains(got[i], c.want[i]) {
					t.Errorf("got %q, want %q", got[i], c.want[i])
				}
			}
		})
	}
}

// An error that moved with an edit is the same; a run that does not begin is told.
func TestOutcomes(t *testing.T) {
	failed := func(text string) Run {
		p := base()
		p.Status, p.Exit, p.Error, p.Steps[2].OK = "failed", 1, text, false
		return Run{Plan: p}
	}
	var r Report
	r.Add("moved", failed("a.star:1:2: no\n\n  at"), failed("b.star:9:2: no"))
	r.Add("none", Run{Err: errors.New("a.star:3:1: no such parameter")}, Run{Plan: base()})
	if n := len(r.Scenarios[0].Changes); n != 0 || !strings.HasSuffix(r.Scenarios[0].New, ": no") {
		t.Errorf("moved: %+v", r.Scenarios[0])
	}
	if s := r.Scenarios[1]; s.Old != "does not begin: no such parameter" || s.Changes[0].Kind != Outcome {
		t.Errorf("none: %+v", s)
	}
}

func TestCapabilities(t *testing.T) {
	is := base()
	is.Effects[2].Ref.Namespace = "web"
	is.Effects = append(is.Effects, plan.Effect{Verb: effect.Delete, Ref: webhook}, plan.Effect{Verb: effect.Apply, Created: true, Ref: webhook})
	var r Report
	r.Add("one mesh", Run{Plan: base()}, Run{Plan: is})
	want := []string{"creates MutatingWebhookConfiguration (cluster-wide)", "deletes MutatingWebhookConfiguration (cluster-wide)", "restarts Deployment in web"}
	if !slices.Equal(r.Gained, want) || len(r.Lost) != 0 {
		t.Errorf("gained %q, lost %q", r.Gained, r.Lost)
	}
	other := base() // that another scenario had it before makes it no news
	other.Effects[2].Ref.Namespace = "web"
	r.Add("another", Run{Plan: other}, Run{Plan: other})
	if !slices.Equal(r.Gained, want[:2]) {
		t.Errorf("gained %q", r.Gained)
	}
	var text, markdown, data bytes.Buffer
	r.Runbook, r.Old, r.New = "up`grade", "main:a.star", "a.star"
	if err := errors.Join(r.Text(&text), r.Markdown(&markdown), json.NewEncoder(&data).Encode(&r)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "! now deletes MutatingWebhookConfiguration") {
		t.Error(text.String())
	}
	if !strings.Contains(markdown.String(), "- **now** `deletes MutatingWebhookConfiguration (cluster-wide)`") || !strings.Contains(markdown.String(), "`up'grade`") {
		t.Error(markdown.String())
	}
	var back Report
	if err := json.Unmarshal(data.Bytes(), &back); err != nil || len(back.Scenarios) != 2 {
		t.Errorf("%v, %+v", err, back)
	}
}
