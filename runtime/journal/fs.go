package journal

import "io"

// FS is the disk as the journal sees it; implementations are OS and MemFS.
// Errors match those of io/fs. Safe for concurrent use.
type FS interface {
	// Mkdir makes one directory, mode 0700.
	Mkdir(path string) error
	// ReadDir lists the names in a directory, sorted.
	ReadDir(path string) ([]string, error)
	// SyncDir makes the entries of a directory durable.
	SyncDir(path string) error
	// Create makes a new file, mode 0600, and fails if it exists.
	Create(path string) (File, error)
	// Append opens an existing file for appending.
	Append(path string) (File, error)
	// Open opens a file for reading.
	Open(path string) (io.ReadCloser, error)
	Rename(from, to string) error
	Remove(path string) error
	// Lock takes the lock on path (made if need be) until the Closer is closed
	// or the process ends. A lock held elsewhere is a *LockedError.
	Lock(path string) (io.Closer, error)
	// Held reports whether some process holds the lock, and which.
	Held(path string) (held bool, pid int, err error)
}

// File is a file open for appending.
type File interface {
	io.WriteCloser
	// Sync makes the data and the size durable (fdatasync).
	Sync() error
	Truncate(size int64) error
}
