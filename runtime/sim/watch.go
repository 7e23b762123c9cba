package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// watcher is one open watch. The cluster offers it every change; the request's
// goroutine filters and writes them, away from the cluster's lock.
type watcher struct {
	filter    filter
	bookmarks bool
	feed      *feed // to a reader in this process; else nil

	mu     sync.Mutex
	queue  []change
	busy   bool   // what was taken from the queue is being written
	mark   uint64 // version of a bookmark that is due, after the queue
	closed bool
	ready  chan struct{}
}

func newWatcher(f filter, bookmarks bool) *watcher {
	return &watcher{filter: f, bookmarks: bookmarks, ready: make(chan struct{}, 1)}
}

func (w *watcher) offer(ch change) {
	if ch.key.gr != w.filter.gr || (w.filter.namespace != "" && w.filter.namespace != ch.key.namespace) {
		return
	}
	w.mu.Lock()
	w.queue = append(w.queue, ch)
	w.mu.Unlock()
	w.wake()
}

// offerBookmark tells the watcher that it knows everything up to rv.
func (w *watcher) offerBookmark(rv uint64) {
	if !w.bookmarks {
		return
	}
	w.mu.Lock()
	w.mark = rv
	w.mu.Unlock()
	w.wake()
}

func (w *watcher) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.wake()
}

func (w *watcher) wake() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

func (w *watcher) take() (queue []change, mark uint64, closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	queue, mark = w.queue, w.mark
	w.queue, w.mark = nil, 0
	w.busy = len(queue) > 0 || mark > 0
	return queue, mark, w.closed
}

// heard reports whether a reader in this process has got all that was offered.
func (w *watcher) heard() bool {
	if w.feed == nil {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed || len(w.queue) == 0 && w.mark == 0 && !w.busy && w.feed.heard()
}

// written says that all that was taken has been written.
func (w *watcher) written() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy = false
}

// serveWatch answers a watch: a stream of events, one JSON document a line.
func (c *Cluster) serveWatch(rw http.ResponseWriter, r *http.Request, q *query) error {
	opts := q.list
	opts.Watch = true
	if err := validListOptions(opts); err != nil {
		return err
	}
	f, err := q.filter()
	if err != nil {
		return err
	}
	initialEvents := opts.SendInitialEvents != nil && *opts.SendInitialEvents
	w := newWatcher(f, opts.AllowWatchBookmarks)
	if s, ok := rw.(*streamed); ok {
		w.feed = s.feed
	}
	c.mu.Lock()
	initial, err := c.startWatch(w, opts)
	rv := c.st.rv
	c.mu.Unlock()
	expired := apierrors.IsResourceExpired(err)
	if err != nil && !expired {
		return err
	}
	defer func() {
		c.mu.Lock()
		delete(c.watchers, w)
		c.mu.Unlock()
	}()
	rw.Header().Set("Content-Type", q.watchContentType())
	rw.WriteHeader(http.StatusOK)
	s := &eventStream{c: c, w: rw, q: q, filter: f, rv: rv}
	if expired { // the real server opens the stream before it finds out
		s.fail(err)
		return nil
	}
	for _, e := range initial {
		s.send("ADDED", e)
	}
	if initialEvents && opts.AllowWatchBookmarks {
		s.bookmark(true)
	}
	s.flush()
	return s.run(r, w, opts)
}

// startWatch registers the watcher and returns what it has to be told first:
// nothing when it starts after a known resourceVersion, whose later changes
// are queued instead.
func (c *Cluster) startWatch(w *watcher, o metav1.ListOptions) ([]*entry, error) {
	var initial []*entry
	from := o.ResourceVersion
	switch {
	case o.SendInitialEvents != nil && *o.SendInitialEvents:
		initial = c.selectEntries(w.filter)
	case (from == "" || from == "0") && o.SendInitialEvents == nil:
		initial = c.selectEntries(w.filter)
	case from != "" && from != "0":
		rv, err := strconv.ParseUint(from, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("resourceVersion: Invalid value: %q: %w", from, err)
		}
		floor := max(c.st.floor, c.watchFloor)
		changes, ok := c.st.since(rv)
		ok = ok && rv >= floor
		if !ok {
			return nil, apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", rv, floor))
		}
		for _, ch := range changes {
			w.offer(ch)
		}
	}
	c.watchers[w] = true
	return initial, nil
}

// eventStream writes watch events.
type eventStream struct {
	c      *Cluster
	w      http.ResponseWriter
	q      *query
	filter filter
	rv     uint64
	err    error
}

func (s *eventStream) run(r *http.Request, w *watcher, opts metav1.ListOptions) error {
	var timeout <-chan time.Time
	if opts.TimeoutSeconds != nil && *opts.TimeoutSeconds > 0 {
		t := time.NewTimer(time.Duration(*opts.TimeoutSeconds) * time.Second)
		defer t.Stop()
		timeout = t.C
	}
	for {
		changes, mark, closed := w.take()
		for _, ch := range changes {
			s.change(ch)
		}
		if s.rv = max(s.rv, mark); mark > 0 {
			s.bookmark(false)
		}
		if len(changes) > 0 || mark > 0 {
			s.flush()
		}
		w.written()
		if s.err != nil || closed {
			return nil //nolint:nilerr // the client is gone; there is nobody to tell
		}
		select {
		case <-w.ready:
		case <-timeout:
			if opts.AllowWatchBookmarks {
				s.bookmark(false)
				s.flush()
			}
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
}

// change sends what a change means to this watch: an object that leaves the
// selection is deleted for it, one that enters is added.
func (s *eventStream) change(ch change) {
	s.rv = max(s.rv, ch.rv)
	was := ch.prev != nil && s.filter.matches(ch.prev)
	is := !ch.removed && s.filter.matches(ch.next)
	switch {
	case is && !was:
		s.send("ADDED", ch.next)
	case is:
		s.send("MODIFIED", ch.next)
	case was && ch.removed:
		s.send("DELETED", ch.next)
	case was:
		gone := shallow(ch.prev.obj)
		gone.SetResourceVersion(strconv.FormatUint(ch.rv, 10))
		s.send("DELETED", &entry{obj: gone, rv: ch.rv})
	}
}

func (s *eventStream) send(typ string, e *entry) {
	if s.err != nil {
		return
	}
	data, err := s.q.render(s.c, e)
	if err != nil {
		s.err = err
		return
	}
	s.write(typ, data)
}

func (s *eventStream) write(typ string, data []byte) {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"type":%q,"object":`, typ)
	b.Write(bytes.TrimSpace(data))
	b.WriteString("}\n")
	_, s.err = s.w.Write(b.Bytes())
}

func (s *eventStream) bookmark(initialEnd bool) {
	meta := map[string]any{"resourceVersion": strconv.FormatUint(s.rv, 10)}
	if initialEnd {
		meta["annotations"] = map[string]any{metav1.InitialEventsAnnotationKey: "true"}
	}
	gvk := s.q.res.gvk(s.q.version)
	if s.q.format != formatObject {
		gvk = metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata")
	}
	data, err := json.Marshal(map[string]any{"kind": gvk.Kind, "apiVersion": gvk.GroupVersion().String(), "metadata": meta})
	if err != nil {
		s.err = err
		return
	}
	s.write("BOOKMARK", data)
}

// fail ends the stream with an error.
func (s *eventStream) fail(err error) {
	data, merr := json.Marshal(statusOf(err))
	if merr != nil {
		s.err = merr
		return
	}
	s.write("ERROR", data)
	s.flush()
}

func (s *eventStream) flush() {
	if f, ok := s.w.(http.Flusher); ok {
		f.Flush()
	}
}
