package sim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

// ErrInUse is wrapped by Open's error when another process, or another
// Cluster of this one, has the file open.
var ErrInUse = errors.New("the simulated cluster is in use")

// lockLog takes the lock of the log at path: a file beside it that holds the
// pid of whoever has it. The log itself cannot be locked, because compacting
// replaces it. The file stays when the lock goes, as removing it would let two
// processes lock two files of one name.
func lockLog(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	ok, err := tryLock(f)
	if err == nil && !ok {
		err = fmt.Errorf("%w by %s, which holds %s.lock; wait for it to end, or use another file", ErrInUse, holder(f), path)
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(strconv.AppendInt(nil, int64(os.Getpid()), 10), 0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// holder names the process that has the lock; between taking it and writing
// the pid that is unknown for a moment.
func holder(f *os.File) string {
	data, err := io.ReadAll(f)
	pid, perr := strconv.Atoi(string(bytes.TrimSpace(data)))
	if err != nil || perr != nil {
		return "another process"
	}
	return fmt.Sprintf("process %d", pid)
}
