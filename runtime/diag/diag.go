// Package diag is how rutter says that something is wrong. An Error names its
// subject first (an object, or file:line:col), then what is wrong, what was
// expected, what has already changed, and what to type next; each part is kept
// apart so that every view (terminal, JSON, report) can lay it out.
package diag

import (
	"errors"
	"fmt"
	"strings"
)

// Code is a process exit code (DESIGN §7).
type Code int

// The exit codes of rutter.
const (
	OK          Code = 0
	Failed      Code = 1
	Usage       Code = 2 // usage, or a runbook that is wrong in itself
	Blocked     Code = 3 // a gate blocked
	Changes     Code = 4 // a plan has changes
	InDoubt     Code = 5 // the outcome of a change is not known, or needs resume
	Interrupted Code = 130
)

// Pos is a place in a source file. Line and Col count from 1; zero means unknown.
type Pos struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"`
	Col  int    `json:"col,omitempty"`
}

// String is file:line:col, leaving out what is unknown.
func (p Pos) String() string {
	switch {
	case p.File == "":
		return ""
	case p.Line == 0:
		return p.File
	case p.Col == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// Error is an error laid out for a person. The zero value of every optional
// field means "nothing to say".
type Error struct {
	Code    Code   // exit code; 0 means Failed
	Pos     Pos    // where in a source file, if anywhere
	Subject string // the object it is about, when there is no Pos
	Problem string // what is wrong, lower case, no final stop
	Expect  string // what was expected instead
	Source  string // the source line with a caret below it, ready to print
	Changed string // what has already changed
	Next    string // the command or edit that mends it
	Err     error  // cause
}

// Error is the one-line form: subject, problem, expectation.
func (e *Error) Error() string {
	var b strings.Builder
	if p := e.Pos.String(); p != "" {
		b.WriteString(p + ": ")
	} else if e.Subject != "" {
		b.WriteString(e.Subject + ": ")
	}
	b.WriteString(e.Problem)
	if e.Err != nil {
		if e.Problem != "" {
			b.WriteString(": ")
		}
		b.WriteString(e.Err.Error())
	}
	if e.Expect != "" {
		b.WriteString("; expected " + e.Expect)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Usagef is a usage error about subject.
func Usagef(subject, format string, args ...any) *Error {
	return &Error{Code: Usage, Subject: subject, Problem: fmt.Sprintf(format, args...)}
}

// ExitCode is the exit code that err asks for: that of the outermost Error in
// its chain that names one, else Failed; OK for nil.
func ExitCode(err error) Code {
	if err == nil {
		return OK
	}
	for e := err; e != nil; {
		var d *Error
		if !errors.As(e, &d) {
			return Failed
		}
		if d.Code != 0 {
			return d.Code
		}
		e = d.Err
	}
	return Failed
}

// Nearest returns the candidate most like name for a "did you mean", or "".
// The distance counts insertions, deletions, substitutions and swaps of
// neighbours, and must not exceed a third of the name's length (at least 1).
func Nearest(name string, candidates []string) string {
	best, limit := "", max(1, len(name)/3)
	for _, c := range candidates {
		if d := distance(strings.ToLower(name), strings.ToLower(c)); d <= limit && c != name {
			best, limit = c, d-1
		}
	}
	return best
}

func distance(a, b string) int {
	prev2, prev := []int(nil), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], prev2[j-2]+1)
			}
		}
		prev2, prev = prev, row
	}
	return prev[len(b)]
}
