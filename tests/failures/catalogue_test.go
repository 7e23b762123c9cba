package failures

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/gate"
)

var update = flag.Bool("update", false, "write CATALOGUE.md anew")

const catalogueFile = "CATALOGUE.md"

// The catalogue is what the scenes are, and says where each failure is stopped;
// that it is stopped there is for TestFailures.
func TestCatalogue(t *testing.T) {
	failures, healthy := scenes(t, "failures"), scenes(t, "healthy")
	slices.SortStableFunc(failures, func(a, b scene) int { return cmp.Compare(a.Number, b.Number) })
	got := catalogue(failures, healthy)
	if *update {
		if err := os.WriteFile(catalogueFile, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(catalogueFile)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what the scenes say; if the change is meant:\n  go test ./tests/failures -run TestCatalogue -update", catalogueFile)
	}
	listed := map[int]string{}
	for _, f := range failures {
		if other := listed[f.Number]; f.Number == 0 || f.What == "" || f.Seen == "" || other != "" && f.Number > ofTheGuide {
			t.Errorf("%s: wants a number that no other has (%q), what and seen", f.file, other)
		}
		listed[f.Number] = f.file
	}
	n := 0
	for i := 1; i <= ofTheGuide; i++ {
		if listed[i] != "" {
			n++
		}
	}
	if n < 20 || len(healthy) < 30 {
		t.Errorf("%d of the guide's %d failures and %d healthy meshes; want 20 and 30", n, ofTheGuide, len(healthy))
	}
}

// ofTheGuide are the failures of the upgrade guide; further ones are found since.
const ofTheGuide = 22

func catalogue(failures, healthy []scene) string {
	var b strings.Builder
	b.WriteString(`# What real upgrades met, and where rutter stops it

Made from the scenes in ` + "`testdata`" + ` by ` + "`go test ./tests/failures -run TestCatalogue -update`" + `;
` + "`TestFailures`" + ` shows each at work. "Before the first write" is told by the API server's
own log of requests. What only the change itself can show is stopped in the step that
is named, and the rollback that follows leaves the cluster as it was, field by field.

| # | failure | told in | the fixture | stopped | by | flow |
| --- | --- | --- | --- | --- | --- | --- |
`)
	for _, f := range failures {
		fmt.Fprintf(&b, "| %d | %s | %s | [%s](testdata/failures/%s): %s | %s | %s | %s |\n",
			f.Number, f.What, f.Issues, strings.TrimSuffix(f.file, ".yaml"), f.file, f.Seen, f.stopped(), f.stopper(), f.Flow)
	}
	b.WriteString(`
## Meshes that are unusual, and well

Each is upgraded to the end, and no gate blocks or asks (` + "`TestHealthy`" + `).

| mesh | flow |
| --- | --- |
`)
	for _, h := range healthy {
		fmt.Fprintf(&b, "| [%s](testdata/healthy/%s): %s | %s |\n", strings.TrimSuffix(h.file, ".yaml"), h.file, h.What, h.Flow)
	}
	return b.String()
}

func (s scene) stopped() string {
	if s.At == "" {
		return "before the first write"
	}
	return fmt.Sprintf("in the step «%s», and rolled back", s.At)
}

func (s scene) stopper() string {
	for _, g := range gate.All() {
		if g.Code == s.By {
			return string(g.Code) + " " + g.Name
		}
	}
	switch {
	case s.At == "":
		return "the preflight"
	case s.Restarts > 0:
		return "the canary"
	}
	return "the wait for what the step brings"
}
