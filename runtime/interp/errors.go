package interp

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/loader"
)

// sources gives source lines by the file names of positions.
type sources struct{ files map[string][]string }

func newSources(b *loader.Bundle) *sources {
	s := &sources{files: map[string][]string{}}
	for label, src := range b.Files {
		s.files[loader.Filename(label)] = strings.Split(src, "\n")
	}
	return s
}

func (s *sources) line(p diag.Pos) string {
	lines := s.files[p.File]
	if p.Line < 1 || p.Line > len(lines) {
		return ""
	}
	return strings.TrimRight(lines[p.Line-1], "\r")
}

// excerpt is the source line with a caret below its column.
func (s *sources) excerpt(p diag.Pos) string { return diag.Excerpt(p, s.line(p)) }

func posOf(p syntax.Position) diag.Pos {
	return diag.Pos{File: p.Filename(), Line: int(p.Line), Col: int(p.Col)}
}

// renderSource renders an error of the loader: of a file that could not be
// read, parsed or resolved.
func renderSource(err error, predeclared []string) error {
	var se *loader.SourceError
	if !errors.As(err, &se) {
		return err
	}
	src := newSources(&loader.Bundle{Files: map[string]string{se.Module.Label: se.Module.Source}})
	var list resolve.ErrorList
	var syn syntax.Error
	var d *diag.Error
	switch {
	case errors.As(se.Err, &d):
		out := *d
		out.Source = src.excerpt(out.Pos)
		return &out
	case errors.As(se.Err, &syn):
		return src.syntaxError(syn)
	case errors.As(se.Err, &list):
		return src.resolveErrors(list, predeclared)
	}
	return &diag.Error{Code: diag.Usage, Pos: diag.Pos{File: loader.Filename(se.Module.Label)}, Err: se.Err}
}

func (s *sources) syntaxError(e syntax.Error) error {
	p := posOf(e.Pos)
	msg, at := pythonism(s.line(p), p.Col, e.Msg)
	p.Col = at
	return &diag.Error{Code: diag.Usage, Pos: p, Problem: msg, Source: s.excerpt(p)}
}

// resolveErrors renders all that the resolver found; several as lines.
func (s *sources) resolveErrors(list resolve.ErrorList, predeclared []string) error {
	known := append(slices.Clone(predeclared), starlark.Universe.Keys()...)
	var errs []error
	for _, e := range list {
		p := posOf(e.Pos)
		errs = append(errs, &diag.Error{
			Code: diag.Usage, Pos: p, Problem: s.resolveMessage(e.Msg, known, p.File), Source: s.excerpt(p),
		})
	}
	if len(errs) == 1 {
		return errs[0]
	}
	first := *errs[0].(*diag.Error)
	rest := &lines{errs[1:]}
	first.Problem += fmt.Sprintf(" (and %d more:%s)", len(errs)-1, rest.Error())
	return &first
}

var undefinedName = regexp.MustCompile(`^undefined: (\w+)(?: \(did you mean (\w+)\?\))?$`)

func (s *sources) resolveMessage(msg string, known []string, file string) string {
	if m := undefinedName.FindStringSubmatch(msg); m != nil {
		return s.undefined(m[1], m[2], known, file)
	}
	for prefix, plain := range resolveHints {
		if strings.HasPrefix(msg, prefix) {
			return plain
		}
	}
	if strings.HasPrefix(msg, "cannot reassign ") {
		return msg + "; a name at the top level is set once"
	}
	return msg
}

// undefined suggests, in this order: the sentence for a Python habit, a name
// that rutter predeclares or the file defines, what the resolver found among
// locals.
func (s *sources) undefined(name, local string, known []string, file string) string {
	if hint := pythonName(name); hint != "" {
		return fmt.Sprintf("%s is not defined; %s", name, hint)
	}
	near := diag.Nearest(name, append(slices.Clone(known), s.defined(file)...))
	if local != "" && near == "" {
		near = local
	}
	if near == "" {
		return name + " is not defined"
	}
	return fmt.Sprintf("%s is not defined; did you mean %s?", name, near)
}

var definition = regexp.MustCompile(`(?m)^(?:def\s+)?([A-Za-z_]\w*)\s*(?:=[^=]|\()`)

// defined lists the names that a file defines at its top level, by its text.
func (s *sources) defined(file string) []string {
	var out []string
	for _, m := range definition.FindAllStringSubmatch(strings.Join(s.files[file], "\n"), -1) {
		out = append(out, m[1])
	}
	return out
}

// Render turns an error out of a thread of this module into a *diag.Error with
// position, source line, caret and the script frames that led there. Typed
// errors stay reachable through it. A *diag.Error that was rendered before is
// returned as it is.
func (m *Loaded) Render(err error) *diag.Error {
	var done *diag.Error
	if errors.As(err, &done) && done.Source != "" {
		return done
	}
	frames := scriptFrames(err)
	cause := withoutFrames(err)
	if badCall.MatchString(cause.Error()) && len(frames) > 1 {
		frames = frames[1:] // the callee's frame; what is wrong is the call
	}
	out := &diag.Error{Err: m.hinted(cause)}
	var d *diag.Error
	if errors.As(cause, &d) {
		out.Code, out.Next, out.Changed = diag.ExitCode(cause), d.Next, d.Changed
	}
	if endless(cause) {
		out.Code = diag.Usage
	}
	if sameError(cause, d) { // the diag.Error is all there is: lay it out by its parts
		cp := *d
		out = &cp
		if out.Pos == (diag.Pos{}) && out.Subject != "" && len(frames) > 0 {
			out.Problem, out.Subject = joinProblem(out), ""
		}
	}
	if len(frames) == 0 {
		return out
	}
	if out.Pos == (diag.Pos{}) {
		out.Pos = posOf(frames[0].Pos)
	}
	out.Source = m.sources.excerpt(out.Pos) + trace(frames[1:])
	return out
}

// endless reports whether err says that the script has no end: the runbook is
// wrong in itself then, whatever the cluster is like.
func endless(err error) bool {
	var budget *BudgetError
	return errors.As(err, &budget) || recursive.MatchString(err.Error())
}

func joinProblem(d *diag.Error) string {
	if d.Problem == "" {
		return d.Subject
	}
	return d.Subject + ": " + d.Problem
}

func sameError(err error, d *diag.Error) bool {
	e, ok := err.(*diag.Error)
	return ok && e == d
}

// withoutFrames takes off the EvalErrors around an error: what they add is the
// stack, which is rendered apart.
func withoutFrames(err error) error {
	for {
		e, ok := err.(*starlark.EvalError)
		if !ok || e.Unwrap() == nil {
			return err
		}
		err = e.Unwrap()
	}
}

// scriptFrames are the frames with source lines of the innermost stack in err,
// innermost first.
func scriptFrames(err error) []starlark.CallFrame {
	var stack starlark.CallStack
	walk(err, func(e error) {
		if ev, ok := e.(*starlark.EvalError); ok {
			stack = ev.CallStack
		}
	})
	var out []starlark.CallFrame
	for i := range stack {
		if f := stack.At(i); f.Pos.Line > 0 {
			out = append(out, f)
		}
	}
	return out
}

func walk(err error, visit func(error)) {
	if err == nil {
		return
	}
	visit(err)
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		walk(e.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			walk(inner, visit)
		}
	}
}

const maxTrace = 8

func trace(frames []starlark.CallFrame) string {
	var b strings.Builder
	for i, f := range frames {
		if i == maxTrace {
			fmt.Fprintf(&b, "\ncalled from %d frames more", len(frames)-i)
			break
		}
		where := "in " + f.Name
		if f.Name == "<toplevel>" {
			where = "at the top level"
		}
		fmt.Fprintf(&b, "\ncalled from %s:%d %s", f.Pos.Filename(), f.Pos.Line, where)
	}
	return b.String()
}

// hint is an error with a better text; the original stays reachable.
type hint struct {
	text string
	err  error
}

func (h *hint) Error() string { return h.text }
func (h *hint) Unwrap() error { return h.err }

var (
	// badCall matches what starlark says of arguments that do not fit.
	badCall           = regexp.MustCompile(`^function \S+ (got an? |got multiple |accepts |missing )`)
	unexpectedKeyword = regexp.MustCompile(`^function (\S+) got an unexpected keyword argument "?(\w+)"?$`)
	unsetVariable     = regexp.MustCompile(`^(local|global) variable (\S+) referenced before assignment$`)
	noAttribute       = regexp.MustCompile(`^(\S+) has no \.(\w+) field or method(?: \(did you mean \.(\w+)\?\))?$`)
	recursive         = regexp.MustCompile(`^function (\S+) called recursively$`)
)

func (m *Loaded) hinted(err error) error {
	msg := err.Error()
	switch {
	case unexpectedKeyword.MatchString(msg):
		x := unexpectedKeyword.FindStringSubmatch(msg)
		return &hint{m.keyword(x[1], x[2]), err}
	case unsetVariable.MatchString(msg):
		x := unsetVariable.FindStringSubmatch(msg)
		return &hint{fmt.Sprintf("%s is used before it has a value (a %s variable is one in all of its block)", x[2], x[1]), err}
	case noAttribute.MatchString(msg):
		x := noAttribute.FindStringSubmatch(msg)
		text := fmt.Sprintf("a %s has no attribute %q", x[1], x[2])
		if x[3] != "" {
			text += fmt.Sprintf("; did you mean %q?", x[3])
		}
		return &hint{text, err}
	case recursive.MatchString(msg):
		return &hint{msg + "; runbooks have no recursion, so that they end: use a for loop over a list", err}
	}
	return err
}

func (m *Loaded) keyword(fn, key string) string {
	text := fmt.Sprintf("%s: unexpected keyword %q", fn, key)
	params := m.paramsOf(fn)
	if near := diag.Nearest(key, params); near != "" {
		return text + fmt.Sprintf("; did you mean %q?", near)
	}
	if len(params) > 0 {
		return text + "; it takes: " + strings.Join(params, ", ")
	}
	return text
}

// paramsOf finds the parameters of a function that some module defines.
func (m *Loaded) paramsOf(name string) []string {
	for _, globals := range m.modules {
		f, ok := globals[name].(*starlark.Function)
		if !ok || f.Name() != name {
			continue
		}
		var out []string
		for i := range f.NumParams() {
			p, _ := f.Param(i)
			out = append(out, p)
		}
		return out
	}
	return nil
}
