package journal

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/gate"
)

const testRun = "20260101-120000-ab3d"

// tick is a clock that moves a second with every look.
type tick struct {
	env.SystemClock
	mu sync.Mutex
	n  int
}

func (c *tick) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return time.Date(2026, 1, 1, 12, 0, c.n, 0, time.UTC)
}

// bodiesOfRun is a small run with a record of most types.
func bodiesOfRun() []Body {
	ref := cluster.Ref{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "istio-system", Name: "istiod"}
	before := &cluster.Object{Object: map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "spec": map[string]any{"replicas": int64(1)}}}
	return []Body{
		&Begin{Run: testRun, Runbook: "istio-inplace", RunbookVersion: "1.0.0", From: "1.30.3", To: "1.31.0", ClusterUID: "1b2c", Context: "sim"},
		&StepStart{Path: "control plane", Name: "control plane"},
		&Call{Step: "control plane", Builtin: "kube.get", Value: Value{Inline: []byte(`{"a":1}`)}},
		&Plan{Step: "control plane", Seq: 1, Builtin: "kube.apply", Plan: Value{Inline: []byte(`{"effects":[]}`)}},
		&Intent{
			Key: "k1", Step: "control plane", Attempt: 1,
			Effect:   &effect.Effect{Verb: effect.Apply, Ref: ref, Class: effect.ControlPlane, Body: []byte(`{"x":"<&>"}`), Before: before, Undo: effect.Undo{Kind: effect.UndoRestore}},
			Findings: []gate.Finding{{Code: gate.BackupCovers, Verdict: gate.Warn, Ref: ref, Problem: "no"}},
		},
		&Outcome{Key: "k1", Status: Done, Result: &effect.Result{Object: before}},
		&StepEnd{Path: "control plane", OK: true},
		&End{Status: RunDone},
	}
}

func fill(t *testing.T, j Journal) {
	t.Helper()
	for i, b := range bodiesOfRun() {
		seq, err := j.Append(b, true)
		if err != nil || seq != uint64(i+1) {
			t.Fatalf("append %s: seq %d, %v", b.RecordType(), seq, err)
		}
	}
}

func count(t *testing.T, j Journal) int {
	t.Helper()
	n := 0
	for r, err := range j.Records() {
		if err != nil {
			t.Fatal(err)
		}
		n++
		if _, err := r.Decode(); err != nil || r.Seq != uint64(n) {
			t.Fatalf("record %d: seq %d, %v", n, r.Seq, err)
		}
	}
	return n
}

// written is the journal file of a whole run, its path inside an otherwise
// equal disk, and the offset of each line's end.
func written(t *testing.T) (data []byte, ends []int) {
	t.Helper()
	m := NewMemFS()
	j, err := Create(m, "/s", testRun, &tick{})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, j)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := m.file("/s/" + testRun + "/journal")
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range f.data {
		if c == '\n' {
			ends = append(ends, i+1)
		}
	}
	return f.data, ends
}

// diskWith is a disk on which the run's journal file holds data.
func diskWith(t testing.TB, data []byte) *MemFS {
	t.Helper()
	m := NewMemFS()
	if err := mkdirs(m, "/s/"+testRun+"/blobs"); err != nil {
		t.Fatal(err)
	}
	f := &memFile{data: bytes.Clone(data), durable: bytes.Clone(data)}
	if err := m.put("/s/"+testRun+"/journal", f); err != nil {
		t.Fatal(err)
	}
	if err := m.SyncDir("/s/" + testRun); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRoundTrip(t *testing.T) {
	for name, fsys := range map[string]FS{"memory": NewMemFS(), "disk": OS{}} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "rutter", "runs")
			j, err := Create(fsys, root, testRun, &tick{})
			if err != nil {
				t.Fatal(err)
			}
			fill(t, j)
			big := bytes.Repeat([]byte("x"), 3*inlineMax)
			v, err := StoreValue(j, big)
			if err != nil || v.Blob == "" {
				t.Fatalf("%+v, %v", v, err)
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			if err := j.Close(); err != nil {
				t.Fatalf("second close: %v", err)
			}
			if _, err := j.Append(&Log{}, true); !errors.Is(err, ErrClosed) {
				t.Fatalf("append after close: %v", err)
			}
			j, err = Open(fsys, root, testRun, &tick{})
			if err != nil {
				t.Fatal(err)
			}
			if n := count(t, j); n != len(bodiesOfRun()) {
				t.Fatalf("%d records", n)
			}
			if got, err := LoadValue(j, v); err != nil || !bytes.Equal(got, big) {
				t.Fatalf("blob: %d bytes, %v", len(got), err)
			}
			if seq, err := j.Append(&Resume{}, false); err != nil || seq != 9 {
				t.Fatalf("seq %d, %v", seq, err)
			}
			if n := count(t, j); n != 9 {
				t.Fatalf("%d records after append", n)
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestIntentKeepsBeforeImage(t *testing.T) {
	j, err := Memory(testRun, &tick{})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, j)
	for r, err := range j.Records() {
		if err != nil {
			t.Fatal(err)
		}
		b, err := r.Decode()
		if err != nil {
			t.Fatal(err)
		}
		in, ok := b.(*Intent)
		if !ok {
			continue
		}
		if got := fmt.Sprint(in.Effect.Before.Object["spec"]); got != "map[replicas:1]" {
			t.Errorf("before-image: %s", got)
		}
		if string(in.Effect.Body) != `{"x":"<&>"}` && string(in.Effect.Body) != `{"x":"\u003c\u0026\u003e"}` {
			t.Errorf("body: %s", in.Effect.Body)
		}
		if in.Findings[0].Verdict != gate.Warn || in.Effect.Undo.Kind != effect.UndoRestore {
			t.Errorf("%+v", in)
		}
		return
	}
	t.Fatal("no intent")
}

func TestTornTailAtEveryByte(t *testing.T) {
	data, ends := written(t)
	for cut := range len(data) {
		whole := 0 // lines that are complete
		for whole < len(ends) && ends[whole] <= cut {
			whole++
		}
		for _, junk := range [][]byte{nil, make([]byte, 7), append(make([]byte, 7), '\n')} {
			m := diskWith(t, append(bytes.Clone(data[:cut]), junk...))
			j, err := Open(m, "/s", testRun, &tick{})
			if whole <= 1 { // no record
				if !errors.Is(err, ErrNotBegun) {
					t.Fatalf("cut at %d, junk %q: %v", cut, junk, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("cut at %d, junk %q: %v", cut, junk, err)
			}
			if n := count(t, j); n != whole-1 {
				t.Fatalf("cut at %d: %d records, want %d", cut, n, whole-1)
			}
			if _, err := j.Append(&Resume{}, true); err != nil {
				t.Fatal(err)
			}
			if j, err = Open(m.Crash(0), "/s", testRun, &tick{}); err != nil || count(t, j) != whole {
				t.Fatalf("cut at %d, reopened: %v", cut, err)
			}
		}
	}
}

func TestFlippedByteIsRefusedWithPosition(t *testing.T) {
	data, ends := written(t)
	start := 0
	for line, end := range ends {
		// First, middle and last byte before the newline of each line.
		for _, at := range []int{start, start + 9, start + 20, (start + end) / 2, end - 2} {
			bad := bytes.Clone(data)
			bad[at] ^= 0x04
			_, err := Open(diskWith(t, bad), "/s", testRun, &tick{})
			var d *DamageError
			if line == 0 && errors.Is(err, ErrNewer) {
				continue // the version's own digit
			}
			if !errors.As(err, &d) || !errors.Is(err, ErrDamaged) {
				t.Fatalf("record %d, byte %d: %v", line, at, err)
			}
			if d.Record != uint64(line) || d.Offset != int64(start) {
				t.Errorf("byte %d: reported as record %d at %d, want %d at %d", at, d.Record, d.Offset, line, start)
			}
		}
		start = end
	}
}

func TestRemovedOrSwappedRecordIsRefused(t *testing.T) {
	data, ends := written(t)
	without := append(bytes.Clone(data[:ends[2]]), data[ends[3]:]...)
	swapped := bytes.Join([][]byte{data[:ends[2]], data[ends[3]:ends[4]], data[ends[2]:ends[3]], data[ends[4]:]}, nil)
	for name, bad := range map[string][]byte{"removed": without, "swapped": swapped} {
		if _, err := Open(diskWith(t, bad), "/s", testRun, &tick{}); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNulsInTheMiddleAreDamage(t *testing.T) {
	data, ends := written(t)
	bad := bytes.Clone(data)
	copy(bad[ends[2]+90:], make([]byte, 5))
	if _, err := Open(diskWith(t, bad), "/s", testRun, &tick{}); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

func TestNewerFormatAndTypeAreRefused(t *testing.T) {
	data, _ := written(t)
	newer := bytes.Replace(data, []byte("rutter-journal 1 "), []byte("rutter-journal 2 "), 1)
	m := diskWith(t, newer)
	if _, err := Open(m, "/s", testRun, &tick{}); !errors.Is(err, ErrNewer) {
		t.Error(err)
	}
	sums, err := NewStore(m, "/s", &tick{}, rand.Reader).List()
	if err != nil || len(sums) != 1 || sums[0].Status != RunNewer {
		t.Errorf("%+v, %v", sums, err)
	}
	r := Record{Seq: 7, Type: "weather", Body: []byte(`{}`)}
	if _, err := r.Decode(); !errors.Is(err, ErrNewer) {
		t.Error(err)
	}
}

// TestCrashAtEveryOperation brings the host down at each disk operation of a
// run, with any share of the unsynced bytes surviving, and wants every record
// and blob back whose sync had returned.
func TestCrashAtEveryOperation(t *testing.T) {
	for at := 1; ; at++ {
		crashed := false
		for _, keep := range []int{0, 1, 60, 1 << 20} {
			m := NewMemFS()
			m.Fault(func(op int, _ string) error {
				if op == at {
					return ErrCrashed
				}
				return nil
			})
			acked, blobs, err := runUntilError(m)
			if err == nil {
				continue
			}
			crashed = true
			j, err := Open(m.Crash(keep), "/s", testRun, &tick{})
			if err != nil {
				if acked > 0 || !(errors.Is(err, ErrNoRun) || errors.Is(err, ErrNotBegun)) {
					t.Fatalf("operation %d, keep %d, %d records acknowledged: %v", at, keep, acked, err)
				}
				continue
			}
			if n := count(t, j); n < acked {
				t.Fatalf("operation %d, keep %d: %d records, %d were acknowledged", at, keep, n, acked)
			}
			for _, d := range blobs {
				if _, err := j.Get(d); err != nil {
					t.Fatalf("operation %d, keep %d: %v", at, keep, err)
				}
			}
			if _, err := j.Append(&Resume{}, true); err != nil {
				t.Fatal(err)
			}
		}
		if !crashed {
			if at < 20 {
				t.Fatalf("only %d operations in the whole run", at)
			}
			return
		}
	}
}

// runUntilError writes a run and returns how many records and which blobs were
// acknowledged as durable.
func runUntilError(m *MemFS) (acked int, blobs []string, err error) {
	j, err := Create(m, "/s", testRun, &tick{})
	if err != nil {
		return 0, nil, err
	}
	for i, b := range bodiesOfRun() {
		d, err := j.Put(fmt.Appendf(nil, "blob %d", i))
		if err != nil {
			return acked, blobs, err
		}
		blobs = append(blobs, d)
		durable := i%3 != 1 // some ride along with the next sync
		n, err := j.Append(b, durable)
		if err != nil {
			return acked, blobs, err
		}
		if durable {
			acked = int(n)
		}
	}
	return acked, blobs, j.Close()
}

// TestErrorIsFinal fails each operation of a run once with an I/O error: the
// journal must refuse everything afterwards, and lose nothing acknowledged.
func TestErrorIsFinal(t *testing.T) {
	for _, ioErr := range []error{syscall.ENOSPC, syscall.EIO} {
		for at := 1; ; at++ {
			m := NewMemFS()
			kind := ""
			m.Fault(func(op int, k string) error {
				if op == at {
					kind = k
					return ioErr
				}
				return nil
			})
			acked, _, err := runUntilError(m)
			if kind == "" {
				break
			}
			if !errors.Is(err, ioErr) {
				t.Fatalf("operation %d (%s): %v", at, kind, err)
			}
			j, err := Open(m.Crash(1<<20), "/s", testRun, &tick{})
			if err == nil && count(t, j) < acked {
				t.Fatalf("operation %d (%s): lost acknowledged records", at, kind)
			}
			if err != nil && acked > 0 {
				t.Fatalf("operation %d (%s): %v", at, kind, err)
			}
		}
	}
}

func TestBrokenStaysBroken(t *testing.T) {
	m := NewMemFS()
	j, err := Create(m, "/s", testRun, &tick{})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, j)
	failed := false
	m.Fault(func(_ int, kind string) error {
		if kind == "sync" && !failed {
			failed = true
			return syscall.EIO
		}
		return nil
	})
	if _, err := j.Append(&Log{}, true); !errors.Is(err, ErrBroken) || !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if _, err := j.Append(&Log{}, false); !errors.Is(err, ErrBroken) {
		t.Error(err)
	}
	if err := j.Sync(); !errors.Is(err, ErrBroken) {
		t.Error(err)
	}
	if _, err := j.Put([]byte("x")); !errors.Is(err, ErrBroken) {
		t.Error(err)
	}
}

func TestUnusableFolderIsSaidFirst(t *testing.T) {
	for at, err := range map[int]error{1: fs.ErrPermission, 7: syscall.ENOSPC} {
		m := NewMemFS()
		m.Fault(func(op int, _ string) error {
			if op >= at {
				return err
			}
			return nil
		})
		_, cerr := Create(m, "/s", testRun, &tick{})
		var d *diag.Error
		if !errors.As(cerr, &d) || d.Code != diag.Usage || d.Next == "" || d.Changed != "nothing" || !errors.Is(cerr, err) {
			t.Errorf("%v: %#v", err, cerr)
		}
	}
}

// slowSync lets a test hold a sync open.
type slowSync struct {
	*MemFS
	gate chan struct{}
}

type slowFile struct {
	File
	gate chan struct{}
}

func (s slowSync) Create(path string) (File, error) {
	f, err := s.MemFS.Create(path)
	if filepath.Base(path) != journalName {
		return f, err
	}
	return slowFile{f, s.gate}, err
}

func (f slowFile) Sync() error {
	<-f.gate
	return f.File.Sync()
}

func TestConcurrentAppendsShareSyncs(t *testing.T) {
	const writers = 50
	s := slowSync{NewMemFS(), make(chan struct{}, 1000)}
	s.gate <- struct{}{} // for the header
	j, err := Create(s, "/s", testRun, &tick{})
	if err != nil {
		t.Fatal(err)
	}
	before := s.Syncs()
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			if _, err := j.Append(&Log{Message: "x"}, true); err != nil {
				t.Error(err)
			}
		})
	}
	// All have written (records are in the file) while the first sync is held.
	for {
		inner := j.(*file)
		inner.mu.Lock()
		n := inner.seq
		inner.mu.Unlock()
		if n == writers {
			break
		}
	}
	for range 3 {
		s.gate <- struct{}{}
	}
	wg.Wait()
	if n := s.Syncs() - before; n > 2 {
		t.Errorf("%d appends took %d syncs, want at most 2", writers, n)
	}
	if n := count(t, j); n != writers {
		t.Errorf("%d records", n)
	}
}

func TestOnlyOneProcessHoldsARun(t *testing.T) {
	root := t.TempDir()
	for name, fsys := range map[string]FS{"memory": NewMemFS(), "disk": OS{}} {
		t.Run(name, func(t *testing.T) {
			s := NewStore(fsys, root, &tick{}, rand.Reader)
			j, err := s.Create(testRun)
			if err != nil {
				t.Fatal(err)
			}
			fill(t, j)
			_, err = s.Open(testRun)
			var l *LockedError
			if !errors.As(err, &l) || !errors.Is(err, ErrLocked) || l.Run != testRun {
				t.Fatalf("second open: %v", err)
			}
			if name == "disk" && l.PID != os.Getpid() {
				t.Errorf("pid %d", l.PID)
			}
			if sum, err := s.Latest(); err != nil || sum.Status != RunRunning {
				t.Errorf("%+v, %v", sum, err)
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			if j, err = s.Open(testRun); err != nil {
				t.Fatalf("after close: %v", err)
			}
			if err := j.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFileModes(t *testing.T) {
	root := filepath.Join(t.TempDir(), "state")
	j, err := Create(OS{}, root, testRun, &tick{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Put([]byte("secret")); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	err = filepath.Walk(root, func(path string, fi os.FileInfo, err error) error {
		if err == nil && fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", path, fi.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestDamagedBlobIsRefused(t *testing.T) {
	m := NewMemFS()
	j, err := Create(m, "/s", testRun, &tick{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := j.Put([]byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := m.file("/s/" + testRun + "/blobs/" + strings.TrimPrefix(d, digestPrefix))
	if err != nil {
		t.Fatal(err)
	}
	f.data[0] ^= 1
	if _, err := j.Get(d); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	for _, bad := range []string{"", "sha256:", "sha256:../../x", "md5:00", digestPrefix + strings.Repeat("0", 64)} {
		if _, err := j.Get(bad); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	data := []byte(headerLine(testRun) + "\n")
	line, c, err := frame(sum([]byte(headerLine(testRun))), &Record{Seq: 1, Type: TypeBegin, Body: []byte(`{}`)})
	if err != nil {
		f.Fatal(err)
	}
	line2, _, err := frame(c, &Record{Seq: 2, Type: TypeEnd, Body: []byte(`{}`)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(append(data, line...), line2...))
	f.Add(data)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		m := diskWith(t, data)
		if _, err := NewStore(m, "/s", &tick{}, rand.Reader).List(); err != nil {
			t.Fatal(err) // a bad journal never fails the list
		}
		j, err := Open(m, "/s", testRun, &tick{})
		if err != nil {
			return
		}
		if _, err := j.Append(&Log{}, true); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, err := range j.Records() {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n < 2 {
			t.Fatalf("%d records", n)
		}
	})
}

func BenchmarkAppendSync(b *testing.B) {
	for name, fsys := range map[string]FS{"disk": OS{}, "memory": NewMemFS()} {
		b.Run(name, func(b *testing.B) {
			j, err := Create(fsys, b.TempDir(), testRun, env.SystemClock{})
			if err != nil {
				b.Fatal(err)
			}
			in := bodiesOfRun()[4]
			for b.Loop() {
				if _, err := j.Append(in, true); err != nil {
					b.Fatal(err)
				}
			}
			if err := j.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

var _ io.Closer = Journal(nil)
