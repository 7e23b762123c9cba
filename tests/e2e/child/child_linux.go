package child

import (
	"runtime"
	"syscall"
)

func tied() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// ownThread runs calls on one thread that never ends.
func ownThread(calls <-chan func()) {
	runtime.LockOSThread()
	for f := range calls {
		f()
	}
}
