package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/lock"
)

// ClusterRoot is the root of the paths of a Secrets.
const ClusterRoot = "/runs"

// chunkSize is the most that one Secret holds: the API server takes 1 MiB, and
// the last one is written anew with each sync.
const chunkSize = 128 << 10

// The labels and annotations of a Secret that holds part of a run.
const (
	labelRun         = "rutter.dev/run"
	labelPart        = "rutter.dev/part" // "file" or "chunk"
	annotationFile   = "rutter.dev/file"
	annotationChunks = "rutter.dev/chunks"
	annotationSum    = "rutter.dev/sha256"
	typeOfSecret     = "rutter.dev/journal" // #nosec G101 -- the type of a Secret
)

// ChunkError says which Secret of a run is missing or not as it was written.
// It matches ErrDamaged.
type ChunkError struct {
	Namespace, Secret string
	Chunk, Of         int // from 1
	Problem           string
}

// Error names the Secret, and which of how many it is.
func (e *ChunkError) Error() string {
	return fmt.Sprintf("secret/%s in %s (chunk %d of %d): %s", e.Secret, e.Namespace, e.Chunk, e.Of, e.Problem)
}

// Is makes a ChunkError match ErrDamaged.
func (e *ChunkError) Is(target error) bool { return target == ErrDamaged }

// Secrets is an FS in a cluster, for journals that another machine can go on
// with: a file is a Secret that names it and says in how many chunks it is, and
// a Secret for each chunk. Each write demands the version that it was made for,
// so that of two processes that append to one journal the second breaks off.
// What holds a run is the Lease of its mesh; Lock takes nothing.
//
// It writes by itself, not through the gates of a runbook, and nothing but
// Secrets of its own type in one namespace; it needs get, list, create, update
// and delete of Secrets there. What the journal seals is sealed here too.
type Secrets struct {
	w     cluster.Writer
	ns    string
	clock env.Clock
	ctx   context.Context
	chunk int // chunkSize, but in tests

	mu     sync.Mutex
	drafts map[string]*draft // files that get their name when they are whole
}

// NewSecrets is the FS in a namespace. ctx ends every request.
func NewSecrets(ctx context.Context, w cluster.Writer, namespace string, clock env.Clock) *Secrets {
	return &Secrets{w: w, ns: namespace, clock: clock, ctx: ctx, chunk: chunkSize, drafts: map[string]*draft{}}
}

var _ FS = (*Secrets)(nil)

// Mkdir implements FS: there are no directories.
func (s *Secrets) Mkdir(string) error { return nil }

// SyncDir implements FS: a Secret is durable when its request is answered.
func (s *Secrets) SyncDir(string) error { return nil }

// Lock implements FS. Other processes are kept out by the mesh's Lease and by
// the versions of the Secrets.
func (s *Secrets) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

// Held implements FS: by whom the mesh is locked, at a glance.
func (s *Secrets) Held(p string) (bool, int, error) {
	i, err := lock.Look(s.ctx, s.w, s.ns)
	if err != nil {
		return false, 0, err
	}
	return i != nil && i.Run == runOf(p) && i.Live(s.clock.Now()), 0, nil
}

// ReadDir implements FS for the root: the runs.
func (s *Secrets) ReadDir(p string) ([]string, error) {
	if p != ClusterRoot {
		return nil, &fs.PathError{Op: "readdir", Path: p, Err: fs.ErrNotExist}
	}
	runs := map[string]bool{}
	err := s.each(labelPart+"=file", func(o *cluster.Object) error {
		if o.GetAnnotations()[annotationFile] == journalName {
			runs[o.GetLabels()[labelRun]] = true
		}
		return nil
	})
	return slices.Sorted(maps.Keys(runs)), err
}

func (s *Secrets) each(selector string, f func(*cluster.Object) error) error {
	res, err := s.w.ResourceFor(s.ctx, s.ref("").GVK())
	if err != nil {
		return err
	}
	return s.w.List(s.ctx, res, cluster.ListOptions{Namespace: s.ns, Labels: selector, MetadataOnly: true}, f)
}

// RemoveRun takes everything of a run away.
func (s *Secrets) RemoveRun(run string) error {
	var names []string
	err := s.each(labelRun+"="+run, func(o *cluster.Object) error {
		names = append(names, o.GetName())
		return nil
	})
	for _, n := range names {
		if derr := s.delete(n); err == nil {
			err = derr
		}
	}
	return err
}

// Create implements FS. A file with ".tmp" in its name is kept back until it is
// renamed: a Secret can't be.
func (s *Secrets) Create(p string) (File, error) {
	if strings.Contains(path.Base(p), ".tmp") {
		s.mu.Lock()
		defer s.mu.Unlock()
		d := &draft{}
		s.drafts[p] = d
		return d, nil
	}
	f := &secretFile{s: s, path: p}
	head := f.head(0)
	got, err := s.create(head)
	if err != nil {
		return nil, err
	}
	f.headRV = got.GetResourceVersion()
	return f, nil
}

// Append implements FS.
func (s *Secrets) Append(p string) (File, error) {
	f := &secretFile{s: s, path: p}
	_, err := f.load()
	return f, err
}

// Open implements FS.
func (s *Secrets) Open(p string) (io.ReadCloser, error) {
	f := &secretFile{s: s, path: p}
	b, err := f.load()
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// Rename implements FS: a file that was kept back gets its name, and is there.
func (s *Secrets) Rename(from, to string) error {
	s.mu.Lock()
	d := s.drafts[from]
	delete(s.drafts, from)
	s.mu.Unlock()
	if d == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	f := &secretFile{s: s, path: to}
	if old, err := f.load(); err == nil && bytes.Equal(old, d.data) {
		return nil
	}
	if err := s.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// The chunks first: a file that has a name is whole.
	for n := 0; n*s.chunk < len(d.data); n++ {
		if _, err := s.create(f.chunk(n, d.data[n*s.chunk:min(len(d.data), (n+1)*s.chunk)])); err != nil {
			return err
		}
	}
	_, err := s.create(f.head((len(d.data) + s.chunk - 1) / s.chunk))
	return err
}

// Remove implements FS.
func (s *Secrets) Remove(p string) error {
	s.mu.Lock()
	_, kept := s.drafts[p]
	delete(s.drafts, p)
	s.mu.Unlock()
	if kept {
		return nil
	}
	f := &secretFile{s: s, path: p}
	err := s.delete(f.name(-1))
	for n := 0; ; n++ { // also those of one that never got its name
		if derr := s.delete(f.name(n)); errors.Is(derr, fs.ErrNotExist) {
			return err
		} else if derr != nil {
			return derr
		}
	}
}

func (s *Secrets) ref(name string) cluster.Ref {
	return cluster.Ref{Version: "v1", Kind: "Secret", Namespace: s.ns, Name: name}
}

func (s *Secrets) get(name string) (*cluster.Object, error) {
	var got *cluster.Object
	err := s.persist(func() (err error) {
		got, err = s.w.Get(s.ctx, s.ref(name))
		return err
	})
	return got, err
}

// create makes a Secret. That there is one already is fs.ErrExist, unless it is
// this very one: an own request whose answer never came.
func (s *Secrets) create(o *cluster.Object) (*cluster.Object, error) {
	var got *cluster.Object
	sent := false
	err := s.persist(func() (err error) {
		got, err = s.w.Create(s.ctx, o, cluster.WriteOptions{})
		if errors.Is(err, cluster.ErrExists) && sent {
			got, err = s.same(o, err)
		}
		sent = true
		return err
	})
	if errors.Is(err, cluster.ErrExists) {
		err = fmt.Errorf("%w: %w", fs.ErrExist, err)
	}
	return got, err
}

// replace writes a Secret on condition that it is at version.
func (s *Secrets) replace(o *cluster.Object, version string) (*cluster.Object, error) {
	var got *cluster.Object
	sent := false
	err := s.persist(func() (err error) {
		got, err = s.w.Replace(s.ctx, o, cluster.WriteOptions{ResourceVersion: version})
		if errors.Is(err, cluster.ErrConflict) && sent {
			got, err = s.same(o, err)
		}
		sent = true
		return err
	})
	if errors.Is(err, cluster.ErrConflict) {
		err = fmt.Errorf("%w: %w", ErrTaken, err)
	}
	return got, err
}

// same is the stored Secret if it is o, else err.
func (s *Secrets) same(o *cluster.Object, err error) (*cluster.Object, error) {
	now, gerr := s.w.Get(s.ctx, cluster.RefOf(o))
	if gerr != nil {
		return nil, errors.Join(err, gerr)
	}
	for _, k := range []string{annotationSum, annotationChunks} {
		if now.GetAnnotations()[k] != o.GetAnnotations()[k] {
			return nil, err
		}
	}
	return now, nil
}

func (s *Secrets) delete(name string) error {
	sent := false
	return s.persist(func() error {
		err := s.w.Delete(s.ctx, s.ref(name), cluster.WriteOptions{})
		if errors.Is(err, cluster.ErrNotFound) && sent {
			return nil // by a request whose answer never came
		}
		sent = true
		return err
	})
}

// persistTries and the waits between them ride out the fail-over of an API server.
const persistTries = 6

// persist asks again while the cluster does not answer. All requests here can
// be: each is on condition of a version, or of an absence.
func (s *Secrets) persist(do func() error) error {
	wait := 500 * time.Millisecond
	for try := 1; ; try++ {
		err := do()
		switch {
		case errors.Is(err, cluster.ErrNotFound):
			return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		case errors.Is(err, cluster.ErrDenied):
			return fmt.Errorf("%w: %w", fs.ErrPermission, err)
		}
		again := errors.Is(err, cluster.ErrUnknown) || errors.Is(err, cluster.ErrThrottled) || errors.Is(err, cluster.ErrUnreachable)
		if !again || try == persistTries || s.clock.Sleep(s.ctx, wait) != nil {
			return err
		}
		wait *= 2
	}
}

// advice is what to do when the runs can't be read or written.
func (s *Secrets) advice() (subject, expect, next string) {
	return "secrets in " + s.ns, "the right to get, list, create, update and delete secrets in " + s.ns,
		"rutter rbac RUNBOOK --state cluster prints the roles that a run needs; or keep the run on this machine: leave out --state cluster"
}

// probeSize is one Secret: that they can be written is all there is to find out.
func (s *Secrets) probeSize() int { return s.chunk }
