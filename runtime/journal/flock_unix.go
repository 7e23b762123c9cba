//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package journal

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// tryLock takes flock on f. An exclusive lock tries for a moment, because a
// listing may hold a shared one for an instant (OS.Held).
func tryLock(f *os.File, exclusive bool) (bool, error) {
	how, tries := syscall.LOCK_SH, 1
	if exclusive {
		how, tries = syscall.LOCK_EX, 5
	}
	for i := range tries {
		if i > 0 {
			time.Sleep(5 * time.Millisecond)
		}
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return false, os.NewSyscallError("flock", err)
		}
	}
	return false, nil
}
