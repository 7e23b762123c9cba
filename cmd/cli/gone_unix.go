//go:build unix

package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// nobodyReads reports whether the reader of stdout or of stderr has gone, or
// the terminal has. SIGPIPE alone does not say so: Go passes it on for every
// descriptor once a program asks for it, a client's connection included.
func nobodyReads() bool {
	// #nosec G115 -- descriptors are small, and poll(2) takes an int
	fds := []unix.PollFd{{Fd: int32(os.Stdout.Fd()), Events: unix.POLLOUT}, {Fd: int32(os.Stderr.Fd()), Events: unix.POLLOUT}}
	if _, err := unix.Poll(fds, 0); err != nil {
		return false // the next write tells
	}
	for _, fd := range fds {
		if fd.Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
			return true
		}
	}
	return false
}
