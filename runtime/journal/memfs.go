package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"
)

// ErrCrashed is what every operation on a MemFS gives once its host is down.
var ErrCrashed = errors.New("the host is down")

// MemFS is a disk in memory that knows what was synced, so that Crash can
// forget the rest. Directories keep entries that SyncDir has not seen as
// volatile, as POSIX allows. Safe for concurrent use.
type MemFS struct {
	mu    sync.Mutex
	root  *memDir
	locks map[string]bool
	dead  bool
	ops   int
	syncs int
	fault func(op int, kind string) error
}

type memDir struct{ now, durable map[string]any } // *memDir or *memFile

type memFile struct {
	data    []byte
	durable []byte // never shares bytes that data may still change
}

// NewMemFS is an empty disk.
func NewMemFS() *MemFS {
	return &MemFS{root: newMemDir(), locks: map[string]bool{}}
}

func newMemDir() *memDir { return &memDir{now: map[string]any{}, durable: map[string]any{}} }

// Fault installs f, called before every operation with its number (from 1) and
// kind ("mkdir", "create", "write", "sync", "syncdir", "rename", "remove",
// "truncate"). What it returns becomes the operation's error. A write that
// fails has written half; with ErrCrashed any operation has been done whole,
// and everything after it fails.
func (m *MemFS) Fault(f func(op int, kind string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault, m.ops = f, 0
}

// Syncs is how many file syncs there were.
func (m *MemFS) Syncs() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.syncs
}

// Crash takes the host down and returns the disk as the next boot finds it:
// what was synced, and of each file up to keep bytes more that were not.
func (m *MemFS) Crash(keep int) *MemFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
	n := NewMemFS()
	n.root = m.root.survive(keep)
	return n
}

func (d *memDir) survive(keep int) *memDir {
	n := newMemDir()
	for name, e := range d.durable {
		switch e := e.(type) {
		case *memDir:
			n.now[name] = e.survive(keep)
		case *memFile:
			b := e.durable
			if extra := len(e.data) - len(b); extra > 0 {
				b = e.data[:len(b)+min(extra, keep)]
			}
			n.now[name] = &memFile{data: bytes.Clone(b), durable: bytes.Clone(b)}
		}
	}
	n.durable = maps.Clone(n.now)
	return n
}

// do runs an operation under the lock, through the fault. partial, if not nil,
// is what a failed one leaves behind.
func (m *MemFS) do(kind string, partial func(), op func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return ErrCrashed
	}
	m.ops++
	if m.fault != nil {
		err := m.fault(m.ops, kind)
		switch {
		case errors.Is(err, ErrCrashed):
			m.dead = true
			return errors.Join(err, op())
		case err != nil:
			if partial != nil {
				partial()
			}
			return err
		}
	}
	return op()
}

func (m *MemFS) dir(path string) (*memDir, error) {
	if path == "/" || path == "." {
		return m.root, nil
	}
	parent, err := m.dir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	d, ok := parent.now[filepath.Base(path)].(*memDir)
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return d, nil
}

func (m *MemFS) file(path string) (*memFile, error) {
	d, err := m.dir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	f, ok := d.now[filepath.Base(path)].(*memFile)
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return f, nil
}

// put enters e into its directory; it must not exist.
func (m *MemFS) put(path string, e any) error {
	d, err := m.dir(filepath.Dir(path))
	if err != nil {
		return err
	}
	if _, ok := d.now[filepath.Base(path)]; ok {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	d.now[filepath.Base(path)] = e
	return nil
}

// Mkdir implements FS.
func (m *MemFS) Mkdir(path string) error {
	return m.do("mkdir", nil, func() error { return m.put(path, newMemDir()) })
}

// ReadDir implements FS.
func (m *MemFS) ReadDir(path string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.dir(path)
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(d.now)), nil
}

// SyncDir implements FS.
func (m *MemFS) SyncDir(path string) error {
	return m.do("syncdir", nil, func() error {
		d, err := m.dir(path)
		if err == nil {
			d.durable = maps.Clone(d.now)
		}
		return err
	})
}

// Create implements FS.
func (m *MemFS) Create(path string) (File, error) {
	f := &memFile{}
	return &memHandle{m, f}, m.do("create", nil, func() error { return m.put(path, f) })
}

// Append implements FS.
func (m *MemFS) Append(path string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.file(path)
	return &memHandle{m, f}, err
}

// Open implements FS.
func (m *MemFS) Open(path string) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.file(path)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(f.data[:len(f.data):len(f.data)])), nil
}

// Rename implements FS.
func (m *MemFS) Rename(from, to string) error {
	return m.do("rename", nil, func() error {
		f, err := m.file(from)
		if err != nil {
			return err
		}
		d, err := m.dir(filepath.Dir(to))
		if err != nil {
			return err
		}
		d.now[filepath.Base(to)] = f
		return m.unlink(from)
	})
}

// Remove implements FS.
func (m *MemFS) Remove(path string) error {
	return m.do("remove", nil, func() error {
		if _, err := m.file(path); err != nil {
			return err
		}
		return m.unlink(path)
	})
}

func (m *MemFS) unlink(path string) error {
	d, err := m.dir(filepath.Dir(path))
	if err == nil {
		delete(d.now, filepath.Base(path))
	}
	return err
}

// Lock implements FS.
func (m *MemFS) Lock(path string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.dir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if m.locks[path] {
		return nil, &LockedError{}
	}
	m.locks[path] = true
	return &memLock{m, path}, nil
}

// Held implements FS.
func (m *MemFS) Held(path string) (bool, int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.locks[path], 0, nil
}

type memLock struct {
	m    *MemFS
	path string
}

// Close lets the lock go.
func (l *memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	delete(l.m.locks, l.path)
	return nil
}

type memHandle struct {
	m *MemFS
	f *memFile
}

// Write implements io.Writer.
func (h *memHandle) Write(b []byte) (int, error) {
	half := func() { h.f.data = append(h.f.data, b[:len(b)/2]...) }
	err := h.m.do("write", half, func() error {
		h.f.data = append(h.f.data, b...)
		return nil
	})
	if err != nil {
		return len(b) / 2, err
	}
	return len(b), nil
}

// Sync implements File.
func (h *memHandle) Sync() error {
	return h.m.do("sync", nil, func() error {
		h.m.syncs++
		h.f.durable = h.f.data[:len(h.f.data):len(h.f.data)]
		return nil
	})
}

// Truncate implements File.
func (h *memHandle) Truncate(size int64) error {
	return h.m.do("truncate", nil, func() error {
		if size < 0 || size > int64(len(h.f.data)) {
			return fmt.Errorf("truncate to %d: out of range", size)
		}
		h.f.data = bytes.Clone(h.f.data[:size]) // durable keeps the old bytes
		return nil
	})
}

// Close implements io.Closer.
func (h *memHandle) Close() error { return nil }
