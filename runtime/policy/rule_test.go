package policy

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
)

// withRules writes a policy with one file of rules and reads it.
func withRules(t *testing.T, files map[string]string) (*Policy, string, error) {
	t.Helper()
	dir := t.TempDir()
	if files[Name] == "" {
		files[Name] = "rules: [org.star]\n"
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p, err := Read(context.Background(), filepath.Join(dir, Name), Options{})
	return p, dir, err
}

func objectOf(t *testing.T, js string) *cluster.Object {
	t.Helper()
	o := &cluster.Object{}
	if err := o.UnmarshalJSON([]byte(js)); err != nil {
		t.Fatal(err)
	}
	return o
}

func deployment(t *testing.T) *effect.Effect {
	t.Helper()
	after := objectOf(t, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"shop","labels":{"team":"payments"}},
	"spec":{"template":{"spec":{"containers":[{"name":"c","image":"web:latest"}]}}}}`)
	return &effect.Effect{Verb: effect.Apply, Class: effect.Restart, Ref: cluster.RefOf(after), After: after, Absent: true, Builtin: "kube.apply"}
}

func TestRules(t *testing.T) {
	run := &gate.Run{
		ID: "r", From: "1.30.3", To: "1.31.0", Context: "prod", Runbook: "istio-inplace 1.0.0", Step: "control plane",
		Now:   time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), // a Friday
		Facts: &effect.Facts{Approvals: []effect.Approval{{By: "ada, joan"}}},
	}
	for name, c := range map[string]struct {
		body    string
		verdict gate.Verdict
		text    string // "" for no finding
	}{
		"nothing to say":      {"return None", gate.Pass, ""},
		"no return":           {"pass", gate.Pass, ""},
		"an empty text":       {"return ''", gate.Pass, ""},
		"a text":              {"return 'no'", gate.Block, "no"},
		"the effect":          {"return ' '.join([effect.verb, effect.group, effect.kind, effect.namespace, effect.name, effect.change_class, effect.builtin, effect.step])", gate.Block, "apply apps Deployment shop web restart kube.apply control plane"},
		"objects":             {"return effect.after.spec.template.spec.containers[0].image if effect.before == None else None", gate.Block, "web:latest"},
		"labels":              {"return effect.labels['team']", gate.Block, "payments"},
		"facts":               {"return ' '.join([facts.cluster, facts.from_version, facts.to_version, facts.runbook, facts.run, facts.time, facts.weekday, str(facts.hour)] + facts.approved_by)", gate.Block, "prod 1.30.3 1.31.0 istio-inplace 1.0.0 r 2026-11-20T12:00:00Z Fri 12 ada joan"},
		"what it can't know":  {"return facts.moon", gate.Block, "struct has no .moon attribute"},
		"a number":            {"return 1", gate.Block, "returned a int; expected a string"},
		"a bool":              {"return True", gate.Block, "returned a bool; expected a string"},
		"it fails":            {"fail('broken')", gate.Block, "broken"},
		"a missing key":       {"return {}['a']", gate.Block, `key "a" not in dict`},
		"an endless loop":     {"for i in range(1000000):\n        for j in range(1000000):\n            pass", gate.Block, "used up its budget"},
		"a change of effect":  {"effect.labels['a'] = 'b'", gate.Block, "frozen"},
		"a change of facts":   {"facts.approved_by.append('eve')", gate.Block, "frozen"},
		"a change of globals": {"SEEN.append(1)", gate.Block, "frozen"},
		"a long text":         {"return 'x' * 5000", gate.Block, "returned a text of 5000 bytes"},
		"a control character": {"return 'a\\x1b[31mb\\nc'", gate.Block, "b c"},
	} {
		t.Run(name, func(t *testing.T) {
			p, dir, err := withRules(t, map[string]string{"org.star": "SEEN = []\n\ndef deny_it(effect, facts):\n    " + c.body + "\n"})
			if err != nil {
				t.Fatal(err)
			}
			fs := p.Organization.Judge(context.Background(), run, deployment(t))
			if c.text == "" {
				if len(fs) > 0 {
					t.Errorf("got %v", fs)
				}
				return
			}
			if len(fs) != 1 || fs[0].Verdict != c.verdict || !strings.Contains(fs[0].Problem, c.text) || fs[0].Rule != "deny_it" {
				t.Fatalf("got %+v, want %s with %q", fs, c.verdict, c.text)
			}
			if strings.ContainsAny(fs[0].Problem, "\x1b\n") || strings.Contains(fs[0].Problem, dir) {
				t.Errorf("got %q", fs[0].Problem)
			}
			if strings.HasPrefix(fs[0].Problem, "rule deny_it failed") && !strings.Contains(fs[0].Problem, "org.star:") {
				t.Errorf("does not say where: %q", fs[0].Problem)
			}
		})
	}
}

// Every rule judges, in the order of files and lines, each with its verdict.
func TestRulesAllJudge(t *testing.T) {
	p, _, err := withRules(t, map[string]string{
		Name:         "rules: [b.star, sub/a.star]\n",
		"b.star":     "def warn_z(effect, facts):\n    return 'w'\n\ndef ask_a(effect, facts):\n    return 'a'\n\ndef helper(x):\n    return x\n",
		"sub/a.star": "load('./c.star', 'no')\n\ndef deny_d(effect, facts):\n    return no()\n",
		"sub/c.star": "def no():\n    return 'd'\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range p.Organization.Judge(context.Background(), &gate.Run{}, deployment(t)) {
		got = append(got, f.Rule+" "+f.Verdict.String()+" "+f.Problem)
	}
	if want := "warn_z warn w, ask_a ask a, deny_d block d"; strings.Join(got, ", ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, ", "), want)
	}
	if len(p.Files) != 4 {
		t.Errorf("%d files are known, want the policy, both rules and what one loads", len(p.Files))
	}
}

// What a Secret holds can't be told by a rule.
func TestRulesSeeNoSecret(t *testing.T) {
	p, _, err := withRules(t, map[string]string{"org.star": `
def deny_show(effect, facts):
    return "%s %s" % (effect.after, effect.before)

def deny_reach(effect, facts):
    return effect.after.get("data.password", "nothing") + effect.after.get("stringData.password", "nothing")
`})
	if err != nil {
		t.Fatal(err)
	}
	o := objectOf(t, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s","namespace":"shop","annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"data\":{\"password\":\"aHVudGVyMg==\"}}"}},"data":{"password":"aHVudGVyMg=="},"stringData":{"password":"hunter2"}}`)
	e := &effect.Effect{Verb: effect.Apply, Ref: cluster.RefOf(o), Before: o, After: o}
	fs := p.Organization.Judge(context.Background(), &gate.Run{}, e)
	if len(fs) != 2 {
		t.Fatalf("got %v", fs)
	}
	for _, f := range fs {
		if strings.Contains(f.Problem, "hunter2") || strings.Contains(f.Problem, "aHVudGVyMg") {
			t.Errorf("%s tells the secret: %s", f.Rule, f.Problem)
		}
	}
	if o.Object["data"] == nil {
		t.Error("the object itself was changed")
	}
}

// Rules that are wrong in themselves are refused when the policy is read.
func TestRulesRefused(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"missing":         {map[string]string{}, `rules[1]: "org.star" can't be read: no such file`},
		"syntax":          {map[string]string{"org.star": "def deny_x(effect, facts)\n    pass\n"}, "org.star:2"},
		"no rule":         {map[string]string{"org.star": "def denyit(effect, facts):\n    pass\n"}, "defines no rule"},
		"parameters":      {map[string]string{"org.star": "def deny_x(effect):\n    pass\n"}, "org.star:1:1: rule deny_x takes 1 parameters"},
		"kube":            {map[string]string{"org.star": "def deny_x(effect, facts):\n    return kube.get('deploy/web')\n"}, "kube is not defined"},
		"a clock":         {map[string]string{"org.star": "def deny_x(effect, facts):\n    return time.now()\n"}, "time is not defined"},
		"outside":         {map[string]string{"org.star": "load('../x.star', 'y')\n\ndef deny_x(effect, facts):\n    pass\n"}, "leads outside"},
		"absolute":        {map[string]string{"org.star": "load('/etc/x.star', 'y')\n\ndef deny_x(effect, facts):\n    pass\n"}, "is absolute"},
		"the policy":      {map[string]string{"org.star": "load('./rutter.yaml', 'y')\n\ndef deny_x(effect, facts):\n    pass\n"}, "does not end in .star"},
		"fails to load":   {map[string]string{"org.star": "fail('no')\n\ndef deny_x(effect, facts):\n    pass\n"}, "org.star:1"},
		"of two, the one": {map[string]string{Name: "maxWave: 1\nrules: [org.star, gone.star]\n", "org.star": "def deny_x(effect, facts):\n    pass\n"}, `rutter.yaml:2:19: rules[2]: "gone.star" can't be read: no such file`},
	} {
		t.Run(name, func(t *testing.T) {
			_, dir, err := withRules(t, c.files)
			if err == nil || diag.ExitCode(err) != diag.Usage || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want exit 2 and %q", err, c.want)
			}
			if err != nil && !strings.Contains(err.Error(), dir) {
				t.Errorf("%v does not name the file", err)
			}
		})
	}
}

// A link out of the policy's folder leads nowhere.
func TestRulesStayInTheFolder(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "org.star")
	if err := os.WriteFile(outside, []byte("def deny_x(effect, facts):\n    pass\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "org.star")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, Name), []byte("rules: [org.star]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Read(context.Background(), filepath.Join(dir, Name), Options{})
	if err == nil || !strings.Contains(err.Error(), "escapes") || !strings.Contains(err.Error(), "rutter.yaml:1:9") {
		t.Errorf("got %v", err)
	}
}
