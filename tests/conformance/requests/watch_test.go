package requests

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// next is the watch's next event; nil at its end. Bookmarks of progress are
// passed over: the real server sends them by its own clock, so between which
// events they come says nothing of it.
func (w *watching) next(ctx context.Context) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(ctx, eventPatience)
	defer cancel()
	for {
		select {
		case e := <-w.events:
			if !ofProgress(e) {
				return e, nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// ofProgress says whether an event is a bookmark other than the one that ends
// the initial events, which has a place of its own.
func ofProgress(event map[string]any) bool {
	if event["type"] != "BOOKMARK" {
		return false
	}
	obj, _ := event["object"].(map[string]any)
	annotations, _ := lookup(obj, "metadata.annotations").(map[string]any)
	return annotations[metav1.InitialEventsAnnotationKey] == nil
}

// TestBookmarksOfProgress: a server that sends bookmarks among the events is
// recorded as one that sends none, but for the one that ends the initial events.
func TestBookmarksOfProgress(t *testing.T) {
	stream := `{"type":"ADDED","object":{"metadata":{"name":"a"}}}
{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}
{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7","annotations":{"k8s.io/initial-events-end":"true"}}}}
{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"8","annotations":{}}}}
{"type":"ADDED","object":{"metadata":{"name":"end"}}}
`
	w := &watching{body: io.NopCloser(strings.NewReader(stream)), events: make(chan map[string]any, 10)}
	w.read()
	var got []string
	for {
		e, err := w.next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if e == nil {
			break
		}
		got = append(got, fmt.Sprint(e["type"]))
	}
	if want := []string{"ADDED", "BOOKMARK", "ADDED"}; !slices.Equal(got, want) {
		t.Errorf("the events are %v; want %v", got, want)
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
