//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package journal

import (
	"errors"
	"os"
)

// tryLock refuses: without a lock that dies with its process, two hosts could
// run the same run.
func tryLock(*os.File, bool) (bool, error) { return false, errors.ErrUnsupported }
