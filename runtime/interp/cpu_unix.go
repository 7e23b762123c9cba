//go:build unix

package interp

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is what the process has computed so far. A machine that gives it no
// time makes no script slow.
func cpuTime(time.Time) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
