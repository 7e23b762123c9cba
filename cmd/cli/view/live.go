package view

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"rutter.dev/rutter/runtime/event"
)

// minLive is the fewest columns that the live view makes sense in.
const minLive = 40

// Live is the view for a terminal: finished lines scroll by as in the plain
// view, and below them the steps that are under way are redrawn in place, with
// their age and a bar for the wait or wave. Not safe for concurrent use; wrap
// with event.Serial when Tick comes from elsewhere.
type Live struct {
	w     io.Writer
	l     *lines
	open  []*active
	drawn int // lines of the region on the screen
	now   time.Time
	// asking: a person is typing below; nothing may be redrawn.
	asking bool
	err    error
}

type active struct {
	path, name string
	depth      int
	since      time.Time
	progress   *event.Progress
}

// NewLive is a live view on w, which must be a terminal of o.Width columns.
func NewLive(w io.Writer, o Options) *Live { return &Live{w: w, l: newLines(o)} }

// Err is the first error of the stream.
func (v *Live) Err() error { return v.err }

// Tick redraws the region at the time now.
func (v *Live) Tick(now time.Time) {
	v.now = now
	v.flush(nil)
}

// Emit implements event.Sink.
func (v *Live) Emit(e event.Event) {
	v.now = e.Time
	switch b := e.Body.(type) {
	case *event.StepStarted:
		v.open = append(v.open, &active{path: e.Step, name: b.Name, depth: b.Depth, since: e.Time})
	case *event.StepEnded:
		v.close(e.Step)
	case *event.Progress:
		if a := v.find(e.Step); a != nil {
			p := *b
			a.progress = &p
		}
	case *event.ApprovalAsked:
		v.asking = true
	case *event.ApprovalAnswered:
		v.asking = false
	case *event.RunEnded:
		v.open = nil
	}
	v.flush(v.l.render(e))
}

func (v *Live) find(path string) *active {
	for _, a := range v.open {
		if a.path == path {
			return a
		}
	}
	return nil
}

func (v *Live) close(path string) {
	for i, a := range v.open {
		if a.path == path {
			v.open = append(v.open[:i:i], v.open[i+1:]...)
			return
		}
	}
}

// flush wipes the region, prints what stays, and draws the region again, all
// in one write so that it doesn't flicker.
func (v *Live) flush(stay []string) {
	if v.err != nil {
		return
	}
	var b strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r\x1b[J", v.drawn)
	}
	for _, s := range stay {
		b.WriteString(strings.TrimRight(v.l.text(s), " ") + "\n")
	}
	region := v.region()
	for _, s := range region {
		b.WriteString(s + "\n")
	}
	v.drawn = len(region)
	_, v.err = io.WriteString(v.w, b.String())
}

func (v *Live) region() []string {
	if v.asking {
		return nil
	}
	var out []string
	for _, a := range v.open {
		in := strings.Repeat("  ", a.depth)
		text := in + "⋯ " + fields(event.CleanLine(a.name), duration(v.now.Sub(a.since)))
		if a.progress == nil {
			out = append(out, v.l.info.Sprint(v.cut(text)))
			continue
		}
		out = append(out, v.l.info.Sprint(v.cut(text+"  "+bar(a.progress)+event.CleanLine(a.progress.Message))))
	}
	return out
}

// bar is a progress bar with its numbers and a space behind, or nothing where
// the total is not known.
func bar(p *event.Progress) string {
	const cells = 16
	if p.Total <= 0 {
		return ""
	}
	full := min(max(cells*p.Done/p.Total, 0), cells)
	return strings.Repeat("█", full) + strings.Repeat("░", cells-full) + " " + ratio(p) + "  "
}

// cut shortens s to the terminal's width: a wrapped line would break the
// counting of lines to go up. One column stays free, since some terminals wrap
// when the last one is filled.
func (v *Live) cut(s string) string {
	s = v.l.text(s)
	room := v.l.o.Width - 1
	if utf8.RuneCountInString(s) <= room {
		return s
	}
	r := []rune(s)
	return string(r[:max(room-3, 0)]) + "..."
}
