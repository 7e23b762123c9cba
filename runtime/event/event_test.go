package event

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
)

func TestEveryTypeSurvivesJSON(t *testing.T) {
	seen := map[Type]bool{}
	for _, b := range bodies() {
		if seen[b.EventType()] {
			t.Errorf("%s is declared twice", b.EventType())
		}
		seen[b.EventType()] = true
		in := Event{Time: time.Date(2026, 1, 1, 0, 0, 1, 5, time.UTC), Step: "a/b", Body: b}
		raw, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		if want := `{"type":"` + string(b.EventType()) + `","time":"2026-01-01T00:00:01.000000005Z","step":"a/b"`; !strings.HasPrefix(string(raw), want) {
			t.Errorf("%s", raw)
		}
		var out Event
		if err := json.Unmarshal(raw, &out); err != nil || !reflect.DeepEqual(in, out) {
			t.Errorf("%s: %v, got %+v", raw, err, out)
		}
		// No body may have fields that hide those of the envelope.
		var flat map[string]any
		body, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(body, &flat); err != nil {
			t.Fatal(err)
		}
		for _, k := range []string{"type", "time", "step"} {
			if _, ok := flat[k]; ok {
				t.Errorf("%s has a field %q of its own", b.EventType(), k)
			}
		}
	}
	var e Event
	if err := json.Unmarshal([]byte(`{"type":"weather"}`), &e); err == nil {
		t.Error("an unknown type was accepted")
	}
}

func TestFilledEventSurvivesJSON(t *testing.T) {
	ref := cluster.Ref{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "shop", Name: "web"}
	for _, b := range []Body{
		&EffectFailed{Change: ChangeOf("k", "s", &effect.Effect{Verb: effect.Patch, Ref: ref, Class: effect.Restart, Absent: true, Why: "w", Wave: "1"}), Error: "e", InDoubt: true},
		&Findings{Findings: []gate.Finding{{Code: gate.Disruption, Verdict: gate.Ask, Ref: ref, Problem: "p"}}},
		&StepEnded{Name: "n", Error: "e", Duration: time.Second, Counts: Counts{Applied: 2}},
	} {
		in := Event{Time: time.Unix(1, 0).UTC(), Body: b}
		raw, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var out Event
		if err := json.Unmarshal(raw, &out); err != nil || !reflect.DeepEqual(in, out) {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestSinks(t *testing.T) {
	var a, b Recorder
	s := Serial(Multi(&a, nil, &b, Discard))
	s.Emit(Event{Body: &Log{Message: "x"}})
	if len(a.Events) != 1 || len(b.Events) != 1 {
		t.Errorf("%d and %d events", len(a.Events), len(b.Events))
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain → text\n\tx":            "plain → text\n\tx",
		"\x1b[31mred\x1b[0m":           "red",
		"\x1b]0;title\x07after":        "after",
		"\x1b]8;;http://x\x1b\\link":   "link",
		"\x1b]never ends\nnext line":   "\nnext line",
		"\x1b(Bx\x1bcy":                "xy",
		"over\rwrite\x08\x00\x7f":      "overwrite",
		"\u009b2Jgone":                 "gone",
		"a\u202eb\u2066c":              "abc",
		"bad \xff byte":                "bad \ufffd byte",
		"\x1b":                         "",
		"\x1b[":                        "",
		"\x1bPdevice control\x1b\\end": "end",
	} {
		if got := Clean(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := CleanLine("  two\nlines\there \x1b[2J"); got != "two lines here" {
		t.Errorf("%q", got)
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"\x1b[1;2H", "\x1b]0;x\x07", "\u009b31m", "\xff\x1b", "plain"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s)
		if !utf8.ValidString(got) {
			t.Errorf("%q: not UTF-8: %q", s, got)
		}
		for _, r := range got {
			if unicode.IsControl(r) && r != '\n' && r != '\t' {
				t.Errorf("%q: %q left in", s, r)
			}
		}
		if again := Clean(got); again != got {
			t.Errorf("%q: %q, then %q", s, got, again)
		}
	})
}
