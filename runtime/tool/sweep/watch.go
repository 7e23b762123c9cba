package sweep

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
)

// watchFault makes what a client gets of a watch that the server has begun.
type watchFault func(body io.ReadCloser) io.ReadCloser

// watchFaults are the ways in which a watch goes wrong after it began.
var watchFaults = map[string]watchFault{
	// The connection breaks in the middle of the first event.
	"cut": func(b io.ReadCloser) io.ReadCloser { return &torn{ReadCloser: b, left: 20} },
	// The connection stands, and nothing comes any more.
	"stall": func(b io.ReadCloser) io.ReadCloser { return newMute(b) },
	// The server no longer knows the version from which to watch, and says so in
	// the stream.
	"expired": func(b io.ReadCloser) io.ReadCloser {
		return struct {
			io.Reader
			io.Closer
		}{bytes.NewReader([]byte(expiredEvent)), b}
	},
}

const expiredEvent = `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",` +
	`"message":"too old resource version: 1 (2)","reason":"Expired","code":410}}` + "\n"

// waits reports whether a request is the watch of a wait. The informers of
// libraries set their watches a time limit (client-go's reflector), which goes by
// the machine's clock: what becomes of these is the library's to test.
func waits(r *http.Request) bool {
	q := r.URL.Query()
	return q.Get("watch") == "true" && !q.Has("timeoutSeconds")
}

// watch begins a watch, which may go wrong.
func (p *process) watch(r *http.Request, next http.RoundTripper) (*http.Response, error) {
	p.watches++
	resp, err := next.RoundTrip(r)
	if err == nil && p.watches == p.plan.cutAt {
		p.struck = r.Method + " " + r.URL.RequestURI()
		resp.Body = p.plan.watchFault(resp.Body)
	}
	return resp, err
}

// torn ends before its end.
type torn struct {
	io.ReadCloser
	left int
}

// Read implements io.Reader.
func (t *torn) Read(b []byte) (int, error) {
	if t.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := t.ReadCloser.Read(b[:min(len(b), t.left)])
	t.left -= n
	return n, err
}

// mute says nothing until it is closed. What it hides is read all the same, as
// the machine at the other end of a silent connection would.
type mute struct {
	io.ReadCloser
	closed chan struct{}
}

func newMute(b io.ReadCloser) *mute {
	go io.Copy(io.Discard, b) //nolint:errcheck // it ends when b is closed
	return &mute{ReadCloser: b, closed: make(chan struct{})}
}

// Read implements io.Reader.
func (m *mute) Read([]byte) (int, error) {
	<-m.closed
	return 0, io.ErrClosedPipe
}

// Close implements io.Closer. It is called once, by client-go's decoder.
func (m *mute) Close() error {
	close(m.closed)
	return m.ReadCloser.Close()
}

// watches counts those of the undisturbed run.
func watches(s *Subject) (int, error) {
	w := newWorld(s)
	p, err := w.start(plan{watching: true})
	if err != nil {
		return 0, fmt.Errorf("%s: the undisturbed run, watching: %w", s.Name, err)
	}
	return p.watches, nil
}
