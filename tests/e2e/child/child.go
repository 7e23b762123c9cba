// Package child starts processes that don't outlive the one that started them,
// however that one ends.
package child

import (
	"os/exec"
	"sync"
)

// Starter starts processes from one operating-system thread that lives as long
// as this process: on Linux a child is killed when the thread that started it
// ends (prctl(2), PR_SET_PDEATHSIG), and Go's other threads may end. The zero
// value is ready; it is safe for concurrent use.
type Starter struct {
	once  sync.Once
	calls chan func()
}

// Start starts a command in a process group of its own, so that an interrupt
// typed at the terminal reaches this process first. Elsewhere than on Linux
// children outlive a parent that was killed.
func (s *Starter) Start(cmd *exec.Cmd) error {
	s.once.Do(func() {
		s.calls = make(chan func())
		go ownThread(s.calls)
	})
	cmd.SysProcAttr = tied()
	done := make(chan error)
	s.calls <- func() { done <- cmd.Start() }
	return <-done
}

// StartDetached starts a command that outlives this process.
func StartDetached(cmd *exec.Cmd) error {
	cmd.SysProcAttr = detached()
	return cmd.Start()
}
