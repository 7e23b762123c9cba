package env

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// ErrNoFile is wrapped by errors about a pipe, a socket or a device where a file
// belongs.
var ErrNoFile = errors.New("it is no file, but a pipe, a socket or a device")

// MustBeFile refuses a pipe, a socket or a device, for what opens a file by its name
// itself and would wait for whoever writes to it. The null device is an empty file,
// and what is not there is for whoever opens it to say.
func MustBeFile(name string) error {
	info, err := os.Stat(name)
	if err != nil || info.Mode().IsRegular() || info.IsDir() || name == os.DevNull {
		return nil
	}
	return &fs.PathError{Op: "open", Path: name, Err: ErrNoFile}
}

// RootFS is root.FS() for a tree that others have made: only files and folders are
// opened. To open a pipe would be to wait for whoever writes to it, past every
// signal, and some devices never end.
func RootFS(root *os.Root) fs.FS { return rootFS{root} }

type rootFS struct{ root *os.Root }

// Open implements fs.FS.
func (r rootFS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	f, err := r.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: name, Err: ErrNoFile}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
