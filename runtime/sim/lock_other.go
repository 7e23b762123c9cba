//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package sim

import (
	"errors"
	"os"
)

// tryLock refuses: without a lock that dies with its process, two processes
// could write one log.
func tryLock(*os.File) (bool, error) { return false, errors.ErrUnsupported }
