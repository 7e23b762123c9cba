package knowledge

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func base(t testing.TB) *Base {
	t.Helper()
	b, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func all20to31(t *testing.T) []*Note {
	t.Helper()
	var out []*Note
	for _, r := range base(t).Releases() {
		out = append(out, r.Notes...)
	}
	return out
}

func TestData(t *testing.T) {
	b := base(t)
	var got []string
	seen := map[string]string{}
	for _, r := range b.Releases() {
		got = append(got, r.Istio)
		if r.Kubernetes == (Range{}) {
			t.Errorf("%s: no Kubernetes versions", r.Istio)
		}
		for _, n := range r.Notes {
			if seen[n.ID] != "" {
				t.Errorf("%s: %s is in %s too", n.Pos, n.ID, seen[n.ID])
			}
			seen[n.ID] = r.Istio
			if n.Severity == Removed && n.Class == Irrelevant && n.Detect != nil {
				t.Errorf("%s: %s", n.Pos, n.ID)
			}
			for _, text := range []string{n.Changes, n.Do, n.Reason, n.Title} {
				if strings.Contains(text, "  ") || strings.TrimSpace(text) != text {
					t.Errorf("%s: %s: %q", n.Pos, n.ID, text)
				}
			}
		}
	}
	want := []string{"1.20", "1.21", "1.22", "1.23", "1.24", "1.25", "1.26", "1.27", "1.28", "1.29", "1.30", "1.31"}
	if !slices.Equal(got, want) {
		t.Errorf("releases %v, want %v", got, want)
	}
	if s := b.Skew(); s.InPlace != 1 || s.ByRevision != 2 || s.NodeAgents != 1 {
		t.Errorf("skew %+v", s)
	}
}

var heading = regexp.MustCompile(`(?m)^##### (\d+\.\d+) (releasenotes/notes/\S+)$`)

// Every upgrade note of upstream has an entry in the minor version that it is
// for. A note without text (upgradeNotes: []) is none.
func TestEveryUpstreamNoteHasAnEntry(t *testing.T) {
	file := filepath.Join("..", "..", "..", "shared", "fixtures", "upgrade-notes.txt")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Skipf("upstream's notes are not beside this checkout: %v", err)
	}
	text := string(raw)
	at := heading.FindAllStringSubmatchIndex(text, -1)
	if len(at) < 50 {
		t.Fatalf("%d headings in %s: another format?", len(at), file)
	}
	notes := all20to31(t)
	for i, m := range at {
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		body, minor, path := text[m[1]:end], text[m[2]:m[3]], text[m[4]:m[5]]
		titles := strings.Count(body, "title:")
		if titles == 0 {
			continue
		}
		entries := 0
		for _, n := range notes {
			if n.Istio == minor && slices.Contains(n.Sources, path) {
				entries++
			}
		}
		if entries < titles {
			t.Errorf("%s %s: %d notes, %d entries", minor, path, titles, entries)
		}
	}
}

// module is where the source of Istio is.
func module(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "istio.io/istio").Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Skipf("the module istio.io/istio is not on this machine: %v", err)
	}
	return dir
}

var (
	behaviour = regexp.MustCompile(`^\s*# (1\.\d+) behavioral changes`)
	setting   = regexp.MustCompile(`^\s+(\w+): "?(true|false)"?$`)
)

// Every behaviour that a compatibility profile of the linked Istio takes back is
// named by a note of the version that brought it.
func TestEveryBehaviourChangeHasAnEntry(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(module(t), "manifests", "helm-profiles", "compatibility-version-*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("compatibility profiles: %v, %v", files, err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		minor := ""
		for line := range strings.Lines(string(raw)) {
			line = strings.TrimSuffix(line, "\n")
			if m := behaviour.FindStringSubmatch(line); m != nil {
				minor = m[1]
			}
			m := setting.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			key := m[1]
			if !slices.ContainsFunc(base(t).Releases(), func(r *Release) bool {
				return r.Istio == minor && slices.ContainsFunc(r.Notes, func(n *Note) bool { return strings.Contains(strings.Join(n.Affects, "\n"), key) })
			}) {
				t.Errorf("%s: %s of %s has no note", filepath.Base(f), key, minor)
			}
		}
	}
}

// What notes name as their source in the Istio module is there, where the
// linked version still has it.
func TestSourcesAreThere(t *testing.T) {
	dir := module(t)
	gone := []string{"releasenotes/notes/retroactive-note-for-53949.yaml"} // it was on the branch of 1.23 alone
	for _, n := range all20to31(t) {
		for _, s := range n.Sources {
			if strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "istio/istio#") || slices.Contains(gone, s) {
				continue
			}
			if _, err := os.Stat(filepath.Join(dir, s)); err != nil {
				t.Errorf("%s: %s: source %s: %v", n.Pos, n.ID, s, err)
			}
		}
	}
}
