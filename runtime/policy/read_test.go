package policy

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/gate"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; if that is meant:\n  go test ./runtime/policy -update\ngot:\n%s", name, got)
	}
}

func TestReadFull(t *testing.T) {
	p, err := Read(context.Background(), "testdata/full.yaml", Options{})
	if err != nil {
		t.Fatal(err)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Calendar.Windows[0]; got.From != 22*60 || got.To != 4*60 || got.Zone.String() != "Europe/Berlin" || len(got.Days) != 4 || got.Days[0] != time.Monday {
		t.Errorf("window %v", got)
	}
	if got, want := p.Calendar.Freezes[0].To, time.Date(2027, 1, 4, 0, 0, 0, 0, berlin); !got.Equal(want) {
		t.Errorf("freeze until %s, want the end of its last day, %s", got, want)
	}
	if got, want := p.Waivers[0].Expires, time.Date(2027, 1, 1, 0, 0, 0, 0, berlin); !got.Equal(want) {
		t.Errorf("waiver until %s, want %s", got, want)
	}
	q := p.Prometheus.Queries
	if *q[0].Max != 0.01 || q[0].Min != nil || *q[1].Min != 1 || q[1].Interval != time.Minute || p.Prometheus.Interval != 15*time.Second {
		t.Errorf("queries %+v", q)
	}
	if p.Prometheus.TokenFile != "testdata/token" || p.Signers != "testdata/allowed-signers" || p.Notify[0].URLFile != "testdata/slack-url" {
		t.Errorf("files are not found from the policy's folder: %q %q %q", p.Prometheus.TokenFile, p.Signers, p.Notify[0].URLFile)
	}
	if *p.Thresholds.MaxRestarts != 3 || *p.Thresholds.MaxNotReady != 0 || !p.AskUnknown || p.Calendar.Warn != 45*time.Minute || p.MaxWave != 20 {
		t.Errorf("got %+v", p.Policy)
	}
	if got := strings.Join(p.Rules, " "); got != "deny_latest ask_payments warn_friday" {
		t.Errorf("rules %s", got)
	}
	if len(p.Files) != 4 {
		t.Errorf("%d files, want the policy, its signers, the rules and what these load", len(p.Files))
	}
	golden(t, "testdata/full.txt", p.Explain(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)))
}

// A policy with every mistake: all of them are said, with line and column.
func TestReadWrong(t *testing.T) {
	_, err := Read(context.Background(), "testdata/wrong.yaml", Options{})
	if diag.ExitCode(err) != diag.Usage {
		t.Fatalf("exit %d of %v", diag.ExitCode(err), err)
	}
	golden(t, "testdata/wrong.txt", err.Error()+"\n")
}

func TestParse(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"empty":          {"", ""},
		"comments only":  {"# nothing yet\n", ""},
		"empty keys":     {"deny:\nwindows:\n", ""},
		"the old keys":   {"allow: [{namespaces: [\"*\"]}]\ndeny: [{kinds: [Secret], verbs: [del*]}]\nsingleReplicaLeave: [shop/*]\nmaxWave: 5\nprotectedContexts: [prod]\n", ""},
		"no YAML":        {"a: [", "is no YAML"},
		"not a mapping":  {"- a", "got a list"},
		"two documents":  {"maxWave: 1\n---\nmaxWave: 2\n", "2:1: a second document"},
		"an alias":       {"deny: &x []\nallow: *x\n", "anchors and aliases are not taken"},
		"a merge":        {"<<: {maxWave: 1}\n", "a key that is no word"},
		"a tag":          {"maxWave: !!int 3", "tag !!int is not taken"},
		"a list as key":  {"[a]: b", "a key that is no word"},
		"twice":          {"maxWave: 1\nmaxWave: 2\n", `2:1: key "maxWave" comes twice`},
		"huge":           {"maxWave: 99999999999999999999", "no whole number"},
		"no verb":        {"deny: [{verbs: [dlete]}]", `did you mean "delete"?`},
		"leave pattern":  {"singleReplicaLeave: [\"shop/[\"]", "pattern"},
		"Local":          {"zone: Local", "no time zone"},
		"no zone":        {"windows: [{from: \"01:00\", to: \"02:00\"}]", "does not say in which time zone"},
		"zone last":      {"windows: [{from: \"01:00\", to: \"02:00\"}]\nzone: UTC\n", ""},
		"overlap":        {"zone: UTC\nwindows: [{from: \"01:00\", to: \"03:00\"}, {from: \"02:59\", to: \"04:00\"}]", "every day 02:59–04:00 UTC overlaps every day 01:00–03:00 UTC of line 2"},
		"overnight":      {"zone: UTC\nwindows: [{days: [Mon], from: \"22:00\", to: \"03:00\"}, {days: [Tue], from: \"02:00\", to: \"04:00\"}]", "overlaps"},
		"side by side":   {"zone: UTC\nwindows: [{from: \"01:00\", to: \"03:00\"}, {from: \"03:00\", to: \"04:00\"}]", ""},
		"once a year":    {"windows: [{from: \"01:00\", to: \"02:00\", zone: UTC}, {from: \"03:00\", to: \"04:00\", zone: Europe/Berlin}]", "overlaps"},
		"freezes":        {"zone: UTC\nfreezes: [{from: 2026-01-01, to: 2026-01-05, reason: a}, {from: 2026-01-05, to: 2026-01-06, reason: b}]", "overlaps the freeze of line 2"},
		"backwards":      {"zone: UTC\nfreezes: [{from: 2026-01-05, to: 2026-01-01, reason: a}]", "ends before it begins"},
		"a freeze's day": {"freezes: [{from: 2026-01-01, to: 2026-01-05, reason: a}]", "2026-01-01 is in no time zone"},
		"no number":      {"prometheus: {url: \"http://p\", queries: [{name: a, query: up, max: nan}]}", "no bound"},
		"no bounds":      {"prometheus: {url: \"http://p\", queries: [{name: a, query: up}]}", "neither max nor min"},
		"crossed bounds": {"prometheus: {url: \"http://p\", queries: [{name: a, query: up, max: 1, min: 2}]}", "min 2 is above max 1"},
		"a password":     {"prometheus: {url: \"http://u:hunter2@p\", queries: []}", "holds a password"},
		"required":       {"requiredGates: [RUT013]\nwaivers: [{gate: RUT013, objects: [\"*/*\"], person: a, reason: b, expires: 2026-01-01}]", "RUT013 can't be waived"},
		"nameless":       {"waivers: [{gate: RUT013, objects: [\"*/*\"], expires: 2026-01-01}]", `has no key "person"`},
		"rules":          {"rules: [a.star]", "rules come with a file only"},
		"a person twice": {"approvals: [{step: x, people: [a, a]}]", "names a twice"},
		"gates of step":  {"approvals: [{step: x, gates: [RUT013], people: [a]}]", "gates go with verdict: ask"},
		"recipients":     {"recipients: [age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p]", ""},
		"no recipient":   {"recipients: [age1ql3z]", `1:14: recipients[1]: "age1ql3z" is no recipient`},
		"a private key":  {"recipients: [AGE-SECRET-KEY-1hunter2]", "holds a private key"},
		"sealed twice":   {"recipients: [age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p, age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p]", "comes twice"},
		"a control":      {"protectedContexts: [\"a\\e[31mb\"]", "holds a control character"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("rutter.yaml", c.text)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("got %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || diag.ExitCode(err) != diag.Usage):
				t.Errorf("got %v, want one about %q and exit 2", err, c.want)
			case err != nil && !strings.HasPrefix(err.Error(), "rutter.yaml"):
				t.Errorf("%v does not say where", err)
			case err != nil && strings.Contains(err.Error(), "hunter2"):
				t.Errorf("tells a password: %v", err)
			}
		})
	}
}

func TestReadMissing(t *testing.T) {
	_, err := Read(context.Background(), filepath.Join(t.TempDir(), "none"), Options{})
	if diag.ExitCode(err) != diag.Usage {
		t.Errorf("got %v", err)
	}
}

// The digest is that of the file and of every rule: whoever changes one has
// another policy.
func TestDigest(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(Name, "rules: [a.star]\n")
	seen := map[string]bool{}
	for _, body := range []string{"return None", "return 'no'", "return None"} {
		write("a.star", "def deny_a(effect, facts):\n    "+body+"\n")
		p, err := Read(context.Background(), filepath.Join(dir, Name), Options{})
		if err != nil {
			t.Fatal(err)
		}
		seen[p.Digest] = true
	}
	if len(seen) != 2 {
		t.Errorf("%d digests of two policies", len(seen))
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"testdata/full.yaml", "testdata/wrong.yaml"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add("zone: UTC\nwindows: [{days: [Sat-Fri], from: \"23:59\", to: \"24:00\"}]\n")
	f.Add("zone: America/Santiago\nfreezes: [{from: 0001-01-01, to: 9999-12-31, reason: x}]\n")
	f.Add("a: &a [*a]\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse("rutter.yaml", text)
		if err != nil {
			if diag.ExitCode(err) != diag.Usage {
				t.Fatalf("exit %d: %v", diag.ExitCode(err), err)
			}
			return
		}
		now := time.Date(2026, 3, 29, 1, 30, 0, 0, time.UTC)
		o := p.Calendar.At(now)
		switch {
		case o.Open && o.Freeze != nil:
			t.Fatal("open in a freeze")
		case o.Open && !o.Until.IsZero() && !o.Until.After(now), !o.Open && !o.Next.IsZero() && !o.Next.After(now):
			t.Fatalf("open %v until %s, next %s, at %s", o.Open, o.Until, o.Next, now)
		}
		_ = p.Explain(now)
		for _, w := range p.Waivers {
			if w.Person == "" || w.Reason == "" || w.Expires.IsZero() || w.Gate == gate.ClusterPinned || w.Gate == gate.LockHeld {
				t.Fatalf("waiver %+v", w)
			}
		}
	})
}

// What the README shows is a policy, and its rule judges.
func TestReadme(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(b), "\n## The organization's policy\n")
	if !ok {
		t.Fatal("the README has no section on policies")
	}
	block := func(lang string) string {
		_, rest, _ := strings.Cut(section, "```"+lang+"\n")
		text, _, _ := strings.Cut(rest, "```")
		return text
	}
	p, _, err := withRules(t, map[string]string{Name: block("yaml"), "policy/org.star": block("python")})
	if err != nil {
		t.Fatal(err)
	}
	fs := p.Organization.Judge(context.Background(), &gate.Run{}, deployment(t))
	if len(fs) != 1 || fs[0].Problem != "image web:latest has no version" {
		t.Errorf("got %v", fs)
	}
}
