//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// patience bounds a run that should have ended.
const patience = 5 * time.Minute

// ev is one line of rutter's event stream.
type ev struct {
	Type, Step, Run, Message, Verb, Status string
}

// stream is a rutter that runs, with the events that it has told so far.
type stream struct {
	t      *testing.T
	cmd    *exec.Cmd
	lines  *bufio.Scanner
	events []ev
	talk   strings.Builder
}

// follow starts rutter, which must have been told "-o json".
func follow(t *testing.T, cmd *exec.Cmd) *stream {
	t.Helper()
	s := &stream{t: t, cmd: cmd}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = &s.talk
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() }) // the test fails by what is missing then
	t.Cleanup(func() {
		limit.Stop()
		_ = cmd.Process.Kill() // ended already, unless the test failed
	})
	s.lines = bufio.NewScanner(out)
	s.lines.Buffer(nil, 16<<20) // diffs are long
	return s
}

// until reads events up to one that holds, and fails the test when there is none.
func (s *stream) until(what string, holds func(ev) bool) ev {
	s.t.Helper()
	for s.lines.Scan() {
		var e ev
		if err := json.Unmarshal(s.lines.Bytes(), &e); err != nil {
			s.t.Fatalf("event %q: %v", s.lines.Bytes(), err)
		}
		s.events = append(s.events, e)
		if holds(e) {
			return e
		}
	}
	_ = s.cmd.Wait() // it has ended; how is in what it said
	s.t.Fatalf("the run ended before %s (%v)\n%s", what, s.lines.Err(), s.talk.String())
	return ev{}
}

// end lets the run go on to its end.
func (s *stream) end() result {
	s.t.Helper()
	for s.lines.Scan() {
		var e ev
		if err := json.Unmarshal(s.lines.Bytes(), &e); err != nil {
			s.t.Fatalf("event %q: %v", s.lines.Bytes(), err)
		}
		s.events = append(s.events, e)
	}
	if err := s.lines.Err(); err != nil && err != io.EOF {
		s.t.Fatal(err)
	}
	_ = s.cmd.Wait() // its code says how
	return result{code: s.cmd.ProcessState.ExitCode(), errOut: s.talk.String()}
}

// started holds for the beginning of a step.
func started(step string) func(ev) bool {
	return func(e ev) bool { return e.Type == "step-started" && e.Step == step }
}

// intent holds for the n-th effect, from 1, that is about to be sent.
func intent(n int) func(ev) bool {
	return func(e ev) bool {
		if e.Type == "effect-intent" {
			n--
		}
		return n == 0
	}
}
