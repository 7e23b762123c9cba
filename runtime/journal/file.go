package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"strings"
	"sync"

	"rutter.dev/rutter/runtime/env"
)

// file is the Journal on an FS.
type file struct {
	blobs
	fs    FS
	path  string
	run   string
	clock env.Clock
	lock  io.Closer
	f     File

	mu     sync.Mutex // guards the fields below and the order of writes
	seq    uint64
	size   int64
	chain  chain
	broken error

	syncing bool       // a leader is in f.Sync, without mu
	synced  uint64     // durable up to this record
	done    *sync.Cond // of mu: a sync ended
	closed  bool
}

// Create makes the journal of a new run in root/run and takes its lock. When
// the folder cannot be written or has no room, it says so before anything else
// happens. The journal's directory entry and header are durable on return.
func Create(fsys FS, root, run string, clock env.Clock) (Journal, error) {
	if err := validID(run); err != nil {
		return nil, err
	}
	dir := filepath.Join(root, run)
	if err := mkdirs(fsys, dir); err != nil {
		return nil, unusable(fsys, dir, "the state folder can't be written", err)
	}
	lock, err := fsys.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, lockError(fsys, dir, run, err)
	}
	j := newFile(fsys, dir, run, clock, lock)
	if err := j.create(dir); errors.Is(err, fs.ErrExist) {
		return nil, errors.Join(fmt.Errorf("run %s: there already is a run with this id: %w", run, fs.ErrExist), j.abandon())
	} else if err != nil {
		return nil, errors.Join(unusable(fsys, dir, "the journal can't be written", err), j.abandon())
	}
	return j, nil
}

// Open opens the journal of an existing run and takes its lock: all records
// are verified, and a torn tail is cut off. Errors match ErrNoRun, ErrLocked,
// ErrDamaged, ErrNewer or ErrNotBegun where that is what happened.
func Open(fsys FS, root, run string, clock env.Clock) (Journal, error) {
	if err := validID(run); err != nil {
		return nil, err
	}
	dir := filepath.Join(root, run)
	// Look first: taking the lock would make a lock file in any directory.
	r, err := fsys.Open(filepath.Join(dir, journalName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("run %s: %w", run, ErrNoRun)
	}
	if errors.Is(err, ErrDamaged) {
		return nil, fmt.Errorf("run %s: %w", run, err)
	}
	if err != nil {
		return nil, unreadable(fsys, dir, "the journal", err)
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("run %s: %w", run, err)
	}
	lock, err := fsys.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, lockError(fsys, dir, run, err)
	}
	j := newFile(fsys, dir, run, clock, lock)
	if err := j.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("run %s: %w", run, err), j.abandon())
	}
	return j, nil
}

// Memory is a journal that is kept in memory only.
func Memory(run string, clock env.Clock) (Journal, error) {
	return Create(NewMemFS(), "/runs", run, clock)
}

func newFile(fsys FS, dir, run string, clock env.Clock, lock io.Closer) *file {
	j := &file{
		fs: fsys, path: filepath.Join(dir, journalName), run: run, clock: clock, lock: lock,
		blobs: blobs{fs: fsys, dir: filepath.Join(dir, blobsName)},
	}
	j.done = sync.NewCond(&j.mu)
	return j
}

// probeSize is the room that a new run must find: enough for some tens of
// effects, so that a disk which is as good as full is noticed before the first.
const probeSize = 256 << 10

func (j *file) create(dir string) error {
	if err := mkdirs(j.fs, j.dir); err != nil {
		return err
	}
	if err := probe(j.fs, filepath.Join(dir, "probe")); err != nil {
		return err
	}
	f, err := j.fs.Create(j.path)
	if err != nil {
		return err
	}
	j.f = f
	header := headerLine(j.run) + "\n"
	if _, err := io.WriteString(f, header); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	j.chain = sum([]byte(headerLine(j.run)))
	j.size = int64(len(header))
	return j.fs.SyncDir(dir)
}

func probe(fsys FS, path string) error {
	f, err := fsys.Create(path)
	if err != nil {
		return err
	}
	size := probeSize
	if p, ok := fsys.(interface{ probeSize() int }); ok {
		size = p.probeSize()
	}
	_, err = f.Write(make([]byte, size))
	return errors.Join(err, f.Sync(), f.Close(), fsys.Remove(path))
}

// open scans the file, cuts a torn tail and opens it for appending.
func (j *file) open() error {
	s, err := scan(j.fs, j.path, j.run)
	if errors.Is(err, errTorn) && s.offset == 0 {
		return ErrNotBegun
	}
	cut := errors.Is(err, errTorn)
	if err != nil && !cut {
		return err
	}
	if s.seq == 0 {
		return ErrNotBegun
	}
	if j.f, err = j.fs.Append(j.path); err != nil {
		return err
	}
	if cut {
		if err := j.f.Truncate(s.offset); err != nil {
			return err
		}
	}
	// What was read may still be in the page cache of a killed process only;
	// from here on it is relied upon.
	if err := j.f.Sync(); err != nil {
		return err
	}
	j.seq, j.synced, j.chain, j.size = s.seq, s.seq, s.chain, s.offset
	return nil
}

// scan verifies a whole journal. The scanner is where it stopped.
func scan(fsys FS, path, run string) (*scanner, error) {
	r, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	s := newScanner(r, path, run, -1)
	err = s.header()
	for err == nil {
		_, err = s.next()
	}
	if cerr := r.Close(); cerr != nil {
		return s, errors.Join(err, cerr)
	}
	if err == io.EOF {
		err = nil
	}
	return s, err
}

// readFile yields the verified records of a journal up to limit bytes (-1: to
// its end or torn tail).
func readFile(fsys FS, path, run string, limit int64, yield func(Record, error) bool) {
	r, err := fsys.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("run %s: %w", run, ErrNoRun)
	}
	if err != nil {
		yield(Record{}, err)
		return
	}
	defer func() { _ = r.Close() }() // opened for reading: nothing can be lost
	s := newScanner(r, path, run, limit)
	if err = s.header(); err == nil {
		for {
			var rec Record
			if rec, err = s.next(); err != nil {
				break
			}
			if !yield(rec, nil) {
				return
			}
		}
	}
	// Within a limit every byte was once verified or written whole.
	if err != io.EOF && (limit >= 0 || !errors.Is(err, errTorn)) {
		yield(Record{}, err)
	}
}

// Run implements Journal.
func (j *file) Run() string { return j.run }

// Append implements Journal.
func (j *file) Append(body Body, durable bool) (uint64, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return 0, fmt.Errorf("%s record: %w", body.RecordType(), err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil {
		return 0, err
	}
	rec := Record{Seq: j.seq + 1, Time: j.clock.Now(), Type: body.RecordType(), Body: raw}
	line, c, err := frame(j.chain, &rec)
	if err != nil {
		return 0, err
	}
	if _, err := j.f.Write(line); err != nil {
		return 0, j.breakOff(err)
	}
	j.seq, j.chain, j.size = rec.Seq, c, j.size+int64(len(line))
	if durable {
		return rec.Seq, j.waitSync(rec.Seq)
	}
	return rec.Seq, nil
}

// Sync implements Journal.
func (j *file) Sync() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil {
		return err
	}
	return j.waitSync(j.seq)
}

// waitSync returns once record seq is durable. The first to come syncs for all
// that have been written by then; whoever comes during a sync waits for the
// next one. Called and left with mu held.
func (j *file) waitSync(seq uint64) error {
	for j.synced < seq {
		if j.broken != nil {
			return j.broken
		}
		if j.syncing {
			j.done.Wait()
			continue
		}
		j.syncing = true
		upTo := j.seq
		j.mu.Unlock()
		err := j.f.Sync()
		j.mu.Lock()
		j.syncing = false
		if err != nil {
			err = j.breakOff(err)
		} else {
			j.synced = upTo
		}
		j.done.Broadcast()
		if err != nil {
			return err
		}
	}
	return nil
}

func (j *file) usable() error {
	switch {
	case j.broken != nil:
		return j.broken
	case j.closed:
		return fmt.Errorf("run %s: %w", j.run, ErrClosed)
	}
	return nil
}

// breakOff makes the journal refuse everything from now on.
func (j *file) breakOff(err error) error {
	if j.broken == nil {
		j.broken = fmt.Errorf("%s: %w: %w", j.path, ErrBroken, err)
	}
	return j.broken
}

// Records implements Journal.
func (j *file) Records() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		j.mu.Lock()
		size := j.size
		j.mu.Unlock()
		readFile(j.fs, j.path, j.run, size, yield)
	}
}

// Put implements Blobs.
func (j *file) Put(b []byte) (string, error) {
	j.mu.Lock()
	err := j.usable()
	j.mu.Unlock()
	if err != nil {
		return "", err
	}
	return j.blobs.Put(b)
}

// Close implements Journal.
func (j *file) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	var err error
	if j.broken == nil {
		err = j.waitSync(j.seq)
	}
	for j.syncing {
		j.done.Wait()
	}
	j.closed = true
	return errors.Join(err, j.abandon())
}

// abandon closes the file and lets the lock go.
func (j *file) abandon() error {
	var err error
	if j.f != nil {
		err = j.f.Close()
	}
	return errors.Join(err, j.lock.Close())
}

func validID(run string) error {
	if run == "" || strings.ContainsAny(run, "/\\ \n\x00") || run[0] == '.' {
		return fmt.Errorf("run %q: not a run id, expected one like 20260101-120000-ab3d: %w", run, ErrNoRun)
	}
	return nil
}

func lockError(fsys FS, dir, run string, err error) error {
	var l *LockedError
	if errors.As(err, &l) {
		return &LockedError{Run: run, PID: l.PID}
	}
	return unusable(fsys, dir, "the run's lock can't be taken", err)
}

// mkdirs makes path and what is missing above it, each entry durable.
func mkdirs(fsys FS, path string) error {
	err := fsys.Mkdir(path)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	parent := filepath.Dir(path)
	if errors.Is(err, fs.ErrNotExist) && parent != path {
		if err := mkdirs(fsys, parent); err != nil {
			return err
		}
		err = fsys.Mkdir(path)
	}
	if err != nil {
		return err
	}
	return fsys.SyncDir(parent)
}
