package gate

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Calendar is when changes may be made: in one of the windows, at any time
// where there is none, and never in a freeze.
type Calendar struct {
	Windows []Window
	Freezes []Freeze
	// Warn is how long before its end a window is said to close.
	Warn time.Duration
}

// Window is a span of hours that comes every week. It opens when the clock of
// its zone first shows From on one of its days, and closes when that first
// shows To: of the same day, or of the next where To is not after From. Where
// a clock is put forward over one of them, the instant of that counts.
type Window struct {
	Days     []time.Weekday // none: every day
	From, To ClockTime
	Zone     *time.Location
}

// ClockTime is minutes after midnight; 24:00 is 1440.
type ClockTime int

// String is the time as "22:00".
func (c ClockTime) String() string { return fmt.Sprintf("%02d:%02d", c/60, c%60) }

// Freeze is a span in which nothing is changed: From until before To.
type Freeze struct {
	From, To time.Time
	Reason   string
}

// Opening is whether a change may begin at some time, and until when.
type Opening struct {
	Open bool
	// Until is when an open calendar closes; zero where that is not in sight
	// (see horizon).
	Until time.Time
	// Next is when a closed one opens; zero where that is not in sight.
	Next time.Time
	// Freeze is the one that holds, if the time is in one.
	Freeze *Freeze
	// Zone is that of the window by which it is open or opens next; UTC without.
	Zone *time.Location
}

// How far ahead a calendar is looked at: for the end of what is open, and in
// turn for when it opens.
var horizons = []time.Duration{9 * day, 60 * day, 400 * day}

const day = 24 * time.Hour

// span is from start until before end.
type span struct {
	start, end time.Time
	zone       *time.Location
}

// Any reports whether the calendar says anything at all.
func (c *Calendar) Any() bool { return len(c.Windows)+len(c.Freezes) > 0 }

// At is how the calendar stands at t.
func (c *Calendar) At(t time.Time) Opening {
	o := Opening{Freeze: c.frozen(t), Zone: time.UTC}
	for i, h := range horizons {
		for _, s := range c.spans(t.Add(-2*day), t.Add(h)) {
			switch {
			case !s.end.After(t):
			case !s.start.After(t):
				o.Open, o.Zone = true, s.zone
				if s.end.Before(t.Add(h)) {
					o.Until = s.end
				}
				return o
			default:
				o.Next, o.Zone = s.start, s.zone
				return o
			}
		}
		if i == 0 && len(c.Windows) == 0 && o.Freeze == nil {
			break
		}
	}
	return o
}

func (c *Calendar) frozen(t time.Time) *Freeze {
	for i, f := range c.Freezes {
		if !t.Before(f.From) && t.Before(f.To) {
			return &c.Freezes[i]
		}
	}
	return nil
}

// spans are the times between from and to at which it is open, in order, apart
// from one another; the first and last may go beyond.
func (c *Calendar) spans(from, to time.Time) []span {
	var all []span
	if len(c.Windows) == 0 {
		all = []span{{from, to, time.UTC}}
	}
	for i := range c.Windows {
		all = append(all, c.Windows[i].spans(from, to)...)
	}
	slices.SortStableFunc(all, func(a, b span) int { return a.start.Compare(b.start) })
	var out []span
	for _, s := range all {
		if n := len(out); n > 0 && !s.start.After(out[n-1].end) {
			if s.end.After(out[n-1].end) {
				out[n-1].end = s.end
			}
			continue
		}
		out = append(out, s)
	}
	for _, f := range c.Freezes {
		out = without(out, f)
	}
	return out
}

// without cuts a freeze out of spans.
func without(spans []span, f Freeze) []span {
	var out []span
	for _, s := range spans {
		if !f.To.After(s.start) || !f.From.Before(s.end) {
			out = append(out, s)
			continue
		}
		if s.start.Before(f.From) {
			out = append(out, span{s.start, f.From, s.zone})
		}
		if f.To.Before(s.end) {
			out = append(out, span{f.To, s.end, s.zone})
		}
	}
	return out
}

// spans are the window's own, of every day between from and to.
func (w *Window) spans(from, to time.Time) []span {
	var out []span
	for y, m, d := from.In(w.Zone).AddDate(0, 0, -1).Date(); ; d++ {
		wall := time.Date(y, m, d, 0, 0, 0, 0, time.UTC) // d may lie beyond the month
		if wall.After(to.Add(day)) {
			return out
		}
		if len(w.Days) > 0 && !contains(w.Days, wall.Weekday()) {
			continue
		}
		end := wall
		if w.To <= w.From {
			end = wall.AddDate(0, 0, 1)
		}
		s := span{w.instant(wall, w.From), w.instant(end, w.To), w.Zone}
		if s.start.Before(s.end) { // else the clock was put forward over all of it
			out = append(out, s)
		}
	}
}

// instant is when the clock of the window's zone first shows c, or something
// later, on the day that wall is.
func (w *Window) instant(wall time.Time, c ClockTime) time.Time {
	wall = wall.Add(time.Duration(c) * time.Minute)
	_, before := wall.Add(-day).In(w.Zone).Zone()
	_, after := wall.Add(day).In(w.Zone).Zone()
	early := wall.Add(-time.Duration(max(before, after)) * time.Second)
	late := wall.Add(-time.Duration(min(before, after)) * time.Second)
	for _, t := range []time.Time{early, late} {
		if _, off := t.In(w.Zone).Zone(); t.Add(time.Duration(off) * time.Second).Equal(wall) {
			return t
		}
	}
	// The clock never shows it: it is put forward over it.
	start, _ := late.In(w.Zone).ZoneBounds()
	return start
}

// Overlaps are the pairs of windows of which both are open at some time of the
// year that begins at t.
func (c *Calendar) Overlaps(t time.Time) [][2]int {
	spans := make([][]span, len(c.Windows))
	for i := range c.Windows {
		spans[i] = c.Windows[i].spans(t, t.AddDate(1, 0, 0))
	}
	var out [][2]int
	for i := range spans {
		for j := i + 1; j < len(spans); j++ {
			if meet(spans[i], spans[j]) {
				out = append(out, [2]int{i, j})
			}
		}
	}
	return out
}

// meet reports whether any of a and b, both in order, have time in common.
func meet(a, b []span) bool {
	for len(a) > 0 && len(b) > 0 {
		switch {
		case !a[0].end.After(b[0].start):
			a = a[1:]
		case !b[0].end.After(a[0].start):
			b = b[1:]
		default:
			return true
		}
	}
	return false
}

// String is the window in words: "Mon, Tue 22:00–04:00 Europe/Berlin".
func (w Window) String() string {
	days := "every day"
	if len(w.Days) > 0 {
		names := make([]string, len(w.Days))
		for i, d := range w.Days {
			names[i] = d.String()[:3]
		}
		days = strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s %s–%s %s", days, w.From, w.To, w.Zone)
}

// When is a time as a person in zone reads it.
func When(t time.Time, zone *time.Location) string {
	return t.In(zone).Format("Mon 2006-01-02 15:04 ") + zone.String()
}
