package effect_test

import (
	"encoding/json"
	"testing"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

// A digest is compared across a resume, so it must survive the journal.
func TestDigestSurvivesTheJournal(t *testing.T) {
	e := &effect.Effect{
		Verb: effect.Apply, Ref: cluster.Ref{Version: "v1", Kind: "ConfigMap", Name: "a"},
		Body: json.RawMessage(`{"data":{"rule":"a < b && c > d \u2028"}}`),
	}
	raw, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var back effect.Effect
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if back.Digest() != e.Digest() {
		t.Errorf("digest changed:\n%s\n%s", e.Body, back.Body)
	}
}
