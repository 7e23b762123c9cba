package requests

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// eventPatience bounds the wait for a watch's next event, in real time.
const eventPatience = 20 * time.Second

// watching is an open watch, read by a goroutine of its own.
type watching struct {
	body   io.ReadCloser
	events chan map[string]any // closed at the end of the stream
}

// watch opens a watch under a name; its answer is recorded when it is refused.
func watch(name, path string) step { return watchStep{name, path} }

type watchStep struct{ name, path string }

func (s watchStep) do(r *runner) {
	url, _ := r.expand(s.path)
	if !strings.Contains(url, "watch=") {
		sep := "?"
		if strings.Contains(url, "?") {
			sep = "&"
		}
		url += sep + "watch=true"
	}
	resp, err := r.begin(r.ctx, "GET", url, nil, nil)
	if err != nil {
		r.t.Errorf("%s: watch %s: %v", r.target.name, url, err)
		return
	}
	r.sent++
	a := answer{title: "WATCH " + s.path}
	a.add("http", fmt.Sprint(resp.StatusCode))
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close() //nolint:errcheck // read to its end
		obj := map[string]any{}
		if err := json.NewDecoder(resp.Body).Decode(&obj); err != nil {
			r.t.Errorf("%s: watch %s: %v", r.target.name, url, err)
		}
		r.names.object(&a, obj, nil)
		r.answers = append(r.answers, a)
		return
	}
	r.answers = append(r.answers, a)
	w := &watching{body: resp.Body, events: make(chan map[string]any, 4096)}
	r.watches[s.name] = w
	go w.read()
}

func (w *watching) read() {
	defer close(w.events)
	for in := bufio.NewReader(w.body); ; {
		text, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		e, err := decode(text)
		if err != nil {
			return
		}
		e["seen"] = time.Now()
		w.events <- e
	}
}

// next is the watch's next event; nil at its end.
func (w *watching) next(ctx context.Context) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(ctx, eventPatience)
	defer cancel()
	select {
	case e := <-w.events:
		return e, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// events records what a watch tells up to and with the event about the named
// object; with no name, up to the end of the stream.
func events(watch, last string) step { return eventsStep{watch, last} }

type eventsStep struct{ watch, last string }

func (s eventsStep) do(r *runner) {
	w := r.watches[s.watch]
	if w == nil {
		r.t.Errorf("%s: there is no watch %s", r.target.name, s.watch)
		return
	}
	a := answer{title: "EVENTS " + s.watch}
	for i := 0; ; i++ {
		e, err := w.next(r.ctx)
		if err != nil {
			r.t.Errorf("%s: watch %s, event %d: %v; before it %v", r.target.name, s.watch, i, err, a.lines)
			break
		}
		if e == nil {
			a.add(fmt.Sprintf("event[%d]", i), "end of the watch")
			break
		}
		obj, _ := e["object"].(map[string]any)
		r.names.study(obj)
		name := fmt.Sprint(lookup(obj, "metadata.name"))
		prefix := fmt.Sprintf("event[%d]", i)
		a.add(prefix, strings.TrimSpace(fmt.Sprint(e["type"], " ", r.names.text(name))))
		r.names.delta(&a, prefix, obj)
		if s.last != "" && name == r.fill(s.last) {
			break
		}
	}
	r.answers = append(r.answers, a)
}

// follow lets a change play out: it waits until the object meets the
// conditions, and records which states lasted, of the fields named, the most
// that the first of them ever was, and the least that the last was: the bounds
// that maxSurge and maxUnavailable set.
func follow(path string, fields []string, conds ...string) step {
	return followStep{path, fields, conds}
}

type followStep struct {
	path   string
	fields []string
	conds  []string
}

// sighting is a state and when it was first seen.
type sighting struct {
	state string
	at    time.Time
}

func (s followStep) do(r *runner) {
	url, k := r.expand(s.path)
	plural, name, _ := strings.Cut(s.path, "/")
	list, _ := r.expand(plural)
	from, ok := r.kept["rv "+s.path]
	if !ok {
		r.t.Errorf("%s: %s was never answered before it was followed", r.target.name, s.path)
		return
	}
	resp, err := r.begin(r.ctx, "GET", list+"?watch=true&fieldSelector=metadata.name%3D"+name+"&resourceVersion="+from, nil, nil)
	if err != nil {
		r.t.Errorf("%s: %s: %v", r.target.name, s.path, err)
		return
	}
	w := &watching{body: resp.Body, events: make(chan map[string]any, 4096)}
	defer w.body.Close() //nolint:errcheck // it has told all that matters
	go w.read()
	h := newHistory(r.target.long, s.fields)
	final := ""
	err = r.await(url, func(_ int, obj map[string]any) bool {
		if r.target.long == 0 {
			h.lasting(obj)
		}
		done := true
		for _, c := range s.conds {
			done = done && holds(obj, c)
		}
		final, _ = lookup(obj, "metadata.resourceVersion").(string)
		r.keep(&request{}, k, obj)
		return done
	})
	if err != nil {
		r.t.Errorf("%s: %v; so far %v", r.target.name, err, h.states)
		return
	}
	for {
		e, err := w.next(r.ctx)
		if err != nil || e == nil {
			r.t.Errorf("%s: watch of %s ended early: %v", r.target.name, s.path, err)
			return
		}
		at, _ := e["seen"].(time.Time)
		h.saw(e["object"], at)
		if lookup(e, "object.metadata.resourceVersion") == final {
			break
		}
	}
	r.sent++
	r.answers = append(r.answers, h.answer("FOLLOW "+s.path+" "+strings.Join(s.conds, " ")))
}

// history is the sequence of the states of an object that lasted.
type history struct {
	long   time.Duration
	fields []string
	states []string
	seen   []sighting
	low    map[string]int64
	high   map[string]int64
}

func newHistory(long time.Duration, fields []string) *history {
	return &history{long: long, fields: fields, low: map[string]int64{}, high: map[string]int64{}}
}

func (h *history) state(obj any) string {
	var out []string
	for _, f := range h.fields {
		v := lookup(obj, f)
		if v == nil {
			v = 0
		}
		out = append(out, fmt.Sprint(v))
	}
	return strings.Join(out, "/")
}

// lasting adds a state that lasted.
func (h *history) lasting(obj any) { h.append(h.state(obj)) }

func (h *history) append(s string) {
	if len(h.states) == 0 || h.states[len(h.states)-1] != s {
		h.states = append(h.states, s)
	}
}

// saw notes a state from a watch: for the bounds, and on a real server for the
// sequence.
func (h *history) saw(obj any, at time.Time) {
	for _, f := range h.fields {
		n, _ := lookup(obj, f).(json.Number)
		v, err := n.Int64()
		if n != "" && err != nil {
			continue
		}
		if old, ok := h.low[f]; !ok || v < old {
			h.low[f] = v
		}
		h.high[f] = max(h.high[f], v)
	}
	h.seen = append(h.seen, sighting{h.state(obj), at})
}

func (h *history) answer(title string) answer {
	a := answer{title: title}
	if h.long > 0 {
		for i, s := range h.seen {
			if i == len(h.seen)-1 || h.seen[i+1].at.Sub(s.at) >= h.long {
				h.append(s.state)
			}
		}
	}
	short := make([]string, len(h.fields))
	for i, f := range h.fields {
		short[i] = f[strings.LastIndex(f, ".")+1:]
	}
	first, last := h.fields[0], h.fields[len(h.fields)-1]
	a.add("most "+short[0], fmt.Sprint(h.high[first]))
	a.add("least "+short[len(short)-1], fmt.Sprint(h.low[last]))
	a.add("lasting "+strings.Join(short, "/"), strings.Join(h.states, "  "))
	return a
}
