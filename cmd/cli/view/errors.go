package view

import (
	"cmp"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/fatih/color"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
)

// Error lays err out for a person: headline, source with caret, a refusal's
// findings as a table, what was expected, what has already changed, and what
// to type next. Joined errors are laid out one after another.
func Error(w io.Writer, err error, o Options) error {
	p := newPalette(o)
	var out []string
	for _, e := range parts(err) {
		out = append(out, p.layout(e)...)
	}
	return write(w, p, out, nil)
}

// parts takes an errors.Join apart; an error that only wraps several (%w twice)
// stays whole, because its own text ties them together.
func parts(err error) []error {
	j, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var texts []string
	var all []error
	for _, e := range j.Unwrap() {
		texts = append(texts, e.Error())
		all = append(all, parts(e)...)
	}
	if strings.Join(texts, "\n") != err.Error() {
		return []error{err}
	}
	return all
}

func (p *palette) layout(err error) []string {
	var refusal *gate.Refusal
	refused := errors.As(err, &refusal)
	head := strings.Split(event.Clean(headline(err)), "\n")
	out := []string{p.bad.Sprint("✗ ") + p.strong.Sprint(head[0])}
	for _, s := range head[1:] {
		out = append(out, "  "+s)
	}
	d := merge(err)
	if right := cluster.MissingRight(err); right != "" && !refused {
		d.Expect = cmp.Or(d.Expect, "the right to "+right)
		d.Next = cmp.Or(d.Next, cluster.RightsAdvice)
	}
	if d.Source != "" {
		out = append(out, "")
		for s := range strings.SplitSeq(strings.TrimRight(event.Clean(d.Source), "\n"), "\n") {
			out = append(out, "    "+s)
		}
		out = append(out, "")
	}
	if refused {
		out = append(out, "")
		out = append(out, p.table(refusal.Findings)...)
		out = append(out, "")
	}
	for _, f := range []struct{ word, text string }{{"expected", d.Expect}, {"changed", d.Changed}, {"next", p.o.advice(d.Next)}} {
		if f.text == "" {
			continue
		}
		for i, s := range Wrap(event.CleanLine(f.text), p.o.Width-12) {
			word := ""
			if i == 0 {
				word = f.word
			}
			out = append(out, "  "+p.name.Sprint(pad(word, 9))+" "+s)
		}
	}
	return out
}

// headline is the one-line form without the expectation, which has its own line.
func headline(err error) string {
	if r, ok := err.(*gate.Refusal); ok {
		return refusedBy(r)
	}
	if d, ok := err.(*diag.Error); ok {
		subject := d.Pos.String()
		if subject == "" {
			subject = d.Subject
		}
		var rest []string
		for _, s := range []string{subject, d.Problem} {
			if s != "" {
				rest = append(rest, s)
			}
		}
		if d.Err != nil {
			rest = append(rest, headline(d.Err))
		}
		return strings.Join(rest, ": ")
	}
	if inner := errors.Unwrap(err); inner != nil {
		if before, ok := strings.CutSuffix(err.Error(), inner.Error()); ok {
			return before + headline(inner)
		}
	}
	return err.Error()
}

func refusedBy(r *gate.Refusal) string {
	var codes []string
	for _, f := range r.Findings {
		if f.Verdict >= gate.Ask && !slices.Contains(codes, string(f.Code)) {
			codes = append(codes, string(f.Code))
		}
	}
	s := "refused by " + strings.Join(codes, ", ")
	if r.Forecast {
		s += " before the first change of this call"
	}
	return s
}

// merge is the outermost of each field in the error's chain.
func merge(err error) diag.Error {
	var m diag.Error
	for err != nil {
		var d *diag.Error
		if !errors.As(err, &d) {
			break
		}
		for _, f := range []struct {
			to   *string
			from string
		}{{&m.Expect, d.Expect}, {&m.Source, d.Source}, {&m.Changed, d.Changed}, {&m.Next, d.Next}} {
			if *f.to == "" {
				*f.to = f.from
			}
		}
		err = d.Err
	}
	return m
}

func (p *palette) verdict(v gate.Verdict) *color.Color {
	switch v {
	case gate.Pass:
		return p.good
	case gate.Block:
		return p.bad
	}
	return p.warn
}

// group is one thing that a gate found about one or more objects.
type group struct {
	gate.Finding
	objects []string
}

// grouped puts together what a gate says in the same words about several
// objects; every object is still named.
func grouped(fs []gate.Finding) []group {
	var out []group
	for _, f := range fs {
		i := slices.IndexFunc(out, func(g group) bool {
			return g.Code == f.Code && g.Verdict == f.Verdict && g.Problem == f.Problem && g.Expect == f.Expect && g.Next == f.Next
		})
		if i < 0 {
			out, i = append(out, group{Finding: f}), len(out)
		}
		out[i].objects = append(out[i].objects, objectOf(f))
	}
	return out
}

// table is every finding, in gate order: what was found, what was expected,
// what to do, and about which objects.
func (p *palette) table(fs []gate.Finding) []string {
	const indent = "                  "
	var out []string
	for _, g := range grouped(fs) {
		first := "  " + pad(string(g.Code), 8) + p.verdict(g.Verdict).Sprint(pad(g.Verdict.String(), 8))
		text := []string{event.CleanLine(g.Problem)}
		if len(g.objects) == 1 {
			text[0] = g.objects[0] + ": " + text[0]
		}
		if g.Expect != "" {
			text = append(text, "expected "+event.CleanLine(g.Expect))
		}
		if g.Next != "" {
			text = append(text, "next: "+event.CleanLine(p.o.advice(g.Next)))
		}
		for _, t := range text {
			for _, s := range Wrap(t, p.o.Width-len(indent)) {
				out = append(out, first+s)
				first = indent
			}
		}
		if len(g.objects) > 1 {
			for _, o := range g.objects {
				out = append(out, indent+"- "+o)
			}
		}
	}
	return out
}

func objectOf(f gate.Finding) string {
	if f.Ref.Kind == "" {
		return "the run"
	}
	return event.CleanLine(f.Ref.String())
}
