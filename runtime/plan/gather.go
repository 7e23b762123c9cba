package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/journal"
)

func digestOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// gatherer makes a plan of what a rehearsal tells: its events as they come, and
// its journal when it is over.
type gatherer struct {
	plan *Plan
	step string // that is under way
	// originals are the effects as the engine had them, in the order of the plan.
	originals []*effect.Effect
	// sealer opens what the journal has of Secrets; nil leaves that closed.
	sealer builtin.Sealer
}

func (g *gatherer) after(t time.Time) time.Duration { return t.Sub(g.plan.Begins) }

// take is a sink of events.
func (g *gatherer) take(e event.Event) {
	p := g.plan
	if e.Step != "" {
		g.step = e.Step
	}
	switch b := e.Body.(type) {
	case *event.RunStarted:
		p.Cluster, p.From, p.To = Cluster{Context: b.Context, UID: b.ClusterUID}, b.From, b.To
	case *event.StepStarted:
		if g.at(e.Step) == nil { // else a retry
			p.Steps = append(p.Steps, Step{Path: e.Step, Name: b.Name, Depth: b.Depth, After: g.after(e.Time)})
		}
	case *event.StepEnded:
		if s := g.at(e.Step); s != nil {
			s.Duration, s.OK, s.Error, s.Note = g.after(e.Time)-s.After, b.OK, b.Error, b.Note
		}
	case *event.Findings:
		for _, f := range b.Findings {
			g.found(e.Step, f)
		}
	case *event.Log:
		p.Logs = append(p.Logs, b.Message)
	case *event.PlanMade:
		p.Logs = append(p.Logs, b.Notes...)
	case *event.WaveStarted:
		p.Waves = append(p.Waves, Wave{Step: e.Step, Name: b.Name, Workloads: b.Workloads, After: g.after(e.Time)})
	case *event.WaveEnded:
		if n := len(p.Waves); n > 0 {
			w := &p.Waves[n-1]
			w.Duration, w.OK, w.Error = g.after(e.Time)-w.After, b.OK, b.Error
		}
	case *event.RunEnded:
		p.Status, p.Exit, p.Error, p.Duration = b.Status, int(b.Exit), b.Error, b.Duration
	}
}

func (g *gatherer) at(path string) *Step {
	for i := range g.plan.Steps {
		if g.plan.Steps[i].Path == path {
			return &g.plan.Steps[i]
		}
	}
	return nil
}

// found adds a finding, or counts it on one that says the same in that step of
// another object. Forecast and live look find the same twice.
func (g *gatherer) found(path string, f gate.Finding) {
	for i := range g.plan.Findings {
		have := &g.plan.Findings[i]
		if have.Step != path || have.Code != f.Code || have.Verdict != f.Verdict || have.Problem != f.Problem {
			continue
		}
		if have.Ref != f.Ref {
			have.Count++
		}
		return
	}
	g.plan.Findings = append(g.plan.Findings, Found{Step: path, Finding: f, Count: 1})
}

// read takes the effects from the journal.
func (g *gatherer) read(j journal.Journal) error {
	type open struct {
		intent *journal.Intent
		index  int
	}
	intents := map[string]open{}
	group, batch := 0, false
	for rec, err := range j.Records() {
		if err != nil {
			return err
		}
		switch rec.Type {
		case journal.TypeIntent, journal.TypeOutcome, journal.TypeCall:
		default:
			continue // parameters and values of steps may be long, and say nothing here
		}
		body, err := rec.Decode()
		if err != nil {
			return err
		}
		switch b := body.(type) {
		case *journal.Intent:
			if prior, again := intents[b.Key]; again { // read and judged anew
				intents[b.Key] = open{b, prior.index}
				continue
			}
			if !batch {
				group, batch = group+1, true
			}
			intents[b.Key] = open{b, len(g.plan.Effects)}
			whole, err := g.whole(j, b)
			if err != nil {
				return err
			}
			g.add(b, Identify(whole), group, rec.Time)
		case *journal.Outcome:
			batch = false
			if at, ok := intents[b.Key]; ok {
				if err := g.outcome(j, at.intent, at.index, b); err != nil {
					return err
				}
			}
		case *journal.Call:
			for _, f := range b.Facts {
				if f.Render != nil && !slices.Contains(g.plan.Renders, *f.Render) {
					g.plan.Renders = append(g.plan.Renders, *f.Render)
				}
			}
		}
	}
	g.group()
	return nil
}

// whole is an intent's effect with what the journal holds sealed of it, where there
// is a sealer to open that.
func (g *gatherer) whole(j journal.Journal, b *journal.Intent) (*effect.Effect, error) {
	ef, opened, err := engine.Whole(j, g.sealer, b)
	if err == nil && !opened && g.sealer != nil {
		err = errors.New("what is sealed of it can't be opened by this key")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.Effect.Ref, err)
	}
	return ef, nil
}

func (g *gatherer) add(b *journal.Intent, identity string, group int, t time.Time) {
	ef := b.Effect
	g.originals = append(g.originals, ef)
	g.plan.Effects = append(g.plan.Effects, Effect{
		Step: b.Step, Verb: ef.Verb, Ref: ef.Ref, Class: ef.Class, Created: ef.Absent, Summary: engine.Summary(ef), Why: ef.Why, Wave: ef.Wave,
		After: g.after(t), Group: group, Identity: identity, Undo: ef.Undo, Masked: ef.HoldsSecret(),
	})
	if s := g.at(b.Step); s != nil {
		s.Effects++
	}
	if why := effect.Irreversible(ef); why != "" {
		g.plan.Irreversible = append(g.plan.Irreversible, Irreversible{Step: b.Step, Ref: ef.Ref, Why: why})
	}
}

// outcome takes in what the effect changed of its object.
func (g *gatherer) outcome(j journal.Journal, in *journal.Intent, i int, out *journal.Outcome) error {
	e := &g.plan.Effects[i]
	if e.Masked || in.Effect.Before == nil {
		return nil
	}
	raw, err := journal.LoadValue(j, out.Delta)
	if err != nil || len(raw) == 0 {
		return err
	}
	var delta map[string]any
	if err := json.Unmarshal(raw, &delta); err != nil {
		return fmt.Errorf("%s: delta: %w", in.Effect.Ref, err)
	}
	after := effect.Patched(in.Effect.Before, delta)
	if e.Class == effect.Restart { // all that it says is that this run did it
		unmark(after)
	}
	e.Fields = changed(plainNumbers(in.Effect.Before), plainNumbers(after))
	return nil
}

// unmark takes the mark of a restart away, and what held nothing else.
func unmark(o *cluster.Object) {
	for _, path := range [][]string{
		{"spec", "template", "metadata", "annotations", effect.AnnotationRestart}, {"spec", "template", "metadata", "annotations"},
	} {
		at, ok, _ := unstructured.NestedMap(o.Object, path[:len(path)-1]...)
		if !ok {
			return
		}
		if m, isMap := at[path[len(path)-1]].(map[string]any); isMap && len(m) > 0 {
			return
		}
		unstructured.RemoveNestedField(o.Object, path...)
	}
}

// plainNumbers is the object with all its numbers of one type.
func plainNumbers(o *cluster.Object) *cluster.Object {
	raw, err := json.Marshal(o.Object)
	if err != nil {
		return o
	}
	m := map[string]any{}
	if json.Unmarshal(raw, &m) != nil {
		return o
	}
	return &cluster.Object{Object: m}
}

// group gives all effects of a wave one number: the scheduler begins them as
// budgets and limits allow, which is not the same every time. Numbers grow with
// the order in which groups begin.
func (g *gatherer) group() {
	waves := map[string]int{}
	for i := range g.plan.Effects {
		e := &g.plan.Effects[i]
		if e.Wave == "" {
			continue
		}
		k := e.Step + "\x00" + e.Wave
		if waves[k] == 0 {
			waves[k] = e.Group
		}
		e.Group = waves[k]
	}
}
