package journal

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/lock"
	"rutter.dev/rutter/runtime/sim"
)

// testChunk is small, so that a record takes several.
const testChunk = 512

// secretsWorld is a simulated cluster that journals can be in.
func secretsWorld(t *testing.T) (*sim.Cluster, *Secrets) {
	t.Helper()
	c, err := sim.New(sim.Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	return c, secretsOf(t, c)
}

func secretsOf(t *testing.T, c *sim.Cluster) *Secrets {
	t.Helper()
	w, err := cluster.New(c.Config(), "sim", c.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := NewSecrets(context.Background(), w, "default", c.Clock())
	s.chunk = testChunk
	return s
}

// long is a record that is longer than two chunks.
func long(n int) *Log {
	return &Log{Message: fmt.Sprint(n) + strings.Repeat("<x>", 2*testChunk/3)}
}

func TestJournalInTheCluster(t *testing.T) {
	c, fsys := secretsWorld(t)
	s := NewStore(fsys, ClusterRoot, &tick{}, rand.Reader)
	if sums, err := s.List(); err != nil || len(sums) != 0 {
		t.Fatalf("%v, %v", sums, err)
	}
	j, err := s.Create(testRun)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, j)
	if _, err := s.Create(testRun); !errors.Is(err, fs.ErrExist) {
		t.Errorf("again: %v", err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), (inlineMax+testChunk)/16+1)
	v, err := StoreValue(j, big)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		if _, err := j.Append(long(n), n != 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	// On another machine.
	there := NewStore(secretsOf(t, c), ClusterRoot, &tick{}, rand.Reader)
	sum, err := there.Latest()
	if err != nil || sum.Run != testRun || sum.Status != RunDone {
		t.Fatalf("%+v, %v", sum, err)
	}
	if j, err = there.Open(testRun); err != nil {
		t.Fatal(err)
	}
	want := len(bodiesOfRun()) + 3
	if n := count(t, j); n != want {
		t.Fatalf("%d records, want %d", n, want)
	}
	if got, err := LoadValue(j, v); err != nil || !bytes.Equal(got, big) {
		t.Fatalf("blob: %d bytes, %v", len(got), err)
	}
	if _, err := j.Append(&Resume{}, true); err != nil || count(t, j) != want+1 {
		t.Fatal(err)
	}
	if err := fsys.RemoveRun(testRun); err != nil {
		t.Fatal(err)
	}
	if _, err := there.Open(testRun); !errors.Is(err, ErrNoRun) {
		t.Errorf("removed: %v", err)
	}
	for _, o := range c.Objects() {
		if o.GetKind() == "Secret" && o.GetLabels()[labelRun] != "" {
			t.Errorf("left behind: %s", o.GetName())
		}
	}
}

// TestTwoProcessesOnOneJournal: whoever appends second breaks off, and what is
// stored stays whole.
func TestTwoProcessesOnOneJournal(t *testing.T) {
	c, fsys := secretsWorld(t)
	a, err := Create(fsys, ClusterRoot, testRun, &tick{})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, a)
	b, err := Open(secretsOf(t, c), ClusterRoot, testRun, &tick{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Append(&Resume{}, true); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Append(&Log{}, true); !errors.Is(err, ErrBroken) || !errors.Is(err, ErrTaken) {
		t.Fatalf("%v", err)
	}
	if n := count(t, b); n != len(bodiesOfRun())+1 {
		t.Errorf("%d records", n)
	}
}

func TestChunkMissingOrAltered(t *testing.T) {
	for name, harm := range map[string]func(*testing.T, *Secrets, *cluster.Object){
		"missing": func(t *testing.T, s *Secrets, o *cluster.Object) {
			if err := s.delete(o.GetName()); err != nil {
				t.Fatal(err)
			}
		},
		"is not what was written": func(t *testing.T, s *Secrets, o *cluster.Object) {
			o.Object["data"] = map[string]any{"data": "aGVsbG8="}
			if _, err := s.w.Replace(t.Context(), o, cluster.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for n := range 4 { // the last one is the tail
			_, fsys := secretsWorld(t)
			j, err := Create(fsys, ClusterRoot, testRun, &tick{})
			if err != nil {
				t.Fatal(err)
			}
			fill(t, j)
			if _, err := j.Append(long(1), true); err != nil {
				t.Fatal(err)
			}
			if _, err := j.Append(long(2), true); err != nil {
				t.Fatal(err)
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			o, err := fsys.get(fmt.Sprintf("rutter.%s.journal.%d", testRun, n))
			if err != nil {
				t.Fatal(err)
			}
			harm(t, fsys, o)
			_, err = Open(fsys, ClusterRoot, testRun, &tick{})
			var chunk *ChunkError
			if !errors.As(err, &chunk) || !errors.Is(err, ErrDamaged) || chunk.Chunk != n+1 || !strings.Contains(err.Error(), name) {
				t.Errorf("chunk %d: %v", n+1, err)
			}
			sums, err := NewStore(fsys, ClusterRoot, &tick{}, rand.Reader).List()
			if err != nil || len(sums) != 1 || sums[0].Status != RunDamaged {
				t.Errorf("listed as %+v, %v", sums, err)
			}
		}
	}
}

// TestSecretsUnderFaults strikes each request in turn: an answer that never
// came is made good, and what cannot be written ends the journal for good, with
// all that was acknowledged still there.
func TestSecretsUnderFaults(t *testing.T) {
	for _, f := range []sim.Fault{
		{Kind: sim.FaultTimeout, After: true},
		{Kind: sim.FaultReset},
		{Kind: sim.FaultThrottle},
		{Kind: sim.FaultStatus, Code: 500, After: true},
		{Kind: sim.FaultStatus, Code: 403, Times: -1},
	} {
		for at := 0; ; at++ {
			c, fsys := secretsWorld(t)
			f.Resource, f.Skip = "secrets", at
			c.Inject(f)
			before := len(c.Requests())
			acked, err := appendAll(fsys)
			struck := len(c.Requests())-before > at
			c.ClearFaults()
			if err != nil && f.Times >= 0 {
				t.Fatalf("%s (after %v) at request %d: %v", f.Kind, f.After, at, err)
			}
			j, oerr := Open(secretsOf(t, c), ClusterRoot, testRun, &tick{})
			if oerr != nil {
				if acked > 0 {
					t.Fatalf("%s at request %d, %d records acknowledged: %v", f.Kind, at, acked, oerr)
				}
			} else if n := count(t, j); n < acked {
				t.Fatalf("%s at request %d: %d records, %d were acknowledged", f.Kind, at, n, acked)
			} else if _, err := j.Append(&Resume{}, true); err != nil {
				t.Fatalf("%s at request %d: going on: %v", f.Kind, at, err)
			}
			if !struck {
				break
			}
		}
	}
}

func appendAll(fsys FS) (acked int, err error) {
	j, err := Create(fsys, ClusterRoot, testRun, &tick{})
	if err != nil {
		return 0, err
	}
	for _, b := range append(bodiesOfRun()[:3], long(1), &Log{Message: "after"}) {
		if _, err := j.Put([]byte(string(b.RecordType()))); err != nil {
			return acked, err
		}
		n, err := j.Append(b, true)
		if err != nil {
			return acked, err
		}
		acked = int(n)
	}
	return acked, j.Close()
}

func TestDeniedSecretsSayWhatIsMissing(t *testing.T) {
	c, fsys := secretsWorld(t)
	c.Inject(sim.Fault{Resource: "secrets", Kind: sim.FaultStatus, Code: 403, Times: -1})
	_, err := Create(fsys, ClusterRoot, testRun, &tick{})
	var d *diag.Error
	if !errors.As(err, &d) || d.Code != diag.Usage || !strings.Contains(d.Expect, "secrets in default") || d.Changed != "nothing" {
		t.Errorf("%#v", err)
	}
}

// TestHeldInTheCluster: a run whose lock is being renewed is alive.
func TestHeldInTheCluster(t *testing.T) {
	c, fsys := secretsWorld(t)
	s := NewStore(fsys, ClusterRoot, c.Clock(), rand.Reader)
	j, err := s.Create(testRun)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, j)
	status := func() RunStatus {
		sum, err := s.Summary(testRun)
		if err != nil {
			t.Fatal(err)
		}
		return sum.Status
	}
	if got := status(); got != RunDone {
		t.Errorf("%s", got)
	}
	if _, err := lock.Acquire(t.Context(), lock.Options{
		Cluster: fsys.w, Clock: c.Clock(), Rand: rand.Reader, Namespace: "default", Run: testRun, Holder: "ann", Host: "h",
	}); err != nil {
		t.Fatal(err)
	}
	if got := status(); got != RunRunning {
		t.Errorf("%s", got)
	}
	c.Advance(lock.Duration)
	if got := status(); got != RunDone {
		t.Errorf("%s", got)
	}
}
