package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // zones are the same on every machine, and there where it has none

	"go.yaml.in/yaml/v3"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/value"
)

const (
	mappingNode  = yaml.MappingNode
	sequenceNode = yaml.SequenceNode
)

func parseDuration(s string) (time.Duration, error) { return value.ParseDuration(s) }

// zone is a name of the IANA time zone database.
func (d *document) zone(n *node) *time.Location {
	const expect = "a name such as Europe/Berlin or UTC"
	s := d.text(n, expect)
	if s == "" {
		return nil
	}
	loc, err := time.LoadLocation(s)
	if err != nil || s == "Local" {
		d.fail(n, fmt.Sprintf("there is no time zone %q", s), expect)
		return nil
	}
	return loc
}

func (d *document) windows(n *node, zone *time.Location) []gate.Window {
	var out []gate.Window
	var at []*node
	d.list(n, func(c *node) {
		w := gate.Window{Zone: zone}
		errs := len(d.errs)
		d.mapping(
			c,
			key{"days", false, func(n *node) { w.Days = d.days(n) }},
			key{"from", true, func(n *node) { w.From = d.clock(n, false) }},
			key{"to", true, func(n *node) { w.To = d.clock(n, true) }},
			key{"zone", false, func(n *node) { w.Zone = d.zone(n) }},
		)
		switch {
		case len(d.errs) > errs || c.Kind != yaml.MappingNode:
			return
		case w.Zone == nil:
			d.fail(c, "does not say in which time zone", "zone: Europe/Berlin here, or for the whole file")
			return
		case w.From == w.To:
			d.fail(c, fmt.Sprintf("opens and closes at %s", w.From), `two times; a whole day is from: "00:00", to: "24:00"`)
			return
		}
		out, at = append(out, w), append(at, c)
	})
	c := gate.Calendar{Windows: out}
	for _, p := range c.Overlaps(reference) {
		d.fail(at[p[1]], fmt.Sprintf("%s overlaps %s of line %d", out[p[1]], out[p[0]], at[p[0]].Line), "windows that have no time in common")
	}
	return out
}

// reference is the beginning of the year for which windows are compared: the
// same for every reader of a file, and with the changes of clocks of a year.
var reference = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

var weekdays = []string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}

// days are names of weekdays, or spans of them such as Mon-Fri.
func (d *document) days(n *node) []time.Weekday {
	expect := "days such as Mon, or spans such as Mon-Fri"
	var out []time.Weekday
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		d.fail(n, "names no day", expect)
	}
	d.list(n, func(c *node) {
		first, last, span := strings.Cut(d.text(c, expect), "-")
		if first == "" {
			return
		}
		from, to := d.weekday(c, first), -1
		if span {
			to = d.weekday(c, last)
		} else {
			to = from
		}
		if from < 0 || to < 0 {
			return
		}
		for i := from; ; i = (i + 1) % 7 {
			day := time.Weekday((i + 1) % 7)
			if slices.Contains(out, day) {
				d.fail(c, fmt.Sprintf("%s comes twice", weekdays[i]), "each day once")
			}
			out = append(out, day)
			if i == to {
				return
			}
		}
	})
	return out
}

// weekday is the place of a day in the week, or -1.
func (d *document) weekday(n *node, s string) int {
	s = strings.TrimSpace(s)
	for i, name := range weekdays {
		full := time.Weekday((i + 1) % 7).String()
		if strings.EqualFold(s, name) || strings.EqualFold(s, full) {
			return i
		}
	}
	problem := fmt.Sprintf("%q is no day", s)
	if near := diag.Nearest(s, weekdays); near != "" {
		problem += fmt.Sprintf("; did you mean %s?", near)
	}
	d.fail(n, problem, strings.Join(weekdays, ", "))
	return -1
}

// clock is a time of day.
func (d *document) clock(n *node, end bool) gate.ClockTime {
	const expect = `a time such as "22:00"`
	s := d.text(n, expect)
	if s == "" {
		return 0
	}
	if end && s == "24:00" {
		return 24 * 60
	}
	t, err := time.Parse("15:04", s)
	if err != nil {
		d.fail(n, fmt.Sprintf("%q is no time of day", s), expect)
		return 0
	}
	return gate.ClockTime(t.Hour()*60 + t.Minute())
}

func (d *document) freezes(n *node, zone *time.Location) []gate.Freeze {
	var out []gate.Freeze
	var at []*node
	d.list(n, func(c *node) {
		f := gate.Freeze{}
		own := zone
		var from, to *node
		errs := len(d.errs)
		d.mapping(
			c,
			key{"from", true, func(n *node) { from = n }},
			key{"to", true, func(n *node) { to = n }},
			key{"zone", false, func(n *node) { own = d.zone(n) }},
			key{"reason", true, func(n *node) { f.Reason = d.text(n, "why nothing is changed then") }},
		)
		if len(d.errs) > errs || from == nil || to == nil {
			return
		}
		f.From, f.To = d.instant(from, own, false), d.instant(to, own, true)
		switch {
		case f.From.IsZero() || f.To.IsZero():
			return
		case !f.From.Before(f.To):
			d.fail(c, "ends before it begins", "to after from")
			return
		}
		for i, o := range out {
			if f.From.Before(o.To) && o.From.Before(f.To) {
				d.fail(c, fmt.Sprintf("overlaps the freeze of line %d", at[i].Line), "freezes that have no time in common")
			}
		}
		out, at = append(out, f), append(at, c)
	})
	return out
}

const instantForm = "a time such as 2026-12-18, 2026-12-18 18:00 or 2026-12-18T18:00:00+01:00"

// instant is a point in time; see parseInstant. It may have no zone only where
// it has an offset.
func (d *document) instant(n *node, zone *time.Location, ends bool) time.Time {
	s := d.text(n, instantForm)
	if s == "" {
		return time.Time{}
	}
	t, err := parseInstant(s, zone, ends)
	switch {
	case errors.Is(err, errNoZone):
		d.fail(n, err.Error(), "zone: Europe/Berlin here or for the whole file, or an offset")
	case err != nil:
		d.fail(n, err.Error(), instantForm)
	}
	return t
}

var errNoZone = errors.New("is in no time zone")

// parseInstant reads a time: with its offset, or in a zone; a day alone is its
// beginning or, where it ends something, the end of it.
func parseInstant(s string, zone *time.Location, ends bool) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	t, err := time.Parse("2006-01-02", s)
	if err == nil && ends {
		t = t.AddDate(0, 0, 1)
	}
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02T15:04:05"} {
		if err != nil {
			t, err = time.Parse(layout, s)
		}
	}
	switch {
	case err != nil:
		return time.Time{}, fmt.Errorf("%q is no time", s)
	case zone == nil:
		return time.Time{}, fmt.Errorf("%s %w", s, errNoZone)
	}
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, zone), nil
}
