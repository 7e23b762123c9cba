package journal

import (
	"io/fs"
	"maps"
)

// Fork is another disk of the same content, what is not synced yet included:
// what a process that is killed leaves to the next one. The disk itself goes on.
func (m *MemFS) Fork() *MemFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := NewMemFS()
	n.root = m.root.fork(map[*memFile]*memFile{})
	return n
}

// fork copies a directory; seen holds the files that were, since one file may
// be in what is now and in what is durable.
func (d *memDir) fork(seen map[*memFile]*memFile) *memDir {
	n := newMemDir()
	dirs := map[*memDir]*memDir{}
	each := func(from, to map[string]any) {
		for name, e := range from {
			switch e := e.(type) {
			case *memDir:
				if dirs[e] == nil {
					dirs[e] = e.fork(seen)
				}
				to[name] = dirs[e]
			case *memFile:
				if seen[e] == nil { // bytes are only ever appended: the full slices keep them apart
					seen[e] = &memFile{data: e.data[:len(e.data):len(e.data)], durable: e.durable}
				}
				to[name] = seen[e]
			}
		}
	}
	each(d.now, n.now)
	each(d.durable, n.durable)
	return n
}

// Durable is what a power cut would leave of a file; an error of fs.ErrNotExist
// where it would leave none. The bytes are not to be changed.
func (m *MemFS) Durable(path string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.file(path)
	if err != nil {
		return nil, err
	}
	if f.durable == nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return f.durable, nil
}

// Contents calls f with every file of the disk, in no order.
func (m *MemFS) Contents(f func(path string, b []byte)) {
	m.mu.Lock()
	files := map[string][]byte{}
	m.root.walk("", files)
	m.mu.Unlock()
	for path, b := range files {
		f(path, b)
	}
}

func (d *memDir) walk(at string, into map[string][]byte) {
	for name, e := range maps.Clone(d.now) {
		switch e := e.(type) {
		case *memDir:
			e.walk(at+"/"+name, into)
		case *memFile:
			into[at+"/"+name] = e.data[:len(e.data):len(e.data)]
		}
	}
}
