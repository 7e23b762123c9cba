package gate

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/gates.md anew")

// Every gate is explained: nobody is held up by something that says nothing of
// itself.
func TestEveryGateHasAPage(t *testing.T) {
	for _, g := range All() {
		p, ok := PageOf(g.Code)
		switch {
		case !ok:
			t.Errorf("%s has no page", g.Code)
		case g.Name == "" || g.Rationale == "" || g.Source == "" || p.Looks == "" || p.Mend == "":
			t.Errorf("%s: name, rationale, source, looks or mend is empty", g.Code)
		case len(p.Verdicts) == 0 || p.Verdicts[len(p.Verdicts)-1].Verdict != Block:
			t.Errorf("%s: its verdicts don't end with block: %v", g.Code, p.Verdicts)
		case len(g.Classes()) == 0:
			t.Errorf("%s is passed by no class of effects", g.Code)
		}
		for i, v := range p.Verdicts {
			if v.Case == "" || v.Verdict == Pass || i > 0 && v.Verdict <= p.Verdicts[i-1].Verdict {
				t.Errorf("%s: verdict %d is %+v; want each once, with its case, from the mildest on", g.Code, i, v)
			}
		}
		for _, th := range p.Thresholds {
			if th.Name == "" || th.Default == "" {
				t.Errorf("%s: threshold %+v", g.Code, th)
			}
		}
	}
}

// The docs are made from the declarations; a change of either shows here.
func TestDocs(t *testing.T) {
	const file = "testdata/gates.md"
	got := Docs()
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what the declarations say; if the change is meant:\n  go test ./runtime/gate -run TestDocs -update", file)
	}
}

func TestFind(t *testing.T) {
	for s, want := range map[string]Code{
		"RUT013": Disruption, "rut013": Disruption, "13": Disruption, "013": Disruption, " disruption ": Disruption,
		"9": CRDSafe, "health": HealthKept, "RUT999": "", "": "", "0": "", "rut": "",
	} {
		g := Find(s)
		if g == nil && want != "" || g != nil && g.Code != want {
			t.Errorf("%q finds %v, want %q", s, g, want)
		}
	}
	if s := Find("13").Markdown(); !strings.Contains(s, "maxWave") || !strings.Contains(s, "must pass it, too") || !strings.Contains(Find("14").Markdown(), "is not held by it") {
		t.Errorf("a page does not say what it ought to:\n%s", s)
	}
}
