package journal

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
)

// oldRun is a journal as the first version of rutter wrote it: a run that was
// refused an approval, and resumed. It is never made anew: what it holds must
// stay readable by every later version.
const oldRun = "20261122-061240-9rfz"

func TestOldJournalsStayReadable(t *testing.T) {
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS(filepath.Join("testdata", "format-1"))); err != nil {
		t.Fatal(err)
	}
	s := NewStore(OS{}, root, &tick{}, rand.Reader)
	sum, err := s.Summary(oldRun)
	if err != nil || sum.Status != RunDone || sum.Runbook != "old" || sum.Version != "1.2.3" || sum.Resumes != 1 || sum.Effects != 2 || sum.Ended.IsZero() {
		t.Errorf("%+v, %v", sum, err)
	}
	j, err := s.Open(oldRun)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[Type]int{}
	for rec, err := range j.Records() {
		if err != nil {
			t.Fatal(err)
		}
		body, err := rec.Decode()
		if err != nil {
			t.Fatal(err)
		}
		seen[rec.Type]++
		checkOld(t, j, rec.Seq, body)
	}
	want := map[Type]int{
		TypeBegin: 1, TypeResume: 1, TypeStepStart: 6, TypeStepEnd: 8, TypeCall: 5, TypePlan: 2, TypeIntent: 2, TypeOutcome: 2, TypeApproval: 1, TypeEnd: 2,
	}
	for typ, n := range want {
		if seen[typ] != n {
			t.Errorf("%d records of type %s, want %d", seen[typ], typ, n)
		}
	}
	// What a later version adds follows on.
	if seq, err := j.Append(&Log{Message: "later"}, true); err != nil || seq != 31 {
		t.Errorf("seq %d, %v", seq, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// checkOld looks at what a resume and a rollback rely on.
func checkOld(t *testing.T, j Journal, seq uint64, body Body) {
	t.Helper()
	switch b := body.(type) {
	case *Begin:
		bundle, err := j.Get(b.Bundle)
		if err != nil || !bytes.Contains(bundle, []byte("def run(p)")) || string(b.Params) != `{"to":"x"}` || string(b.Invocation) != `{"sim":"objects.yaml"}` {
			t.Errorf("begin: %+v, %v", b, err)
		}
	case *StepEnd:
		if b.Path == "big" {
			if v, err := LoadValue(j, b.Value); err != nil || len(v) < 9000 {
				t.Errorf("value of %q: %d bytes, %v", b.Path, len(v), err)
			}
		}
		if handled := seq == 8 || seq == 19; handled != b.Handled {
			t.Errorf("record %d: handled %v", seq, b.Handled)
		}
	case *Intent:
		if b.Attempt != 1 || b.Key == "" || b.Effect.Ref.ID() != "configmap/default/a" || b.Effect.Before.GetUID() == "" || b.Effect.Undo.Kind == "" {
			t.Errorf("record %d: %+v", seq, b)
		}
	case *Outcome:
		if b.Status != Done {
			t.Errorf("record %d: %+v", seq, b)
		}
	case *Approval:
		if !b.Granted || b.By != "root (--yes)" || b.Message != "go on" {
			t.Errorf("record %d: %+v", seq, b)
		}
	}
}

// TestRunsIsNotFooled: damage inside a journal shows in the list, whichever
// record it is in, also where the listing does not look into the record.
func TestRunsIsNotFooled(t *testing.T) {
	data, ends := written(t)
	start := ends[0]
	for i, end := range ends[1:] {
		bad := bytes.Clone(data)
		bad[(start+end)/2] ^= 0x04
		sum, err := NewStore(diskWith(t, bad), "/s", &tick{}, rand.Reader).Summary(testRun)
		if err != nil || sum.Status != RunDamaged || sum.Error == "" {
			t.Errorf("record %d: %+v, %v", i+1, sum, err)
		}
		start = end
	}
	torn, err := NewStore(diskWith(t, data[:len(data)-5]), "/s", &tick{}, rand.Reader).Summary(testRun)
	if err != nil || torn.Status != RunInterrupted {
		t.Errorf("torn: %+v, %v", torn, err)
	}
}
