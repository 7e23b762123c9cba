package kill

import (
	"fmt"
	"os"
	"syscall"
)

// fSetPipeSize is F_SETPIPE_SZ of fcntl(2).
const fSetPipeSize = 1031

// closePipe is a pipe whose writer is never more than one write ahead of its
// reader: in packet mode each write takes a page, and there is one page. A
// process that is killed when a line is read is killed at that line.
func closePipe() (r, w *os.File, err error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC|syscall.O_DIRECT); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	r, w = os.NewFile(uintptr(fds[0]), "events"), os.NewFile(uintptr(fds[1]), "events")
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fds[1]), fSetPipeSize, uintptr(os.Getpagesize())); errno != 0 {
		return nil, nil, fmt.Errorf("size of the pipe: %w", errno)
	}
	return r, w, nil
}
