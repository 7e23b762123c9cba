package plane

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rutter.dev/rutter/tests/e2e/child"
)

// command is a process to start.
type command struct {
	name string // of its pid file and log
	exe  string
	args []string
	dir  string
	env  []string // beside the environment of this process
}

// process is one that was started: by this process or, when found by its pid
// file, by another.
type process struct {
	name, exe string
	pid       int
	done      chan struct{} // closed when it ended; nil for another's process
}

// ErrGone says that a process is not there (any more).
var ErrGone = errors.New("process is not running")

// start starts a command with its output in dir/NAME.log and its pid in
// dir/NAME.pid. Unless detached, it dies with this process (on Linux).
func start(s *child.Starter, dir string, c command, detached bool) (*process, error) {
	log, err := os.OpenFile(filepath.Join(dir, c.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the child has its own
	cmd := exec.Command(c.exe, c.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, log, log
	cmd.Env = append(os.Environ(), c.env...)
	begin := s.Start
	if detached {
		begin = child.StartDetached
	}
	if err := begin(cmd); err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	p := &process{name: c.name, exe: c.exe, pid: cmd.Process.Pid, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(p.done)
	}()
	return p, writePID(dir, p)
}

func writePID(dir string, p *process) error {
	return os.WriteFile(filepath.Join(dir, p.name+".pid"), fmt.Appendf(nil, "%d\n%s\n", p.pid, p.exe), 0o600)
}

// findProcess reads a pid file. ErrGone when there is none.
func findProcess(dir, name string) (*process, error) {
	b, err := os.ReadFile(filepath.Join(dir, name+".pid"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", name, ErrGone)
	}
	if err != nil {
		return nil, err
	}
	first, exe, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil || pid <= 1 || exe == "" {
		return nil, fmt.Errorf("%s.pid: %q is not a pid and an executable", filepath.Join(dir, name), b)
	}
	return &process{name: name, exe: exe, pid: pid}, nil
}

// alive tells whether the process runs: its pid exists and is of its executable.
func (p *process) alive() bool {
	if p.done != nil {
		select {
		case <-p.done:
			return false
		default:
			return true
		}
	}
	exe, err := executable(p.pid)
	return err == nil && strings.TrimSuffix(exe, " (deleted)") == p.exe
}

// signal sends a signal to the process; ErrGone when it is not there.
func (p *process) signal(s syscall.Signal) error {
	if !p.alive() {
		return fmt.Errorf("%s: %w", p.name, ErrGone)
	}
	if err := syscall.Kill(p.pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%s: signal %v: %w", p.name, s, err)
	}
	return nil
}

// end waits until the process is gone, and kills it after the grace.
func (p *process) end(grace time.Duration) error {
	for _, wait := range []time.Duration{grace, 10 * time.Second} {
		if gone(p, wait) {
			return nil
		}
		if err := p.signal(syscall.SIGKILL); err != nil && !errors.Is(err, ErrGone) {
			return err
		}
	}
	if gone(p, time.Second) {
		return nil
	}
	return fmt.Errorf("%s: pid %d is still there after SIGKILL", p.name, p.pid)
}

func gone(p *process, within time.Duration) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(within)
	defer limit.Stop()
	for p.alive() {
		select {
		case <-limit.C:
			return !p.alive()
		case <-tick.C:
		}
	}
	return true
}
