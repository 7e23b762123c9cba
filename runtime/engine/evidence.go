package engine

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/mesh"
)

// Bounds of what is collected when a step failed: enough to see why, little
// enough to be read.
const (
	evidenceTime    = 30 * time.Second
	evidenceObjects = 10
	evidencePods    = 5 // of one workload
	evidenceEvents  = 20
	evidenceLines   = 100 // of a container's log
	evidenceLine    = 2 << 10
	evidenceLog     = 16 << 10
	evidenceSize    = 256 << 10 // of all of it
	evidenceNotes   = 50        // of the analysis
)

// failedStep is the innermost step that an error came through; "" for none.
func failedStep(err error) string {
	path := ""
	for {
		var s *StepError
		if !errors.As(err, &s) {
			return path
		}
		path, err = s.Path, s.Err
	}
}

// collect writes down what a person would look up after a failure, while it is
// still there to be seen: what is not ready of what the step touched and of the
// control planes, with conditions, pods, events and the last lines of their
// logs, and what an analysis of the mesh finds. What cannot be read says so; it
// never makes a failure worse. Secrets are taken out of it, and it is bounded.
func (e *Engine) collect(err error) (file string) {
	step := failedStep(err)
	if e.o.Evidence == nil || step == "" || e.soft.Err() != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(e.soft, evidenceTime)
	defer cancel()
	w := &witness{ctx: ctx, r: e.view}
	for _, s := range e.o.Secrets {
		w.secrets.learnValue(s, base64.StdEncoding.EncodeToString([]byte(s)))
	}
	fmt.Fprintf(&w.text, "run %s, step %q, %s\n%s\n", e.run.ID, shown(step), e.o.Env.Clock.Now().UTC().Format(time.RFC3339), rootCause(err))
	for _, ref := range e.suspects(ctx, step) {
		if len(w.objects) == evidenceObjects {
			break
		}
		w.look(ref)
	}
	if len(w.objects) == 0 {
		return ""
	}
	w.analysis(e.o.Analyze)
	name := fmt.Sprintf("failure-%d.txt", e.ledger.failures+1)
	path, werr := e.o.Evidence(name, []byte(w.bounded()))
	if werr != nil {
		e.emit("", &event.Log{Level: "warn", Message: "evidence could not be kept: " + werr.Error()})
		return ""
	}
	if _, jerr := e.append(&journal.Evidence{Step: step, File: path, Objects: w.objects}); jerr != nil {
		return path // the run ends with that anyway
	}
	e.emit("", &event.EvidenceKept{File: path, Objects: w.objects})
	return path
}

// suspects are the workloads that the step touched, and the control planes.
func (e *Engine) suspects(ctx context.Context, step string) []cluster.Ref {
	var out []cluster.Ref
	add := func(ref cluster.Ref) {
		switch ref.Kind {
		case "Deployment", "StatefulSet", "DaemonSet", "Pod", "Job", "CustomResourceDefinition":
			if !slices.ContainsFunc(out, func(o cluster.Ref) bool { return o.ID() == ref.ID() }) {
				out = append(out, ref)
			}
		}
	}
	var recs []*effectRecord
	for _, r := range e.ledger.effects {
		if r.step == step || within(r.step, step) {
			recs = append(recs, r)
		}
	}
	slices.SortFunc(recs, func(a, b *effectRecord) int { return cmp.Compare(b.seq, a.seq) }) // the last first
	for _, r := range recs {
		add(r.effect.Ref)
	}
	planes, err := mesh.ControlPlanes(ctx, e.view)
	if err != nil {
		return out
	}
	for _, p := range planes {
		add(p.Ref)
	}
	return out
}

// witness writes down what it sees.
type witness struct {
	ctx     context.Context
	r       cluster.Reader
	text    strings.Builder
	objects []string
	secrets redactor
}

// bounded is what was seen, as it may be kept.
func (w *witness) bounded() string {
	return head(w.secrets.text(event.Clean(w.text.String())), evidenceSize)
}

func (w *witness) say(format string, args ...any) { fmt.Fprintf(&w.text, format+"\n", args...) }

// look describes an object if it is not ready.
func (w *witness) look(ref cluster.Ref) {
	o, err := w.r.Get(w.ctx, ref)
	if absent(err) {
		return
	}
	if err != nil {
		w.say("\n== %s: cannot be read: %v", ref, err)
		return
	}
	ready, _, why := cluster.Ready(o)
	if ready {
		return
	}
	w.objects = append(w.objects, ref.String())
	w.say("\n== %s is not ready: %s", ref, why)
	w.conditions(o)
	names := map[string]bool{ref.Kind + "/" + ref.Name: true}
	for i, p := range w.pods(o) {
		if i == evidencePods {
			w.say("   … and more pods")
			break
		}
		names["Pod/"+p.GetName()] = true
		w.pod(p)
	}
	w.events(ref.Namespace, names)
}

func (w *witness) conditions(o *cluster.Object) {
	cs, _, err := unstructured.NestedSlice(o.Object, "status", "conditions")
	if err != nil {
		w.say("   conditions: %v", err)
	}
	for _, c := range cs {
		if m, ok := c.(map[string]any); ok {
			w.say("   condition %v=%v %v: %v", m["type"], m["status"], orNothing(m["reason"]), orNothing(m["message"]))
		}
	}
}

func orNothing(v any) any {
	if v == nil {
		return ""
	}
	return v
}

// pods lists those of a workload that are not ready.
func (w *witness) pods(o *cluster.Object) []*cluster.Object {
	if o.GetKind() == "Pod" {
		return []*cluster.Object{o}
	}
	sel, found, err := unstructured.NestedStringMap(o.Object, "spec", "selector", "matchLabels")
	if err != nil || !found || len(sel) == 0 {
		return nil
	}
	res, err := w.r.ResourceFor(w.ctx, cluster.Ref{Version: "v1", Kind: "Pod"}.GVK())
	if err != nil {
		w.say("   pods: %v", err)
		return nil
	}
	var out []*cluster.Object
	err = w.r.List(w.ctx, res, cluster.ListOptions{Namespace: o.GetNamespace(), Labels: labels.Set(sel).String()}, func(p *cluster.Object) error {
		if ready, _, _ := cluster.Ready(p); !ready {
			out = append(out, p)
		}
		return nil
	})
	if err != nil {
		w.say("   pods: %v", err)
	}
	return out
}

// pod describes a pod: why it is not ready, its containers, and their last words.
func (w *witness) pod(p *cluster.Object) {
	w.secrets.learnOf(w.ctx, w.r, p)
	_, _, why := cluster.Ready(p)
	w.say("   -- pod/%s: %s", p.GetName(), why)
	for _, field := range []string{"initContainerStatuses", "containerStatuses"} {
		list, _, err := unstructured.NestedSlice(p.Object, "status", field)
		if err != nil {
			continue
		}
		for _, c := range list {
			m, ok := c.(map[string]any)
			if !ok {
				continue
			}
			name, _ := m["name"].(string)
			w.say("      container %s: ready %v, restarts %v, state %v", name, m["ready"], m["restartCount"], m["state"])
			if m["ready"] == true {
				continue
			}
			w.logs(p, name, false)
			if n, ok := m["restartCount"].(int64); ok && n > 0 {
				w.logs(p, name, true)
			}
		}
	}
}

func (w *witness) logs(p *cluster.Object, container string, previous bool) {
	which := "log"
	if previous {
		which = "log of its last life"
	}
	text, err := w.r.Logs(w.ctx, p.GetNamespace(), p.GetName(), container, evidenceLines, previous)
	switch {
	case err != nil:
		w.say("      %s of %s: %v", which, container, err)
	case strings.TrimSpace(text) == "":
		w.say("      %s of %s: empty", which, container)
	default:
		// Redacted before it is cut: of a secret that is cut, the rest is one too.
		w.say("      %s of %s, the last %d lines:\n%s", which, container, evidenceLines, tail(w.secrets.text(strings.TrimRight(text, "\n")), evidenceLog))
	}
}

// events lists the last ones about the named objects.
func (w *witness) events(namespace string, names map[string]bool) {
	res, err := w.r.ResourceFor(w.ctx, cluster.Ref{Version: "v1", Kind: "Event"}.GVK())
	if err != nil {
		return // a cluster without them
	}
	var lines []string
	err = w.r.List(w.ctx, res, cluster.ListOptions{Namespace: namespace}, func(o *cluster.Object) error {
		about, ok := o.Object["involvedObject"].(map[string]any)
		if !ok || !names[fmt.Sprintf("%v/%v", about["kind"], about["name"])] {
			return nil
		}
		lines = append(lines, fmt.Sprintf("%v event %v %v/%v: %v: %v", orNothing(o.Object["lastTimestamp"]), o.Object["type"], about["kind"], about["name"], o.Object["reason"], o.Object["message"]))
		return nil
	})
	if err != nil {
		w.say("   events: %v", err)
	}
	slices.Sort(lines)
	for _, l := range lines[max(0, len(lines)-evidenceEvents):] {
		w.say("   %s", l)
	}
}

// analysis adds what the analyzers say of the mesh's configuration.
func (w *witness) analysis(analyze func(context.Context, cluster.Reader) ([]string, error)) {
	if analyze == nil {
		return
	}
	found, err := analyze(w.ctx, w.r)
	switch {
	case err != nil:
		w.say("\n== the analysis of the mesh's configuration failed: %v", err)
		return
	case len(found) == 0:
		w.say("\n== the analysis of the mesh's configuration found nothing")
		return
	}
	w.say("\n== the analysis of the mesh's configuration")
	for i, line := range found {
		if i == evidenceNotes {
			w.say("   … and %d more", len(found)-i)
			return
		}
		w.say("   %s", line)
	}
}
