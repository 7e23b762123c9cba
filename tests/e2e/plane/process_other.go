//go:build !linux

package plane

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"
)

// executable is the file that a process runs.
func executable(pid int) (string, error) {
	out, err := exec.Command("ps", "-p", strconv.Itoa(pid), "-o", "comm=").Output()
	return strings.TrimSpace(string(out)), err
}

// running are only looked for where /proc tells of them.
func running(Binaries) []stray { return nil }

// Marked is errors.ErrUnsupported where /proc does not tell of it.
func Marked(string) ([]string, error) {
	return nil, errors.ErrUnsupported
}
