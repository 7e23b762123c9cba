package view

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || got != string(want) {
		t.Errorf("%s differs (%v); to accept: go test ./cmd/cli/view -update\ngot:\n%s\nwant:\n%s", path, err, got, want)
	}
}

func ref(group, kind, ns, name string) cluster.Ref {
	return cluster.Ref{Group: group, Version: "v1", Kind: kind, Namespace: ns, Name: name}
}

var (
	istiod = ref("apps", "Deployment", "istio-system", "istiod")
	web    = ref("apps", "Deployment", "shop", "web")
)

// story is a run with at least one event of every type.
func story() []event.Event {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var out []event.Event
	say := func(after time.Duration, step string, b event.Body) {
		at = at.Add(after)
		out = append(out, event.Event{Time: at, Step: step, Body: b})
	}
	const s = time.Second
	image := event.Change{Key: "k1", Verb: effect.Apply, Ref: istiod, Class: effect.ControlPlane, Summary: "image pilot:1.30.3 → pilot:1.31.0"}
	crd := event.Change{Verb: effect.Apply, Ref: ref("apiextensions.k8s.io", "CustomResourceDefinition", "", "x.istio.io"), Class: effect.CRD, Created: true}
	old := event.Change{Verb: effect.Delete, Ref: ref("", "ConfigMap", "istio-system", "old"), Class: effect.Plain}
	restart := event.Change{Verb: effect.Patch, Ref: web, Class: effect.Restart, Wave: "canary", Summary: "proxy 1.30.3 → 1.31.0"}
	warning := []gate.Finding{{Code: gate.Disruption, Verdict: gate.Warn, Ref: web, Problem: "one replica only", Next: "scale it to 2 first"}}
	say(0, "", &event.RunStarted{
		Run: "20260101-000000-ab3d", Runbook: "istio-inplace", Version: "1.0.0", Context: "sim",
		ClusterUID: "1b2c3d4e-0000", From: "1.30.3", To: "1.31.0",
	})
	say(0, "preflight", &event.StepStarted{Name: "preflight"})
	say(s, "preflight", &event.Log{Level: "info", Message: "Kubernetes 1.34 is supported by Istio 1.31.0"})
	say(0, "preflight", &event.Log{Level: "warn", Message: "a \x1b[31mred\x1b[0m pod name\r\x07"})
	say(0, "preflight", &event.StepEnded{Name: "preflight", OK: true, Duration: 400 * time.Millisecond})
	say(0, "back up", &event.StepEnded{Name: "back up", OK: true, Replayed: true, Note: "84 objects"})
	say(s, "review", &event.StepStarted{Name: "review"})
	say(0, "review", &event.Diff{Title: "1 object changes", Text: "--- live\n+++ new\n@@ -1 +1 @@\n-image: pilot:1.30.3\n+image: pilot:1.31.0\n name: discovery\n"})
	say(0, "review", &event.StepEnded{Name: "review", OK: true, Duration: 2 * s})
	say(0, "", &event.ApprovalAsked{Message: "apply Istio 1.31.0 to sim"})
	say(s, "", &event.ApprovalAnswered{Message: "apply Istio 1.31.0 to sim", Granted: true, By: "--yes"})
	say(0, "control plane", &event.StepStarted{Name: "control plane"})
	say(0, "control plane", &event.PlanMade{Builtin: "kube.apply", Effects: 61, Unchanged: 3, Notes: []string{"moves 4 fields from istio-operator"}})
	say(0, "control plane", &event.EffectPlanned{Change: image})
	say(0, "control plane", &event.EffectReplayed{Change: crd})
	say(0, "control plane", &event.EffectIntent{Change: image})
	say(0, "control plane", &event.EffectDone{Change: image})
	say(0, "control plane", &event.EffectObserved{Change: old, Observation: effect.Happened})
	for i := range 5 {
		say(5*s, "control plane", &event.Progress{Done: i, Total: 4, Message: "waiting for deployment.apps/istiod in istio-system"})
	}
	say(0, "control plane", &event.StepEnded{Name: "control plane", OK: true, Duration: 14 * s, Counts: event.Counts{Applied: 61, Unchanged: 3, Pruned: 1}})
	say(0, "data plane", &event.StepStarted{Name: "data plane"})
	say(0, "data plane/shop", &event.StepStarted{Name: "shop", Depth: 1, Attempt: 2})
	say(0, "data plane/shop", &event.WaveStarted{Name: "canary", Size: 1, Total: 12})
	say(0, "data plane/shop", &event.Findings{Findings: warning})
	say(0, "data plane/shop", &event.EffectDone{Change: restart})
	say(0, "data plane/shop", &event.WaveEnded{Name: "canary", OK: true, Duration: 65 * s})
	say(0, "data plane/shop", &event.EffectFailed{Change: restart, Error: "deployment.apps/web in shop: denied by the quota", InDoubt: false})
	say(0, "data plane/shop", &event.StepEnded{Name: "shop", Depth: 1, Error: "shop: deployment.apps/web in shop: denied by the quota", Duration: 3725 * s, Counts: event.Counts{Restarted: 1, Failed: 1}})
	say(0, "data plane", &event.StepEnded{Name: "data plane", Error: "data plane: shop: deployment.apps/web in shop: denied by the quota", Duration: 3725 * s})
	say(0, "", &event.RunEnded{Run: "20260101-000000-ab3d", Status: "failed", Exit: diag.Failed, Duration: 3800 * s, Next: "rutter resume 20260101-000000-ab3d"})
	return out
}

func TestPlain(t *testing.T) {
	for name, o := range map[string]Options{
		"plain.txt": {}, "plain-ascii.txt": {ASCII: true, Durations: true}, "plain-color.txt": {Color: true, Durations: true},
	} {
		var b bytes.Buffer
		v := New(&b, o)
		for _, e := range story() {
			v.Emit(e)
		}
		if v.Err() != nil {
			t.Error(v.Err())
		}
		golden(t, name, strings.ReplaceAll(b.String(), "\x1b", "␛"))
		if o.ASCII {
			for _, r := range b.String() {
				if r > 127 {
					t.Errorf("%q in ASCII", r)
				}
			}
		}
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	v := NewJSON(&b)
	for _, e := range story() {
		v.Emit(e)
	}
	if v.Err() != nil {
		t.Error(v.Err())
	}
	golden(t, "stream.jsonl", b.String())
}

// screen is what a terminal would show of the live view's output.
func screen(t *testing.T, out string) []string {
	t.Helper()
	rows := []string{""}
	for out != "" {
		var up int
		if n, err := fmt.Sscanf(out, "\x1b[%dA\r\x1b[J", &up); n == 1 && err == nil {
			rows = append(rows[:len(rows)-1-up], "")
			out = out[strings.Index(out, "J")+1:]
			continue
		}
		line, rest, ok := strings.Cut(out, "\n")
		if !ok {
			t.Fatalf("line without end: %q", out)
		}
		rows[len(rows)-1] += line
		rows = append(rows, "")
		out = rest
	}
	return rows
}

func TestLive(t *testing.T) {
	const width = 60
	var b, frames bytes.Buffer
	v := New(&b, Options{Live: true, Width: width, Durations: true})
	for _, e := range story() {
		v.Emit(e)
		rows := screen(t, b.String())
		for _, r := range rows {
			if strings.Contains(r, "⋯") && len([]rune(r)) >= width {
				t.Errorf("%q fills the terminal's width", r)
			}
		}
		if _, ok := e.Body.(*event.Progress); ok {
			fmt.Fprintf(&frames, "--- frame\n%s", strings.Join(rows[max(0, len(rows)-4):], "\n"))
		}
	}
	fmt.Fprintf(&frames, "--- end\n%s", strings.Join(screen(t, b.String()), "\n"))
	golden(t, "live.txt", frames.String())
}

func TestLiveKeepsStillWhileSomeoneTypes(t *testing.T) {
	var b bytes.Buffer
	v := NewLive(&b, Options{Live: true, Width: 60})
	v.Emit(event.Event{Step: "s", Body: &event.StepStarted{Name: "s"}})
	v.Emit(event.Event{Step: "s", Body: &event.ApprovalAsked{Message: "go on"}})
	n := b.Len()
	v.Tick(time.Time{}.Add(time.Minute))
	if got := b.String()[n:]; got != "" {
		t.Errorf("drew %q", got)
	}
	v.Emit(event.Event{Step: "s", Body: &event.ApprovalAnswered{Granted: true, By: "me"}})
	if rows := screen(t, b.String()); !strings.Contains(rows[len(rows)-2], "⋯ s") {
		t.Errorf("%q", rows)
	}
}

type failing struct{ n int }

func (f *failing) Write([]byte) (int, error) {
	f.n++
	return 0, os.ErrClosed
}

func TestFirstStreamErrorIsKept(t *testing.T) {
	for _, o := range []Options{{}, {Live: true, Width: 80}} {
		w := &failing{}
		v := New(w, o)
		for _, e := range story() {
			v.Emit(e)
		}
		if !errors.Is(v.Err(), os.ErrClosed) || w.n != 1 {
			t.Errorf("%v after %d writes", v.Err(), w.n)
		}
	}
}

func TestErrors(t *testing.T) {
	inner := &diag.Error{
		Code: diag.Usage, Pos: diag.Pos{File: "in-place.star", Line: 12, Col: 20}, Problem: `p has no parameter "tto"`,
		Expect: "one of to, hub", Source: "    step(\"x\", go, to = p.tto)\n                        ^", Next: "did you mean to?",
	}
	refusal := &gate.Refusal{Forecast: true, Findings: []gate.Finding{
		{Code: gate.BackupCovers, Verdict: gate.Block, Ref: web, Problem: "no verified backup of this run holds it", Expect: "a backup that covers namespace shop", Next: "backup.create(scope = backup.mesh()) before this step"},
		{Code: gate.Disruption, Verdict: gate.Ask, Ref: istiod, Problem: "it has a single replica and would be down for the length of its restart, which on this cluster took 40s the last time"},
		{Code: gate.PrecheckPassed, Verdict: gate.Warn, Problem: "precheck had 2 warnings"},
	}}
	var b bytes.Buffer
	for _, err := range []error{
		inner,
		fmt.Errorf("load: %w", inner),
		&diag.Error{Subject: "step control plane", Problem: "stopped", Err: refusal, Changed: "61 objects of step crds", Next: "rutter resume 20260101-000000-ab3d"},
		refusal,
		errors.Join(errors.New("first"), fmt.Errorf("second: %w and %w", os.ErrClosed, os.ErrExist)),
		errors.New("plain \x1b]0;title\x07text"),
	} {
		if err := Error(&b, err, Options{Width: 100}); err != nil {
			t.Fatal(err)
		}
		b.WriteString("=====\n")
	}
	golden(t, "errors.txt", b.String())
}

type somewhere string

func (s somewhere) String() string { return string(s) }

// Advice that names a run can be typed as it stands, wherever the run is.
func TestAdviceFindsTheRun(t *testing.T) {
	const run = "20260101-000000-ab3d"
	for next, want := range map[string]string{
		"rutter resume " + run + " --approve NAME":                                     "rutter resume " + run + " --state cluster --approve NAME",
		"look, then rutter rollback " + run + ", or rutter show " + run + " on host a": "look, then rutter rollback " + run + " --state cluster, or rutter show " + run + " --state cluster on host a",
		"rutter run it again": "rutter run it again",
	} {
		if got := (Options{Runs: somewhere("--state cluster")}).advice(next); got != want {
			t.Errorf("%s:\n got %s\nwant %s", next, got, want)
		}
		for _, o := range []Options{{}, {Runs: somewhere("")}} {
			if got := o.advice(next); got != next {
				t.Errorf("%s: got %s", next, got)
			}
		}
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		tty  bool
		flag string
		want Options
	}{
		{nil, true, "", Options{Color: true, Live: true, Durations: true, Width: 80}},
		{nil, false, "auto", Options{Durations: true}},
		{nil, false, "always", Options{Color: true, Durations: true}},
		{nil, true, "never", Options{Live: true, Durations: true, Width: 80}},
		{map[string]string{"NO_COLOR": "1"}, true, "", Options{Live: true, Durations: true, Width: 80}},
		{map[string]string{"TERM": "dumb"}, true, "", Options{Durations: true, Width: 80}},
		{map[string]string{"LANG": "C"}, false, "", Options{ASCII: true, Durations: true}},
		{map[string]string{"LANG": "C", "LC_ALL": "de_DE.UTF-8"}, false, "", Options{Durations: true}},
	} {
		e := &env.Env{Getenv: func(k string) string { return c.env[k] }, IsTerminal: func(any) bool { return c.tty }}
		if got := OptionsFor(e, nil, c.flag, 80); got != c.want {
			t.Errorf("%+v: got %+v", c, got)
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		400 * time.Millisecond: "0.4s", 14 * time.Second: "14s", 123 * time.Second: "2m03s", 3725 * time.Second: "1h02m", 0: "0.0s",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
