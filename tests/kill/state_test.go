package kill

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
)

// world is what a run left: its cluster by object, normalized, and its journal.
type world struct {
	objects map[string]string
	journal *history
}

// history is what the journal tells.
type history struct {
	status         journal.RunStatus
	resumes        int
	begun          bool
	started, ended map[string]bool // steps
	effects        map[string]*effectLog
}

// effectLog is what the journal says of one effect.
type effectLog struct {
	what     string
	intents  int
	outcomes []journal.Status
}

// read opens what a run left behind. It gives the cluster time to settle: a run
// ends when what it waited for is so, and old pods may still be terminating
// then.
func (p *place) read(run string) *world {
	p.t.Helper()
	if err := lib.Setup(); err != nil {
		p.t.Fatal(err)
	}
	c, err := sim.Open(filepath.Join(p.state(), run, "sim"), sim.Options{Controllers: controllers.All(), Injector: lib.NewInjector()})
	if err != nil {
		p.t.Fatal(err)
	}
	c.Advance(settle)
	w := &world{objects: normalized(c.Objects()), journal: p.journal(run)}
	if err := c.Close(); err != nil {
		p.t.Fatal(err)
	}
	return w
}

// settle is more than any pod's grace period.
const settle = 5 * time.Minute

// journal reads the run's journal.
func (p *place) journal(run string) *history {
	p.t.Helper()
	store := journal.NewStore(journal.OS{}, p.state(), env.SystemClock{}, strings.NewReader(""))
	sum, err := store.Summary(run)
	if err != nil {
		p.t.Fatal(err)
	}
	h := &history{status: sum.Status, resumes: sum.Resumes, started: map[string]bool{}, ended: map[string]bool{}, effects: map[string]*effectLog{}}
	for rec, err := range store.Read(run) {
		if err != nil {
			p.t.Fatal(err)
		}
		body, err := rec.Decode()
		if err != nil {
			p.t.Fatal(err)
		}
		h.note(body)
	}
	return h
}

func (h *history) note(body journal.Body) {
	switch b := body.(type) {
	case *journal.Begin:
		h.begun = true
	case *journal.StepStart:
		h.started[b.Path] = true
	case *journal.StepEnd:
		h.ended[b.Path] = true
	case *journal.Intent:
		if h.effects[b.Key] == nil {
			h.effects[b.Key] = &effectLog{what: fmt.Sprintf("%s %s", b.Effect.Verb, b.Effect.Ref)}
		}
		h.effects[b.Key].intents++
	case *journal.Outcome:
		if h.effects[b.Key] == nil {
			h.effects[b.Key] = &effectLog{what: "outcome without an intent"}
		}
		h.effects[b.Key].outcomes = append(h.effects[b.Key].outcomes, b.Status)
	}
}

// whats lists what was done to what; keys hold the run's id and differ.
func (h *history) whats() []string {
	var out []string
	for _, e := range h.effects {
		out = append(out, e.what)
	}
	slices.Sort(out)
	return out
}

// doubts counts the intents that no outcome follows.
func (h *history) doubts() int {
	n := 0
	for _, e := range h.effects {
		if len(e.outcomes) < e.intents {
			n++
		}
	}
	return n
}

// made counts how often the effect took place, as far as is known.
func (e *effectLog) made() int {
	n := 0
	for _, o := range e.outcomes {
		if o == journal.Done || o == journal.Observed {
			n++
		}
	}
	return n
}

// normalized is each object as JSON without what another history may change:
//   - the run's own marks (run, effect and restart annotations hold its id);
//   - times, and who wrote when: managedFields, times of conditions;
//   - names, uids and resourceVersions that the cluster makes up as it goes:
//     pods are compared as a count by owner and content.
//
// Generations stay: one write too many to a workload shows in them.
func normalized(all []*unstructured.Unstructured) map[string]string {
	out := map[string]string{}
	pods := map[string]int{}
	for _, o := range all {
		switch o.GetKind() {
		case "Event":
			continue // how often something was tried is history, not state
		case "Pod", "EndpointSlice", "ReplicaSet", "ControllerRevision", "Endpoints":
			pods[made(o)]++
			continue
		}
		scrub(o.Object)
		out[fmt.Sprintf("%s %s/%s", o.GroupVersionKind().GroupKind(), o.GetNamespace(), o.GetName())] = text(o.Object)
	}
	for k, n := range pods {
		out[k] = fmt.Sprint(n)
	}
	return out
}

// made describes an object that a controller made: whose it is, and what it
// runs. Its name is the cluster's choice.
func made(o *unstructured.Unstructured) string {
	owner := "nobody"
	if refs := o.GetOwnerReferences(); len(refs) > 0 {
		owner = refs[0].Kind + " " + stem(refs[0])
	}
	var images []string
	for _, path := range [][]string{{"spec", "initContainers"}, {"spec", "containers"}, {"spec", "template", "spec", "containers"}} {
		list, _, _ := unstructured.NestedSlice(o.Object, path...) // absent where the kind has none
		for _, c := range list {
			if m, ok := c.(map[string]any); ok {
				images = append(images, fmt.Sprint(m["image"]))
			}
		}
	}
	phase, _, _ := unstructured.NestedString(o.Object, "status", "phase")
	replicas, _, _ := unstructured.NestedInt64(o.Object, "spec", "replicas")
	endpoints, _, _ := unstructured.NestedSlice(o.Object, "endpoints")
	return fmt.Sprintf("%s in %s of %s: %s %s replicas=%d endpoints=%d", o.GetKind(), o.GetNamespace(), owner, phase, strings.Join(images, " "), replicas, len(endpoints))
}

// stem is an owner's name without the hash that the cluster put behind it.
func stem(ref metav1.OwnerReference) string {
	if ref.Kind != "ReplicaSet" {
		return ref.Name
	}
	return ref.Name[:max(0, strings.LastIndexByte(ref.Name, '-'))]
}

// scrub drops from v what is history.
func scrub(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Collect(maps.Keys(v)) {
			switch k {
			case "managedFields", "uid", "resourceVersion", "creationTimestamp", "lastTransitionTime", "lastUpdateTime", "lastScaleTime",
				"rutter.dev/run", "rutter.dev/effect", "rutter.dev/restart":
				delete(v, k)
				continue
			case "message": // "ReplicaSet web-5f6c has successfully progressed"
				if s, ok := v[k].(string); ok && strings.HasPrefix(s, "ReplicaSet ") {
					delete(v, k)
					continue
				}
			}
			scrub(v[k])
		}
	case []any:
		for _, e := range v {
			scrub(e)
		}
	}
}

func text(v any) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetIndent("", " ")
	if err := enc.Encode(v); err != nil {
		return err.Error()
	}
	return b.String()
}

// same demands that got is want's equal: the same cluster, the same effects,
// each made once.
func same(t *testing.T, got, want *world) {
	t.Helper()
	if got.journal.status != journal.RunDone {
		t.Errorf("the run is %s, want %s", got.journal.status, journal.RunDone)
	}
	for _, k := range slices.Sorted(maps.Keys(want.objects)) {
		switch g, ok := got.objects[k]; {
		case !ok:
			t.Errorf("%s: is missing", k)
		case g != want.objects[k]:
			t.Errorf("%s: differs:\n%s", k, firstDifference(g, want.objects[k]))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(got.objects)) {
		if _, ok := want.objects[k]; !ok {
			t.Errorf("%s: is there, and should not be", k)
		}
	}
	if g, w := got.journal.whats(), want.journal.whats(); !slices.Equal(g, w) {
		t.Errorf("effects:\n  %s\nwant\n  %s", strings.Join(g, "\n  "), strings.Join(w, "\n  "))
	}
	for key, e := range got.journal.effects {
		if e.made() != 1 {
			t.Errorf("effect %s (%s): intents %d, outcomes %v; want exactly one done or observed", key, e.what, e.intents, e.outcomes)
		}
	}
}

// atMostOnce demands of a run that has not ended that no effect was made twice.
func atMostOnce(t *testing.T, h *history) {
	t.Helper()
	for key, e := range h.effects {
		if e.made() > 1 {
			t.Errorf("effect %s (%s): intents %d, outcomes %v", key, e.what, e.intents, e.outcomes)
		}
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d\n  got  %s\n  want %s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}
