package engine_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/journal"
)

const hides = header + "def run(p):\n    step(\"s\", hide, \"pin\", \"4711\")\n"

// hidden runs a runbook that makes a Secret, and gives what the journal has.
func hidden(t *testing.T) (*world, []journal.Body) {
	t.Helper()
	w := newWorld(t, hides)
	o := w.options()
	o.Sealer = flip{}
	if err := runOptions(o); err != nil {
		t.Fatal(err)
	}
	var out []journal.Body
	for rec, err := range w.journal.Records() {
		if err != nil {
			t.Fatal(err)
		}
		body, err := rec.Decode()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, body)
	}
	return w, out
}

// plainKey is the key that an effect has whose digest is not keyed.
func plainKey(step string, e *effect.Effect) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d", step, e.Digest(), 0))
	return hex.EncodeToString(h[:10])
}

// Who knows all of a Secret but its PIN tries them all against what he may read: the
// journal, the events, the annotations.
func TestNothingConfirmsAGuess(t *testing.T) {
	w, records := hidden(t)
	var seen strings.Builder
	for _, r := range records {
		raw, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		seen.Write(raw)
	}
	for _, e := range w.events {
		fmt.Fprintf(&seen, "%+v", e.Body)
	}
	for _, o := range w.sim.Objects() {
		fmt.Fprintf(&seen, "%v", o.GetAnnotations())
	}
	intents := 0
	for _, r := range records {
		b, ok := r.(*journal.Intent)
		if !ok {
			continue
		}
		intents++
		guess, opened, err := engine.Whole(w.journal, flip{}, b)
		if err != nil || !opened {
			t.Fatalf("opened %v, %v", opened, err)
		}
		for _, digest := range []string{guess.Digest(), plainKey(b.Step, guess)} {
			if strings.Contains(seen.String(), strings.TrimPrefix(digest, "sha256:")) {
				t.Errorf("%s confirms it", digest)
			}
		}
		if !strings.Contains(seen.String(), b.Key) {
			t.Error("nothing was looked through")
		}
	}
	if intents != 1 {
		t.Errorf("%d intents, want 1", intents)
	}
}

// A run goes on with the keys that it has: with plain ones where an earlier rutter
// began it.
func TestResumeFindsItsIntents(t *testing.T) {
	for name, marked := range map[string]bool{"now": true, "of an earlier rutter": false} {
		t.Run(name, func(t *testing.T) {
			w, records := hidden(t)
			j, err := journal.Create(w.fs, "/runs", "killed", w.sim.Clock())
			if err != nil {
				t.Fatal(err)
			}
			key := ""
			for _, r := range records { // as if it had been killed before the step ended
				switch b := r.(type) {
				case *journal.Begin:
					if !b.Marked {
						t.Error("the journal does not say that its digests are keyed")
					}
					b.Marked = marked
				case *journal.Intent:
					if key = b.Key; !marked {
						whole, _, err := engine.Whole(w.journal, flip{}, b)
						if err != nil {
							t.Fatal(err)
						}
						key = plainKey(b.Step, whole)
					}
					b.Key = key
					raw, err := w.journal.Get(b.Sealed)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := j.Put(raw); err != nil {
						t.Fatal(err)
					}
				case *journal.Outcome:
					b.Key = key
				case *journal.StepEnd, *journal.Call, *journal.End:
					continue
				}
				if _, err := j.Append(r, true); err != nil {
					t.Fatal(err)
				}
			}
			w.journal = j
			o := w.options()
			o.Sealer, o.Begin.Marked = flip{}, marked
			before := len(w.sim.Requests())
			if err := engine.Resume(t.Context(), t.Context(), o, ""); err != nil {
				t.Fatal(err)
			}
			for _, r := range w.sim.Requests()[before:] {
				if r.Resource == "secrets" && r.Verb == "apply" && !r.DryRun {
					t.Error("it was made twice")
				}
			}
		})
	}
}
