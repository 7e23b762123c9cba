package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"

	"rutter.dev/rutter/runtime/diag"
)

// Format is the version of the file format that this package writes, and the
// newest that it reads.
const Format = 1

// Conditions that callers branch on; match with errors.Is.
var (
	// ErrBroken: an earlier write or sync failed. Nothing more can be written,
	// because what is on the disk is not known any more; resume reads it again.
	ErrBroken = errors.New("the journal is broken: an earlier write to it failed")
	// ErrLocked: another process holds the run.
	ErrLocked = errors.New("another process holds the run")
	// ErrNoBlob: what a record names is not beside the journal any more.
	ErrNoBlob = errors.New("it is missing")
	// ErrTaken: another process has written the run since this one did, as only
	// in the cluster it can. That one's journal is the run's.
	ErrTaken = errors.New("another process writes this run")
	// ErrDamaged: a record before the end does not verify.
	ErrDamaged = errors.New("the journal is damaged")
	// ErrNewer: written by a later rutter.
	ErrNewer = errors.New("written by a newer rutter")
	// ErrNotBegun: the run died before its first record; it changed nothing.
	ErrNotBegun = errors.New("the run never began; nothing was changed")
	// ErrNoRun: there is no such run.
	ErrNoRun = errors.New("no such run")
	// ErrClosed: the journal was closed.
	ErrClosed = errors.New("the journal is closed")
)

// DamageError says where a journal is damaged. It matches ErrDamaged.
type DamageError struct {
	Path   string
	Record uint64 // the record that does not verify, from 1; 0 is the header
	Offset int64  // of its first byte in the file
	Reason string
}

// Error names file, record and byte offset.
func (e *DamageError) Error() string {
	return fmt.Sprintf("%s: record %d at byte %d: %s", e.Path, e.Record, e.Offset, e.Reason)
}

// Is makes a DamageError match ErrDamaged.
func (e *DamageError) Is(target error) bool { return target == ErrDamaged }

// LockedError says who holds a run. It matches ErrLocked.
type LockedError struct {
	Run string
	PID int // 0 when not known
}

// Error names the run and the process that holds it.
func (e *LockedError) Error() string {
	if e.PID == 0 {
		return "run " + e.Run + " is still alive in another process"
	}
	return fmt.Sprintf("run %s is still alive in process %d", e.Run, e.PID)
}

// Is makes a LockedError match ErrLocked.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// Blobs is the content-addressed store beside the journal. Digests are
// "sha256:<hex>". Safe for concurrent use.
type Blobs interface {
	// Put returns once the bytes are durable.
	Put(b []byte) (digest string, err error)
	// Get returns the bytes, verified against the digest; errors match
	// fs.ErrNotExist or ErrDamaged.
	Get(digest string) ([]byte, error)
}

// Journal is the write-ahead log of one run. Safe for concurrent use.
type Journal interface {
	Blobs
	// Run is the id of the run.
	Run() string
	// Append adds a record and returns its number. With sync it returns once
	// the record and all before it are durable; concurrent callers share one
	// sync. After any error but an unencodable body every later Append fails
	// with ErrBroken.
	Append(body Body, sync bool) (seq uint64, err error)
	// Sync makes everything appended so far durable.
	Sync() error
	// Records yields the records written so far, in order, verified. It stops
	// after the first error.
	Records() iter.Seq2[Record, error]
	// Close syncs, closes and lets the run go. Idempotent.
	Close() error
}

// inlineMax is the size up to which a Value stays in its record; above it, it
// goes into a blob, so that reading a journal stays quick.
const inlineMax = 8 << 10

// Value is recorded data: in the record when it is small, else by digest.
type Value struct {
	Inline json.RawMessage `json:"inline,omitempty"`
	Blob   string          `json:"blob,omitempty"`
}

// StoreValue makes a Value of JSON, putting what is large into b.
func StoreValue(b Blobs, raw json.RawMessage) (Value, error) {
	if len(raw) <= inlineMax {
		return Value{Inline: raw}, nil
	}
	d, err := b.Put(raw)
	if err != nil {
		return Value{}, err
	}
	return Value{Blob: d}, nil
}

// LoadValue gives the JSON of v back; nil for the zero Value.
func LoadValue(b Blobs, v Value) (json.RawMessage, error) {
	if v.Blob == "" {
		return v.Inline, nil
	}
	return b.Get(v.Blob)
}

// unusable lays out why a state folder can't be written.
func unusable(fsys FS, dir, problem string, err error) error {
	return badFolder(fsys, err, diag.Error{
		Subject: dir, Problem: problem,
		Expect: "a writable state folder", Next: "free some space, or set XDG_STATE_HOME to a folder with room",
	})
}

// unreadable lays out why something in a state folder, or all of it, can't be read.
func unreadable(fsys FS, dir, what string, err error) error {
	return badFolder(fsys, err, diag.Error{
		Subject: dir, Problem: what + " can't be read",
		Expect: "a readable state folder", Next: "set XDG_STATE_HOME, or --state, to the folder that holds the runs",
	})
}

// badFolder completes e, which stands for what is wrong with a folder: err may
// say more, and what is no folder has advice of its own.
func badFolder(fsys FS, err error, e diag.Error) error {
	e.Code, e.Err, e.Changed = diag.Usage, err, "nothing"
	if errors.Is(err, fs.ErrPermission) {
		e.Expect, e.Next = "a writable state folder", "give yourself access to it, or set XDG_STATE_HOME to a folder of yours"
	}
	if a, ok := fsys.(interface {
		advice() (subject, expect, next string)
	}); ok {
		e.Subject, e.Expect, e.Next = a.advice()
	}
	return &e
}
