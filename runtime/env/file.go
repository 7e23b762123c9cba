package env

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrTooLarge is wrapped by errors about a file of which there is more than is read.
var ErrTooLarge = errors.New("is larger than is read")

// OpenFile opens a file that somebody names, to read it. It may be a pipe, as
// <(command) of a shell makes them; one that nobody writes to is empty. Devices are
// not opened: some never end. Closing the file ends a read that waits.
func OpenFile(name string) (*os.File, error) {
	// Without O_NONBLOCK to open a pipe is to wait for whoever writes to it, past
	// every signal.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode()&os.ModeDevice != 0 {
		err = fmt.Errorf("%s: is a device", name)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// ReadFile reads what OpenFile opens, at most limit bytes of it; ctx ends the wait
// for what does not come.
func ReadFile(ctx context.Context, name string, limit int64) ([]byte, error) {
	f, err := OpenFile(name)
	if err != nil {
		return nil, err
	}
	b, err := ReadAll(ctx, f, limit)
	return b, errors.Join(err, f.Close())
}

// ReadAll reads r, at most limit bytes; ctx ends the wait for what does not come,
// and what reads then ends with the program.
func ReadAll(ctx context.Context, r io.Reader, limit int64) ([]byte, error) {
	type result struct {
		b   []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		b, err := io.ReadAll(io.LimitReader(r, limit+1))
		done <- result{b, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case got := <-done:
		if got.err == nil && int64(len(got.b)) > limit {
			return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, limit)
		}
		return got.b, got.err
	}
}

// ReplaceFile writes a file as a whole: who reads it meanwhile, or after the power
// went, finds the old content or the new. mode is what the file has afterwards.
func ReplaceFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
