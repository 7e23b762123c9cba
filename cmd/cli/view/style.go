// Package view shows a run to a person or a program: sinks that render the
// engine's events as plain lines, as a live step tree or as JSON lines, and the
// layout of errors. Nothing here changes global state; colour is switched per
// view.
package view

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fatih/color"

	"rutter.dev/rutter/runtime/env"
)

// Options say how a view looks. The zero value is plain text in Unicode
// without colour and durations, which is the form of golden transcripts.
type Options struct {
	Color     bool
	ASCII     bool
	Durations bool
	// DiffLines is how many lines of one object's diff are shown; 0 means all.
	DiffLines int
	// Live: the stream is a terminal that can move its cursor.
	Live bool
	// Width is the number of columns; 0 means that lines are never wrapped or cut.
	Width int
	// Runs says what a command needs to find this command's runs again, such as
	// "--state cluster"; "" where runs are by default. It is asked when there is
	// advice to give, and may be nil.
	Runs fmt.Stringer
}

// aboutARun matches a command that names a run, in advice.
var aboutARun = regexp.MustCompile(`\brutter (?:resume|rollback|show) \d{8}-\d{6}-[a-z0-9]+`)

// advice is what to type next, so that it can be typed: with what it takes to find
// the run that it names.
func (o Options) advice(next string) string {
	if o.Runs == nil || o.Runs.String() == "" {
		return next
	}
	return aboutARun.ReplaceAllStringFunc(next, func(cmd string) string { return cmd + " " + o.Runs.String() })
}

// OptionsFor reads the options for a stream off the environment. colorFlag is
// --color: "always", "never" or "auto" (or empty). NO_COLOR (no-color.org) and
// TERM=dumb switch colour off in auto; a dumb terminal gets no live view
// either. width is the terminal's, if it is one.
func OptionsFor(e *env.Env, stream any, colorFlag string, width int) Options {
	tty := e.IsTerminal != nil && e.IsTerminal(stream)
	dumb := e.Getenv("TERM") == "dumb"
	o := Options{Durations: true, Live: tty && !dumb, ASCII: asciiOnly(e.Getenv)}
	switch colorFlag {
	case "always":
		o.Color = true
	case "never":
	default:
		o.Color = tty && !dumb && e.Getenv("NO_COLOR") == ""
	}
	if tty {
		o.Width = width
	}
	return o
}

// asciiOnly follows POSIX: the first of these that is set decides.
func asciiOnly(getenv func(string) string) bool {
	for _, k := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := getenv(k); v != "" {
			return v == "C" || v == "POSIX"
		}
	}
	return false
}

// palette is the colours of one view.
type palette struct {
	o                                          Options
	good, bad, warn, faint, strong, name, info *color.Color
}

func newPalette(o Options) *palette {
	mk := func(attrs ...color.Attribute) *color.Color {
		c := color.New(attrs...)
		if o.Color {
			c.EnableColor()
		} else {
			c.DisableColor()
		}
		return c
	}
	return &palette{
		o: o, good: mk(color.FgGreen), bad: mk(color.FgRed), warn: mk(color.FgYellow), faint: mk(color.Faint),
		strong: mk(color.Bold), name: mk(color.FgCyan), info: mk(color.FgBlue),
	}
}

// ascii spells in ASCII what the views use beyond it; other text passes.
var ascii = strings.NewReplacer(
	"▸", ">", "✓", "ok", "✗", "FAILED", "⋯", "...", "…", "...", "→", "->", "↻", "@", "»", "!", "•", "*",
	"█", "#", "░", ".", "─", "-", "│", "|",
)

// text is s as this view may print it.
func (p *palette) text(s string) string {
	if p.o.ASCII {
		return ascii.Replace(s)
	}
	return s
}

// paint colours s; nothing stays nothing.
func paint(c *color.Color, s string) string {
	if s == "" {
		return ""
	}
	return c.Sprint(s)
}

// duration is short and steady in width: 0.4s, 14s, 2m03s, 1h02m.
func duration(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < time.Hour:
		d = d.Round(time.Second)
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	d = d.Round(time.Minute)
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

// fields joins what is not empty with two spaces.
func fields(parts ...string) string {
	kept := parts[:0:0]
	for _, s := range parts {
		if s != "" {
			kept = append(kept, s)
		}
	}
	return strings.Join(kept, "  ")
}

func pad(s string, n int) string {
	if m := n - utf8.RuneCountInString(s); m > 0 {
		return s + strings.Repeat(" ", m)
	}
	return s
}

// Wrap breaks s at spaces into lines of at most n columns; n < 20 doesn't wrap.
func Wrap(s string, n int) []string {
	if n < 20 {
		return []string{s}
	}
	var lines []string
	line := ""
	for _, w := range strings.Fields(s) {
		switch {
		case line == "":
			line = w
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(w) <= n:
			line += " " + w
		default:
			lines = append(lines, line)
			line = w
		}
	}
	return append(lines, line)
}
