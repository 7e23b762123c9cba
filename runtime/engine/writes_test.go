package engine_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/sim"
)

// put applies one ConfigMap: the smallest write there is.
type putArgs struct {
	Name  string `star:"name,positional" doc:"of the ConfigMap"`
	Value string `star:"value,positional" doc:"its data.v"`
}

var put = builtin.NewWrite(builtin.WriteDef[putArgs]{
	Name: "put", Doc: "Applies a ConfigMap.", Example: `put("a", "1")`, Returns: "string", Effects: []effect.Class{effect.Plain, effect.MeshConfig},
	Plan: putPlan,
	Drive: func(c *builtin.Call, s effect.Submitter, a *putArgs, p *effect.Plan) (any, error) {
		for _, e := range p.Effects {
			if _, err := s.Submit(c.Ctx, e); err != nil {
				return nil, err
			}
		}
		return a.Name + "=" + a.Value, nil
	},
})

func putPlan(c *builtin.Call, a *putArgs) (*effect.Plan, error) {
	ref := cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: "default", Name: a.Name}
	body := fmt.Sprintf(`{"apiVersion":"v1","data":{"v":%q},"kind":"ConfigMap","metadata":{"name":%q,"namespace":"default"}}`, a.Value, a.Name)
	e := &effect.Effect{Verb: effect.Apply, Ref: ref, Body: json.RawMessage(body), Undo: effect.Undo{Kind: effect.UndoRestore}}
	live, err := c.Reader.Get(c.Ctx, ref)
	if errors.Is(err, cluster.ErrNotFound) {
		e.Absent = true
	} else if err != nil {
		return nil, err
	}
	e.Before = live
	return &effect.Plan{Effects: []*effect.Effect{e}}, nil
}

func planPut(c *builtin.Call, names ...string) (*effect.Plan, error) {
	p := &effect.Plan{}
	for _, name := range names {
		one, err := putPlan(c, &putArgs{Name: name, Value: "1"})
		if err != nil {
			return nil, err
		}
		p.Effects = append(p.Effects, one.Effects...)
	}
	return p, nil
}

// careless drops every error of its submissions.
var careless = builtin.NewWrite(builtin.WriteDef[putArgs]{
	Name: "careless", Doc: "Ignores errors.", Example: `careless("a", "1")`, Returns: "string", Effects: []effect.Class{effect.Plain},
	Plan: putPlan,
	Drive: func(c *builtin.Call, s effect.Submitter, _ *putArgs, p *effect.Plan) (any, error) {
		for _, e := range p.Effects {
			_, _ = s.Submit(c.Ctx, e) // what this builtin is for
		}
		return "fine", nil
	},
})

// ensure puts a ConfigMap where there is none and says how many it made.
var ensure = builtin.NewWrite(builtin.WriteDef[putArgs]{
	Name: "ensure", Doc: "Makes it once.", Example: `ensure("a", "1")`, Returns: "int", Effects: []effect.Class{effect.Plain},
	Plan: func(c *builtin.Call, a *putArgs) (*effect.Plan, error) {
		p, err := putPlan(c, a)
		if err == nil && !p.Effects[0].Absent {
			p.Effects = nil
		}
		return p, err
	},
	Drive: func(c *builtin.Call, s effect.Submitter, _ *putArgs, p *effect.Plan) (any, error) {
		_, err := s.SubmitAll(c.Ctx, p.Effects)
		return len(p.Effects), err
	},
})

// many puts several at once.
var many = builtin.NewWrite(builtin.WriteDef[putArgs]{
	Name: "many", Doc: "Makes several.", Example: `many("a,b", "1")`, Returns: "int", Effects: []effect.Class{effect.Plain},
	Plan: func(c *builtin.Call, a *putArgs) (*effect.Plan, error) {
		return planPut(c, strings.Split(a.Name, ",")...)
	},
	Drive: func(c *builtin.Call, s effect.Submitter, _ *putArgs, p *effect.Plan) (any, error) {
		_, err := s.SubmitAll(c.Ctx, p.Effects)
		return len(p.Effects), err
	},
})

// drop deletes a ConfigMap.
var drop = builtin.NewWrite(builtin.WriteDef[putArgs]{
	Name: "drop", Doc: "Deletes a ConfigMap.", Example: `drop("a", "1")`, Returns: "int", Effects: []effect.Class{effect.Plain},
	Plan: func(c *builtin.Call, a *putArgs) (*effect.Plan, error) {
		live, err := c.Reader.Get(c.Ctx, cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: "default", Name: a.Name})
		if err != nil {
			return nil, err
		}
		return &effect.Plan{Effects: []*effect.Effect{effect.DeleteOf(live, "")}}, nil
	},
	Drive: func(c *builtin.Call, s effect.Submitter, _ *putArgs, p *effect.Plan) (any, error) {
		_, err := s.SubmitAll(c.Ctx, p.Effects)
		return len(p.Effects), err
	},
})

// hide applies a Secret.
var hide = builtin.NewWrite(builtin.WriteDef[putArgs]{
	Name: "hide", Doc: "Applies a Secret.", Example: `hide("a", "1")`, Returns: "string", Effects: []effect.Class{effect.Plain},
	Plan: func(c *builtin.Call, a *putArgs) (*effect.Plan, error) {
		body := fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":%q,"namespace":"default"},"stringData":{"v":%q}}`, a.Name, a.Value)
		ref := cluster.Ref{Version: "v1", Kind: "Secret", Namespace: "default", Name: a.Name}
		e := &effect.Effect{Verb: effect.Apply, Ref: ref, Body: json.RawMessage(body)}
		live, err := c.Reader.Get(c.Ctx, ref)
		if err != nil && !errors.Is(err, cluster.ErrNotFound) {
			return nil, err
		}
		e.Found(live)
		return &effect.Plan{Effects: []*effect.Effect{e}}, nil
	},
	Drive: func(c *builtin.Call, s effect.Submitter, _ *putArgs, p *effect.Plan) (any, error) {
		_, err := s.SubmitAll(c.Ctx, p.Effects)
		return "hidden", err
	},
})

// What the server is asked beforehand is what it gets: the marks included.
func TestDryRunsAskForWhatIsSent(t *testing.T) {
	w := newWorld(t, header+"def run(p):\n    step(\"s\", lambda: [put(\"a\", \"1\"), put(\"a\", \"1\")])\n")
	dry, sent := []string{}, []string{}
	w.sim.OnAdmission(func(a sim.Admission) error {
		if a.Resource != "configmaps" {
			return nil
		}
		m := a.Object.GetAnnotations()
		marks := m[cluster.AnnotationRun] + " " + m[cluster.AnnotationEffect]
		if a.DryRun {
			dry = append(dry, marks)
		} else {
			sent = append(sent, marks)
		}
		return nil
	})
	if err := runOptions(w.options()); err != nil {
		t.Fatal(err)
	}
	if len(sent) != 2 || sent[0] == sent[1] || strings.TrimSpace(sent[0]) == "" {
		t.Fatalf("sent %q, want two effects", sent)
	}
	// Each effect in the forecast of its call, and again when it is made.
	if want := []string{sent[0], sent[0], sent[1], sent[1]}; !slices.Equal(dry, want) {
		t.Errorf("dry-runs of %q, want %q", dry, want)
	}
}
