package plane

import (
	"fmt"
	"os"
	"slices"
)

// The controllers and the scheduler are kept running, as the kubelet of a
// control plane's node keeps them: they rely on that. The scheduler ends itself
// when after an outage of the API server it finds a pod of the same name in
// place of one that it knew (k8s.io/kubernetes 1.36
// pkg/scheduler/backend/cache UpdatePod), as StatefulSets make them.
var kept = []string{controllers, scheduler}

// keptTimes is how often one of them is started again. What ends more often
// cannot work, and Healthy says so.
const keptTimes = 3

// keep starts a process again when it ends before the plane is stopped.
func (p *Plane) keep(c command, proc *process) {
	for again := 1; again <= keptTimes; again++ {
		<-proc.done
		next, err := p.relaunch(c, again)
		if err != nil {
			_ = appendLine(p.file(c.name+".log"), err.Error()) // Healthy finds that it is gone
		}
		if next == nil {
			return
		}
		proc = next
	}
}

// relaunch starts a process that has ended again; nil when the plane is being
// stopped.
func (p *Plane) relaunch(c command, again int) (*process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopping {
		return nil, nil
	}
	if err := appendLine(p.file(c.name+".log"), fmt.Sprintf("plane: it ended, and is started again (%d of %d)", again, keptTimes)); err != nil {
		return nil, err
	}
	proc, err := start(&p.starter, p.dir, c, false)
	if err != nil {
		return nil, err
	}
	p.started[c.name] = proc
	return proc, nil
}

// toKeep tells whether a process is started again when it ends. What outlives
// this one is nobody's to keep.
func (p *Plane) toKeep(name string) bool { return !p.state.Detached && slices.Contains(kept, name) }

func appendLine(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
