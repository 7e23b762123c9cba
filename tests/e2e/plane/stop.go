package plane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Stop ends every process of the plane, and removes its directory if Start
// made it. It may be called again, and on a plane that is partly gone. It
// reports what is still there afterwards.
func (p *Plane) Stop() error {
	p.mu.Lock()
	p.stopping = true
	p.mu.Unlock()
	names, err := p.names()
	if err != nil {
		return fmt.Errorf("plane: stop: %w", err)
	}
	var errs []error
	for _, group := range [][]string{{nodesim}, names} {
		errs = append(errs, p.stopAll(group)...)
	}
	for _, leak := range p.Leaks() {
		errs = append(errs, errors.New("left over: "+leak))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("plane: stop: %w", err)
	}
	if p.temp {
		return os.RemoveAll(p.dir)
	}
	return nil
}

// names are those of all pid files, nodesim's istiods included.
func (p *Plane) names() ([]string, error) {
	if p.dir == "" {
		return nil, nil
	}
	files, err := filepath.Glob(p.file("*.pid"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range files {
		out = append(out, strings.TrimSuffix(filepath.Base(f), ".pid"))
	}
	slices.Sort(out)
	return out, nil
}

// stopAll ends processes together. The API server and etcd are killed: they
// would wait for their clients, and nobody needs their store again.
func (p *Plane) stopAll(names []string) (errs []error) {
	var running []*process
	for _, name := range names {
		proc, err := p.process(name)
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		signal := syscall.SIGTERM
		if name == apiServer || name == etcd {
			signal = syscall.SIGKILL
		}
		if err := proc.signal(signal); err != nil && !errors.Is(err, ErrGone) {
			errs = append(errs, err)
		}
		running = append(running, proc)
	}
	for _, proc := range running {
		if err := proc.end(stopGrace); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := os.Remove(p.file(proc.name + ".pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errs
}

// Leaks names what of the plane is still there: processes by their pid files,
// any process that runs one of its binaries on its directory, and ports of it
// that are taken. On a plane that runs, that is everything; after Stop it must
// be nothing.
func (p *Plane) Leaks() []string {
	var out []string
	names, err := p.names()
	if err != nil {
		return []string{err.Error()}
	}
	for _, name := range names {
		if proc, err := p.process(name); err == nil && proc.alive() {
			out = append(out, fmt.Sprintf("process %s (pid %d)", name, proc.pid))
		}
	}
	out = append(out, p.strays()...)
	for name, port := range map[string]int{
		"etcd": p.state.Ports.Etcd, "etcd's peers": p.state.Ports.EtcdPeer, "API server": p.state.Ports.API, "kubelet": p.state.Ports.Kubelet,
	} {
		if port != 0 && !freeWithin(port, 2*time.Second) {
			out = append(out, fmt.Sprintf("port %d (%s)", port, name))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (p *Plane) strays() []string {
	var out []string
	for _, s := range running(p.state.Binaries) {
		if p.dir != "" && strings.Contains(s.args, p.dir) {
			out = append(out, s.String())
		}
	}
	return out
}

// Strays names the processes that run the binaries, whoever started them, but
// for those of the plane in one directory ("" for none). It knows only of those
// that the system lists in /proc.
func Strays(b Binaries, but string) []string {
	var out []string
	for _, s := range running(b) {
		if but == "" || !strings.Contains(s.args, but) {
			out = append(out, s.String())
		}
	}
	return out
}

// stray is a process by what the system says of it.
type stray struct {
	pid  int
	args string
}

func (s stray) String() string { return fmt.Sprintf("process %.160s (pid %d)", s.args, s.pid) }

// freeWithin tells whether a port is free, or becomes so shortly.
func freeWithin(port int, d time.Duration) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(d); !free(port); {
		select {
		case <-limit:
			return false
		case <-tick.C:
		}
	}
	return true
}
