//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package sim

import (
	"errors"
	"os"
	"syscall"
)

// tryLock takes an exclusive lock on f that ends with this process at the
// latest, and reports whether it got it.
func tryLock(f *os.File) (bool, error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return false, os.NewSyscallError("flock", err)
		}
	}
}
