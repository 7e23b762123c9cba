package testrun

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/journal"
)

// statusKilled is the status of a run whose host died; the journal does not
// have the word.
const statusKilled = "killed"

// outcome is the result of t.run: how a run went, as attributes, and what it
// takes to resume it.
type outcome struct {
	disk    *journal.MemFS
	journal journal.Journal
	cluster *simulated
	policy  *gate.Policy
	params  map[string]any // as t.run was given them: a resume needs the secret ones
	view    event.Sink
	text    bytes.Buffer
	root    string
	killed  atomic.Bool // set by whichever goroutine writes the journal
	resumed bool
	closed  bool
	// resumable: the run began, and is not done.
	resumable bool

	err        error
	status     string
	exit       int
	steps      []any
	effects    []any
	failed     []any
	replayed   []any
	findings   []any
	output     []any
	transcript string
}

// close lets go of the journal. A run that was killed left it as it was.
func (o *outcome) close() {
	if !o.closed {
		o.closed = true
		_ = o.journal.Close() // in memory; of a killed host it fails, as it should
	}
}

// record keeps what tests ask about.
func (o *outcome) record(e event.Event) {
	switch b := e.Body.(type) {
	case *event.StepEnded:
		o.steps = append(o.steps, map[string]any{
			"path": e.Step, "name": b.Name, "ok": b.OK, "error": b.Error, "replayed": b.Replayed, "note": b.Note,
		})
	case *event.EffectDone:
		o.effects = append(o.effects, change(e.Step, &b.Change, "done"))
	case *event.EffectObserved:
		o.replayed = append(o.replayed, change(e.Step, &b.Change, string(b.Observation)))
	case *event.EffectReplayed:
		o.replayed = append(o.replayed, change(e.Step, &b.Change, "replayed"))
	case *event.EffectFailed:
		word := "failed"
		if b.InDoubt {
			word = "in doubt"
		}
		m := change(e.Step, &b.Change, word)
		m["error"] = b.Error
		o.failed = append(o.failed, m)
	case *event.Findings:
		for _, f := range b.Findings {
			o.findings = append(o.findings, map[string]any{
				"code": string(f.Code), "verdict": fmt.Sprint(f.Verdict), "object": f.Ref.String(), "problem": f.Problem,
				"expect": f.Expect, "next": f.Next, "forecast": b.Forecast, "step": e.Step,
			})
		}
	case *event.Log:
		o.output = append(o.output, b.Message)
	case *event.RunEnded:
		o.status = b.Status
	}
}

func change(step string, c *event.Change, what string) map[string]any {
	return map[string]any{
		"verb": string(c.Verb), "kind": c.Ref.Kind, "group": c.Ref.Group, "name": c.Ref.Name, "namespace": c.Ref.Namespace,
		"class": string(c.Class), "created": c.Created, "summary": c.Summary, "why": c.Why, "wave": c.Wave,
		"step": step, "outcome": what,
	}
}

// errorText is what the run failed with, the source of it left out.
func (o *outcome) errorText() string {
	if o.err == nil {
		return ""
	}
	return strings.ReplaceAll(o.err.Error(), o.root+"/", "")
}

// String implements starlark.Value.
func (o *outcome) String() string {
	s := "<result " + o.status
	if o.err != nil {
		s += ": " + event.CleanLine(o.errorText())
	}
	return s + ">"
}

// Type implements starlark.Value.
func (o *outcome) Type() string { return "result" }

// Freeze implements starlark.Value.
func (o *outcome) Freeze() {}

// Truth implements starlark.Value: a run that is done is true.
func (o *outcome) Truth() starlark.Bool { return o.status == string(journal.RunDone) }

// Hash implements starlark.Value.
func (o *outcome) Hash() (uint32, error) { return 0, errors.New("unhashable type: result") }

var outcomeAttrs = []string{
	"effects", "error", "exit", "failed", "findings", "ok", "output", "replayed", "resumable", "status", "steps", "transcript",
}

// AttrNames implements starlark.HasAttrs.
func (o *outcome) AttrNames() []string { return outcomeAttrs }

// Attr implements starlark.HasAttrs:
//
//	ok          True when the run is done
//	status      "done", "failed", "refused", "interrupted", "in-doubt" or "killed"
//	exit        the exit code that rutter would end with
//	error       text of the error, "" for none
//	steps       the steps that ended: path, name, ok, error, replayed, note
//	effects     the effects that were made: verb, kind, name, namespace, class, …
//	failed      those that were not made, or are in doubt: outcome and error too
//	replayed    those taken from the journal or found to have happened
//	findings    of gates: code, verdict, object, problem, …
//	output      lines of log() and print()
//	resumable   True when t.resume can take the run up: it began and is not done
//	transcript  what golden files hold
func (o *outcome) Attr(name string) (starlark.Value, error) {
	switch name {
	case "ok":
		return starlark.Bool(o.status == string(journal.RunDone)), nil
	case "status":
		return starlark.String(o.status), nil
	case "resumable":
		return starlark.Bool(o.resumable), nil
	case "exit":
		return starlark.MakeInt(o.exit), nil
	case "error":
		return starlark.String(o.errorText()), nil
	case "transcript":
		return starlark.String(o.transcript), nil
	case "steps":
		return list(o.steps)
	case "effects":
		return list(o.effects)
	case "failed":
		return list(o.failed)
	case "replayed":
		return list(o.replayed)
	case "findings":
		return list(o.findings)
	case "output":
		return list(o.output)
	}
	e := diag.Usagef("result", "has no attribute %q; it has: %s", name, strings.Join(outcomeAttrs, ", "))
	if near := diag.Nearest(name, outcomeAttrs); near != "" {
		e.Problem = fmt.Sprintf("has no attribute %q; did you mean %s?", name, near)
	}
	return nil, e
}

func list(xs []any) (starlark.Value, error) {
	if xs == nil {
		xs = []any{}
	}
	return data(xs)
}
