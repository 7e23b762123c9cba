package requests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"sigs.k8s.io/yaml"
)

// difference is one field in which two servers' answers are not equal.
type difference struct {
	scenario string
	request  int // from one; 0 when the transcripts cannot be laid side by side
	title    string
	field    string
	want     string
	got      string
}

func (d difference) String() string {
	want, got := apart(d.want, d.got)
	return fmt.Sprintf("#%d %s\n    %s\n      real %s\n      sim  %s", d.request, d.title, d.field, want, got)
}

// apart cuts long texts to where they differ.
func apart(a, b string) (string, string) {
	const long, around = 400, 120
	if len(a) <= long && len(b) <= long {
		return a, b
	}
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	cut := func(s string) string {
		return "…" + s[max(0, min(i, len(s))-around):min(len(s), i+2*around)] + "…"
	}
	return cut(a), cut(b)
}

// compare lays two transcripts side by side.
func compare(name string, real, sim []answer) []difference {
	var out []difference
	for i := range max(len(real), len(sim)) {
		if i >= len(real) || i >= len(sim) || real[i].title != sim[i].title {
			return append(out, difference{name, 0, "", "transcript", fmt.Sprint(len(real), " answers"), fmt.Sprint(len(sim), " answers")})
		}
		a, b := real[i].fields(), sim[i].fields()
		for _, l := range real[i].lines {
			if v, ok := b[l.field]; !ok || v != l.value {
				if !ok {
					v = "-"
				}
				out = append(out, difference{name, i + 1, real[i].title, l.field, l.value, v})
			}
		}
		for _, l := range sim[i].lines {
			if _, ok := a[l.field]; !ok {
				out = append(out, difference{name, i + 1, real[i].title, l.field, "-", l.value})
			}
		}
	}
	return out
}

// known is a difference that has a reason: the fields that differ, and the
// requests, by number from one, in which they do. The field http
// stands for the whole answer: one with another code is another answer.
type known struct {
	Reason string           `json:"reason"`
	Fields []string         `json:"fields"` // * is any text, and [*] any index
	Where  map[string][]int `json:"where"`  // by the names of cases

	fields     []*regexp.Regexp
	usedFields map[int]bool
	used       map[string]map[int]bool // requests, by case
}

// prepare reads the patterns.
func (k *known) prepare() {
	k.usedFields, k.used = map[int]bool{}, map[string]map[int]bool{}
	for _, f := range k.Fields {
		k.fields = append(k.fields, regexp.MustCompile("^"+strings.ReplaceAll(regexp.QuoteMeta(f), `\*`, ".*")+"$"))
	}
	for c := range k.Where {
		k.used[c] = map[int]bool{}
	}
}

// covers reports whether the entry describes a difference. whole says that the
// answer has another code.
func (k *known) covers(d difference, whole bool) bool {
	if !slices.Contains(k.Where[d.scenario], d.request) {
		return false
	}
	field := d.field
	if whole {
		field = "http"
	}
	i := slices.IndexFunc(k.fields, func(r *regexp.Regexp) bool { return r.MatchString(field) })
	if i >= 0 {
		k.usedFields[i], k.used[d.scenario][d.request] = true, true
	}
	return i >= 0
}

// stale lists what the entry says and is not so.
func (k *known) stale() []string {
	var out []string
	for i, f := range k.Fields {
		if !k.usedFields[i] {
			out = append(out, "field "+f)
		}
	}
	for c, requests := range k.Where {
		for _, i := range requests {
			if !k.used[c][i] {
				out = append(out, fmt.Sprintf("%s, request %d", c, i))
			}
		}
	}
	slices.Sort(out)
	return out
}

const knownFile = "differences.yaml"

func readKnown(t testing.TB) []*known {
	t.Helper()
	data, err := os.ReadFile(knownFile)
	if err != nil {
		t.Fatal(err)
	}
	var list []*known
	if err := yaml.UnmarshalStrict(data, &list); err != nil {
		t.Fatalf("%s: %v", knownFile, err)
	}
	for i, k := range list {
		k.prepare()
		if len(k.Where) == 0 || len(k.Fields) == 0 || k.Reason == "" {
			t.Errorf("%s: entry %d: reason, fields and where are expected", knownFile, i+1)
		}
	}
	return list
}

// unknown returns the differences that no entry covers, and marks those used
// that cover one.
func unknown(ds []difference, list []*known) []difference {
	recoded := map[int]bool{}
	for _, d := range ds {
		recoded[d.request] = recoded[d.request] || d.field == "http"
	}
	return slices.DeleteFunc(ds, func(d difference) bool {
		covered := false
		for _, k := range list {
			covered = k.covers(d, recoded[d.request]) || covered
		}
		return covered
	})
}

// The answers of the real server are kept in one file a dimension, one section
// a case: a line # TITLE for each request, and its fields below.
func goldenFile(dimension string) string {
	return filepath.Join("testdata", strings.ReplaceAll(dimension, " ", "-")+".txtar")
}

type goldens struct {
	version string
	answers map[string][]answer
}

func readGoldens(t testing.TB, dimension string) goldens {
	t.Helper()
	g := goldens{answers: map[string][]answer{}}
	data, err := os.ReadFile(goldenFile(dimension))
	if err != nil {
		t.Fatalf("%v; -record with the build tag e2e writes it", err)
	}
	ar := txtar.Parse(data)
	g.version = strings.TrimSpace(strings.TrimPrefix(string(ar.Comment), recordedFrom))
	for _, f := range ar.Files {
		g.answers[f.Name] = parse(string(f.Data))
	}
	return g
}

const recordedFrom = "Answers of kube-apiserver "

func writeGoldens(t testing.TB, dimension, version string, order []string, answers map[string][]answer) {
	t.Helper()
	ar := &txtar.Archive{Comment: []byte(recordedFrom + version + "\n")}
	for _, name := range order {
		ar.Files = append(ar.Files, txtar.File{Name: name, Data: []byte(format(answers[name]))})
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenFile(dimension), txtar.Format(ar), 0o644); err != nil { //nolint:gosec // no secret
		t.Fatal(err)
	}
}

func format(as []answer) string {
	var b strings.Builder
	for _, a := range as {
		fmt.Fprintf(&b, "# %s\n", a.title)
		for _, l := range a.lines {
			fmt.Fprintf(&b, "  %s: %s\n", l.field, l.value)
		}
	}
	return b.String()
}

// parse reads what format wrote.
func parse(text string) []answer {
	var out []answer
	for l := range strings.Lines(text) {
		l = strings.TrimSuffix(l, "\n")
		if title, ok := strings.CutPrefix(l, "# "); ok {
			out = append(out, answer{title: title})
			continue
		}
		if l = strings.TrimPrefix(l, "  "); l != "" && len(out) > 0 {
			out[len(out)-1].add(cutField(l))
		}
	}
	return out
}

// cutField takes a line apart at the first ": " outside of brackets.
func cutField(l string) (field, value string) {
	depth := 0
	for i := range l {
		switch {
		case l[i] == '[':
			depth++
		case l[i] == ']':
			depth--
		case depth == 0 && strings.HasPrefix(l[i:], ": "):
			return l[:i], l[i+2:]
		}
	}
	return l, ""
}
