package requests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// follow lets a rollout play out and records its history: one state of the
// counters a round. The pods of the cases never get ready by themselves
// (gated). In each round the controllers come to rest, the state is recorded,
// and the pods that wait become ready together; so the history is the same on
// a slow server and a fast one. The least that was ever available is recorded
// from a watch: what maxUnavailable promises has to hold at every moment, and
// not only at rest. (What maxSurge promises does not: a Deployment adds up
// counters that its ReplicaSets wrote at different times.)
//
// It ends at the first rest in which the conditions hold.
func follow(path string, conds ...string) step { return followStep{path, conds, whole} }

// followEnds is follow for what a real server does not do alike each time: only
// the first and the last state are recorded.
func followEnds(path string, conds ...string) step { return followStep{path, conds, ends} }

// settled is follow for what the case begins with: nothing is recorded.
func settled(path string, conds ...string) step { return followStep{path, conds, nothing} }

type followStep struct {
	path   string
	conds  []string
	record int
}

// How much of a history is recorded.
const (
	nothing = iota
	ends
	whole
)

// counters are the fields of a kind's status whose history is compared.
var counters = map[string][]string{
	"deployments":  {"status.replicas", "status.updatedReplicas", "status.readyReplicas", "status.availableReplicas"},
	"statefulsets": {"status.replicas", "status.updatedReplicas", "status.readyReplicas", "status.availableReplicas"},
	"daemonsets":   {"status.currentNumberScheduled", "status.updatedNumberScheduled", "status.numberReady", "status.numberAvailable"},
}

func (s followStep) do(r *runner) {
	plural, name, _ := strings.Cut(s.path, "/")
	h := &history{fields: counters[plural]}
	url, k := r.expand(s.path)
	from, ok := r.kept["rv "+s.path]
	if !ok {
		r.t.Errorf("%s: %s was never answered before it was followed", r.target.name, s.path)
		return
	}
	list, _ := r.expand(plural)
	resp, err := r.begin(r.ctx, "GET", list+"?watch=true&fieldSelector=metadata.name%3D"+name+"&resourceVersion="+from, nil, nil)
	if err != nil {
		r.t.Errorf("%s: %s: %v", r.target.name, s.path, err)
		return
	}
	w := &watching{body: resp.Body, events: make(chan map[string]any, 4096)}
	defer w.body.Close() //nolint:errcheck // it has told all that matters
	go w.read()
	final, err := s.rounds(r, url, h)
	if err != nil && r.target.simulated {
		r.answers = append(r.answers, answer{title: s.title(), lines: []line{{"waited", err.Error()}}})
		return
	}
	if err != nil {
		r.t.Errorf("%s: %s: %v; so far %v", r.target.name, s.path, err, h.states)
		return
	}
	r.keep(&request{}, k, final)
	for {
		e, err := w.next(r.ctx)
		if err != nil || e == nil {
			r.t.Errorf("%s: watch of %s ended early: %v", r.target.name, s.path, err)
			return
		}
		h.saw(e["object"])
		if lookup(e, "object.metadata.resourceVersion") == lookup(final, "metadata.resourceVersion") {
			break
		}
	}
	if s.record == ends {
		h.states = []string{h.states[0], h.states[len(h.states)-1]}
	}
	if s.record != nothing {
		r.sent++
		r.answers = append(r.answers, h.answer(s.title()))
	}
}

func (s followStep) title() string { return "FOLLOW " + s.path + " " + strings.Join(s.conds, " ") }

// rounds plays the rollout and returns the object as it is in the end.
func (s followStep) rounds(r *runner, url string, h *history) (map[string]any, error) {
	for {
		obj, pods, err := s.rest(r, url)
		if err != nil {
			return nil, err
		}
		h.append(h.state(obj))
		if s.over(obj) {
			return obj, nil
		}
		if err := r.release(pods); err != nil {
			return nil, err
		}
	}
}

func (s followStep) over(obj map[string]any) bool {
	return !slices.ContainsFunc(s.conds, func(c string) bool { return !holds(obj, c) })
}

// rest waits until the controllers have done all that they can do: the counters
// are those of the pods that there are, twice in a row, and either the rollout
// is over or some pod waits to be released.
func (s followStep) rest(r *runner, url string) (map[string]any, []map[string]any, error) {
	selector := "app%3D" + url[strings.LastIndex(url, "/")+1:]
	before, why := "", ""
	for range r.target.patience {
		// The owner is read first: controllers act before they write a status.
		obj, err := r.read(url)
		if err != nil {
			return nil, nil, err
		}
		sets, err := r.listed("replicasets?labelSelector=" + selector)
		if err != nil {
			return nil, nil, err
		}
		pods, err := r.listed("pods?labelSelector=" + selector)
		if err != nil {
			return nil, nil, err
		}
		waiting := slices.DeleteFunc(slices.Clone(pods), func(p map[string]any) bool { return !gatedNow(p) })
		now := fmt.Sprint(lookup(obj, "metadata.resourceVersion"), len(pods))
		why = unrest(obj, sets, pods)
		switch {
		case why != "":
		case now == before && (s.over(obj) || len(waiting) > 0):
			return obj, waiting, nil
		case now == before:
			why = "nothing is left to become ready, and the rollout is not over"
		}
		before = now
		if err := r.target.pass(r.ctx); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, fmt.Errorf("it comes not to rest: %s", why)
}

// later lets more than a second pass. Which of two pods is the older is told by
// their creationTimestamps, of full seconds; a DaemonSet counts for a node its
// oldest pod, and among pods of one second any.
type later struct{}

func (later) do(r *runner) {
	for range 25 {
		if err := r.target.pass(r.ctx); err != nil {
			r.t.Errorf("%s: %v", r.target.name, err)
		}
	}
}

// unrest says what shows that a controller has still something to do.
func unrest(obj map[string]any, sets, pods []map[string]any) string {
	if !holds(obj, "status.observedGeneration=.metadata.generation") {
		return "the change was not seen yet"
	}
	ready := 0
	for _, p := range pods {
		switch {
		case lookup(p, "metadata.deletionTimestamp") != nil:
			return "a pod is ending"
		case lookup(p, "status.phase") == "Pending" && !bad(p):
			return "a pod has not begun"
		case isReady(p):
			ready++
		case !gatedNow(p) && !bad(p):
			return "a pod is not ready yet"
		}
	}
	for _, s := range sets {
		if !holds(s, "status.observedGeneration=.metadata.generation") || count(s, "spec.replicas") != count(s, "status.replicas") {
			return "a ReplicaSet is not served yet"
		}
	}
	fields := counters[strings.ToLower(fmt.Sprint(obj["kind"]))+"s"]
	total, ok, available := count(obj, fields[0]), count(obj, fields[2]), count(obj, fields[3])
	want := count(obj, "spec.replicas")
	if obj["kind"] == "DaemonSet" {
		want = count(obj, "status.desiredNumberScheduled")
	}
	switch {
	case ok != ready || available != ready:
		return fmt.Sprintf("%d pods are ready, and %d or %d counted", ready, ok, available)
	case obj["kind"] != "DaemonSet" && total != len(pods), obj["kind"] == "DaemonSet" && len(pods) < total:
		return fmt.Sprintf("there are %d pods, and %d are counted", len(pods), total)
	case obj["kind"] != "Deployment" && total < want && (obj["kind"] == "DaemonSet" || ready == len(pods)):
		return fmt.Sprintf("%d pods of %d", total, want) // a StatefulSet goes on when its last pod is ready
	}
	return ""
}

func count(obj map[string]any, path string) int {
	n, _ := lookup(obj, path).(json.Number)
	v, _ := n.Int64() // absent is none
	return int(v)
}

func isReady(pod map[string]any) bool {
	return lookup(pod, "status.conditions[Ready].status") == "True"
}

// bad is a pod that never gets ready, released or not.
func bad(pod map[string]any) bool {
	i, _ := lookup(pod, "spec.containers[0].image").(string)
	return strings.HasSuffix(i, "-bad")
}

// gatedNow is a pod that becomes ready when it is released.
func gatedNow(pod map[string]any) bool {
	return lookup(pod, "metadata.annotations[sim.rutter.dev/never-ready]") == "true" && !isReady(pod) && !bad(pod)
}

// release lets pods become ready.
func (r *runner) release(pods []map[string]any) error {
	const open = `{"metadata": {"annotations": {"sim.rutter.dev/never-ready": null}}}`
	for _, p := range pods {
		url, _ := r.expand("pods/" + fmt.Sprint(lookup(p, "metadata.name")))
		resp, data, err := r.send("PATCH", url, []byte(open), map[string]string{"Content-Type": "application/merge-patch+json"})
		if err != nil {
			return err
		}
		// A controller may have deleted it when another one became ready.
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotFound {
			return fmt.Errorf("PATCH %s: %d %s", url, resp.StatusCode, data)
		}
	}
	return nil
}

// read reads an object.
func (r *runner) read(url string) (map[string]any, error) {
	resp, data, err := r.send("GET", url, nil, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %d %s", url, resp.StatusCode, data)
	}
	return decode(data)
}

// listed reads the items of a list.
func (r *runner) listed(path string) ([]map[string]any, error) {
	url, _ := r.expand(path)
	obj, err := r.read(url)
	if err != nil {
		return nil, err
	}
	list, _ := obj["items"].([]any)
	var out []map[string]any
	for _, x := range list {
		m, _ := x.(map[string]any)
		out = append(out, m)
	}
	return out, nil
}

// history is the sequence of the states of an object at rest.
type history struct {
	fields []string
	states []string
	low    int
	seen   bool
	waited bool
}

func (h *history) state(obj map[string]any) string {
	var out []string
	for _, f := range h.fields {
		out = append(out, fmt.Sprint(count(obj, f)))
	}
	return strings.Join(out, "/")
}

func (h *history) append(s string) {
	if len(h.states) == 0 || h.states[len(h.states)-1] != s {
		h.states = append(h.states, s)
	}
}

// saw notes a state from a watch.
func (h *history) saw(obj any) {
	m, _ := obj.(map[string]any)
	available := count(m, h.fields[3])
	if !h.seen || available < h.low {
		h.low = available
	}
	h.seen = true
	h.waited = h.waited || count(m, h.fields[2]) > available
}

func (h *history) answer(title string) answer {
	a := answer{title: title}
	short := make([]string, len(h.fields))
	for i, f := range h.fields {
		short[i] = f[strings.LastIndex(f, ".")+1:]
	}
	a.add("least "+short[len(short)-1], fmt.Sprint(h.low))
	a.add("ready before available", fmt.Sprint(h.waited))
	a.add("at rest "+strings.Join(short, "/"), strings.Join(h.states, "  "))
	return a
}
