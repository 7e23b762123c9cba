package journal

import (
	"errors"
	"os"
	"syscall"
)

// datasync makes data and size durable; unlike fsync it leaves out the times.
func datasync(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
