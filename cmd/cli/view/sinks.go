package view

import (
	"encoding/json"
	"io"
	"strings"

	"rutter.dev/rutter/runtime/event"
)

// Plain renders events as lines that only ever follow one another.
type Plain struct {
	w   io.Writer
	l   *lines
	err error
}

// NewPlain is a plain view on w.
func NewPlain(w io.Writer, o Options) *Plain { return &Plain{w: w, l: newLines(o)} }

// Emit implements event.Sink.
func (p *Plain) Emit(e event.Event) {
	out := p.l.render(e)
	if b, ok := e.Body.(*event.Progress); ok {
		out = p.l.progress(e, b)
	}
	p.err = write(p.w, p.l.palette, out, p.err)
}

// Err is the first error of the stream. A run goes on without its view (the
// journal has everything), but the command should say that it was cut short.
func (p *Plain) Err() error { return p.err }

// write prints lines, unless an earlier write failed.
func write(w io.Writer, p *palette, out []string, earlier error) error {
	if earlier != nil || len(out) == 0 {
		return earlier
	}
	var b strings.Builder
	for _, s := range out {
		b.WriteString(strings.TrimRight(p.text(s), " "))
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// JSON renders every event as one line of JSON.
type JSON struct {
	enc *json.Encoder
	err error
}

// NewJSON is a JSON stream on w.
func NewJSON(w io.Writer) *JSON {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return &JSON{enc: enc}
}

// Emit implements event.Sink.
func (j *JSON) Emit(e event.Event) {
	if j.err == nil {
		j.err = j.enc.Encode(e)
	}
}

// Err is the first error of the stream.
func (j *JSON) Err() error { return j.err }

// Sink is a view with its stream's error.
type Sink interface {
	event.Sink
	Err() error
}

// New is the view for a stream: live where o says that it can be, else plain.
func New(w io.Writer, o Options) Sink {
	if o.Live && o.Width >= minLive {
		return NewLive(w, o)
	}
	return NewPlain(w, o)
}
