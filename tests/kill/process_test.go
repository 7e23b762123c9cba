package kill

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/cmd/cli"
)

// asRutter makes the test binary be rutter: a process of its own that can be
// killed, without linking the Istio library twice.
const asRutter = "RUTTER_TEST_AS_RUTTER"

func TestMain(m *testing.M) {
	if os.Getenv(asRutter) != "" {
		os.Exit(cli.Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// patience bounds a process that should have ended.
const patience = 50 * time.Second

// place is a folder with a state folder of its own, where rutter is started.
type place struct {
	t          *testing.T
	dir, cache string
}

func newPlace(t *testing.T, cache string) *place { return &place{t: t, dir: t.TempDir(), cache: cache} }

func (p *place) state() string { return filepath.Join(p.dir, "runs") }

// ev is one line of the event stream.
type ev struct {
	Type, Step, Name, Run, Message, Verb, Status string
	Key                                          string
	Index                                        int // from 0 within its process
}

// process is a rutter that runs, with what it said so far.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	out    *os.File
	events []ev
	rest   []byte
	stderr bytes.Buffer
}

// start starts rutter; close makes it wait for the reader of its events.
func (p *place) start(tight bool, args ...string) *process {
	p.t.Helper()
	pipe := os.Pipe
	if tight {
		pipe = closePipe
	}
	r, w, err := pipe()
	if err != nil {
		p.t.Fatal(err)
	}
	x := &process{t: p.t, out: r, cmd: p.command(append(args, "--state", p.state(), "-o", "json")...)}
	x.cmd.Stdout, x.cmd.Stderr = w, &x.stderr
	if err := x.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	deadline := time.AfterFunc(patience, func() { _ = x.cmd.Process.Kill() }) // the test fails by what is missing then
	p.t.Cleanup(func() {
		deadline.Stop()
		_ = x.cmd.Process.Kill() // ended already, unless the test failed
		_ = r.Close()
	})
	if err := w.Close(); err != nil {
		p.t.Fatal(err)
	}
	return x
}

// command is rutter in this place, not started.
func (p *place) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir = p.dir
	cmd.Env = []string{asRutter + "=1", "HOME=" + p.dir, "XDG_CACHE_HOME=" + p.cache, "XDG_STATE_HOME=" + p.dir, "GOGC=400"}
	return cmd
}

// next reads one event; false at the end of the stream.
func (x *process) next() (ev, bool) {
	x.t.Helper()
	buf := make([]byte, 1<<16)
	for {
		if line, rest, ok := bytes.Cut(x.rest, []byte("\n")); ok {
			x.rest = rest
			e := ev{Index: len(x.events)}
			if err := json.Unmarshal(line, &e); err != nil {
				x.t.Fatalf("event %d is not JSON: %v\n%s", e.Index, err, line)
			}
			x.events = append(x.events, e)
			return e, true
		}
		n, err := x.out.Read(buf)
		x.rest = append(x.rest, buf[:n]...)
		if err != nil {
			return ev{}, false
		}
	}
}

// until reads up to the first event that at holds for.
func (x *process) until(at func(ev) bool) ev {
	x.t.Helper()
	for {
		e, ok := x.next()
		if !ok {
			x.t.Fatalf("ended after %d events, before the moment came: %v\n%s", len(x.events), x.cmd.Wait(), x.stderr.String())
		}
		if at(e) {
			return e
		}
	}
}

// kill kills it as a power cut does. What it still says is not read.
func (x *process) kill() {
	x.t.Helper()
	if err := x.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		x.t.Fatal(err)
	}
	_ = x.cmd.Wait() // "signal: killed", or whatever it came to before that
}

func (x *process) signal(s os.Signal) {
	x.t.Helper()
	if err := x.cmd.Process.Signal(s); err != nil {
		x.t.Fatal(err)
	}
}

// end reads the rest of the stream and gives the exit code.
func (x *process) end() int {
	x.t.Helper()
	for {
		if _, ok := x.next(); !ok {
			break
		}
	}
	err := x.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		x.t.Fatal(err)
	}
	return x.cmd.ProcessState.ExitCode()
}

// must ends it and demands an exit code.
func (x *process) must(code int) *process {
	x.t.Helper()
	if got := x.end(); got != code {
		x.t.Fatalf("%s: exit %d, want %d\n%s", strings.Join(x.cmd.Args[1:], " "), got, code, x.stderr.String())
	}
	return x
}
