package injection

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// The recorded decisions: one line a pod, which names a shape where the pod was
// injected; and the shapes, one section each, as JSON.
const (
	golden    = "testdata/decisions.txtar"
	decisions = "decisions"
)

// format writes decisions, each shape once.
func format(t testing.TB, ds []decision) []byte {
	t.Helper()
	ar := &txtar.Archive{Comment: []byte("Decisions of a real API server and istiod.\n"), Files: []txtar.File{{Name: decisions}}}
	names := map[string]string{}
	for _, d := range ds {
		j, err := json.MarshalIndent(d, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		text := string(j) + "\n"
		if names[text] == "" {
			names[text] = fmt.Sprintf("answer %d", len(names)+1)
			ar.Files = append(ar.Files, txtar.File{Name: names[text], Data: []byte(text)})
		}
		ar.Files[0].Data = fmt.Appendf(ar.Files[0].Data, "%s -> %s\n", d.title(), names[text])
	}
	return txtar.Format(ar)
}

// recorded reads what format wrote.
func recorded(t testing.TB) []decision {
	t.Helper()
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatalf("%v; -record with the build tag e2e writes it", err)
	}
	sections := map[string][]byte{}
	for _, f := range txtar.Parse(data).Files {
		sections[f.Name] = f.Data
	}
	var out []decision
	for l := range strings.Lines(string(sections[decisions])) {
		title, name, _ := strings.Cut(strings.TrimSuffix(l, "\n"), " -> ")
		var d decision
		if err := json.Unmarshal(sections[name], &d); err != nil {
			t.Fatalf("%s: %s: %v", golden, title, err)
		}
		d.where, d.pod, _ = strings.Cut(title, ": ")
		out = append(out, d)
	}
	return out
}

// same compares decisions one by one, by what is shown of them.
func same(t *testing.T, want, got []decision, show func(decision) string) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%d decisions, %d are recorded", len(got), len(want))
	}
	for i, w := range want {
		if g := got[i]; w.title() != g.title() || show(w) != show(g) {
			t.Errorf("%s:\n  want %s\n  got  %s", g.title(), show(w), show(g))
		}
	}
}

func whole(d decision) string {
	j, err := json.Marshal(d)
	if err != nil {
		return err.Error()
	}
	return string(j)
}
