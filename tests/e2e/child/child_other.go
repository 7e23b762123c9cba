//go:build !linux

package child

import "syscall"

func tied() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

func ownThread(calls <-chan func()) {
	for f := range calls {
		f()
	}
}
