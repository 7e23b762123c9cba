package interp

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/loader"
)

const header = "runbook(name = \"r\", version = \"1.0.0\")\n"

func names(t testing.TB) starlark.StringDict {
	t.Helper()
	set, err := builtin.NewSet(append(Builtins(),
		builtin.NewRead(builtin.ReadDef[struct{}]{
			Name: "kube.get", Doc: "Gets.", Example: "kube.get()",
			Do: func(*builtin.Call, *struct{}) (any, error) { return nil, nil },
		}),
		builtin.NewPure(builtin.PureDef[struct{}]{
			Name: "panics", Doc: "Panics.", Example: "panics()",
			Do: func(*builtin.Call, *struct{}) (any, error) { panic("bang") },
		}),
	)...)
	if err != nil {
		t.Fatal(err)
	}
	out := set.Predeclared()
	out["refuse"] = starlark.NewBuiltin("refuse", func(*starlark.Thread, *starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error) {
		return nil, &gate.Refusal{Findings: []gate.Finding{{Code: "RUT005", Verdict: gate.Block, Ref: cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: "shop", Name: "web"}, Problem: "not in a backup"}}}
	})
	out["explode"] = starlark.NewBuiltin("explode", func(*starlark.Thread, *starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error) {
		panic("boom")
	})
	return out
}

func load(t testing.TB, files map[string]string) (*Runbook, error) {
	t.Helper()
	root := fstest.MapFS{}
	for name, src := range files {
		root[name] = &fstest.MapFile{Data: []byte(src)}
	}
	std := fstest.MapFS{"validate.star": {Data: []byte("def validate(p):\n    pass\n")}}
	return Load(context.Background(), loader.FS(root, "r.star", std, nil, nil), names(t), Limits{})
}

// show is what a person reads of an error, as the terminal view lays it out.
func show(err error) string {
	if err == nil {
		return "ok"
	}
	var d *diag.Error
	if errors.As(err, &d) && d.Source != "" {
		return d.Error() + "\n" + d.Source
	}
	return err.Error()
}

// TestErrors runs testdata/errors.txt: chunks of "--- name", the source, and
// after "===" the error exactly as it is shown. UPDATE=1 writes what is.
func TestErrors(t *testing.T) {
	path := filepath.Join("testdata", "errors.txt")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	update := os.Getenv("UPDATE") == "1"
	var out strings.Builder
	for chunk := range strings.SplitSeq(strings.TrimPrefix(string(b), "--- "), "\n--- ") {
		name, rest, _ := strings.Cut(chunk, "\n")
		src, want, _ := strings.Cut(rest, "\n===\n")
		got := show(loadAndRun(t, src))
		out.WriteString("--- " + name + "\n" + src + "\n===\n" + got + "\n")
		if want = strings.TrimRight(want, "\n"); !update && got != want {
			t.Errorf("%s: got:\n%s\nwant:\n%s", name, got, want)
		}
	}
	if update {
		if err := os.WriteFile(path, []byte(out.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func loadAndRun(t *testing.T, src string) error {
	if !strings.Contains(src, "runbook(") {
		src = header + src
	}
	if !strings.Contains(src, "def run(") {
		src += "\ndef run(p):\n    pass\n"
	}
	rb, err := load(t, map[string]string{
		"r.star": src, "lib/waves.star": "def waves(canary, then = \"25%\"):\n    return canary\n",
		"a.star": "load(\"./b.star\", \"y\")\nx = 1\n", "b.star": "load(\"//a.star\", \"x\")\ny = 1\n",
		"lib/bad.star": "x = unknown_name\n", "lib/book.star": header,
	})
	if err != nil {
		return err
	}
	p, err := rb.Bind(nil, nil)
	if err != nil {
		return err
	}
	return rb.Exec(context.Background(), p, ExecOptions{Limits: Limits{Steps: 100_000, Output: 1000}}, nil)
}

func TestTypedErrorsSurvive(t *testing.T) {
	err := loadAndRun(t, "def inner():\n    return [refuse() for _ in range(1)]\ndef run(p):\n    f = lambda: inner()\n    f()")
	var refusal *gate.Refusal
	if !errors.As(err, &refusal) || refusal.Findings[0].Code != "RUT005" {
		t.Fatalf("got %v, want the gate's refusal to be reachable", err)
	}
}

func TestBudgetAndCancel(t *testing.T) {
	err := loadAndRun(t, "def run(p):\n    for i in range(1000000):\n        pass")
	var budget interface{ BudgetExhausted() bool }
	if !errors.As(err, &budget) {
		t.Fatalf("got %v, want the budget's error", err)
	}
	rb, err := load(t, map[string]string{"r.star": header + "def run(p):\n    for i in range(1000000):\n        pass\n"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("operator asked to stop")
	err = rb.Exec(ctx, &Params{}, ExecOptions{}, func(*starlark.Thread) { cancel(why) })
	if !errors.Is(err, why) {
		t.Fatalf("got %v, want the cause of the cancellation", err)
	}
}

func TestRunbookIsReadFromBundle(t *testing.T) {
	src := "\"\"\"Upgrades.\"\"\"\nload(\"@stdlib//validate.star\", \"validate\")\n" +
		`runbook(name = "r", version = "1.2.3", upgrades = "1.30.x -> 1.31.x", scope = {"kinds": ["Deployment.apps"]})` +
		"\ndef run(p):\n    validate(p)\n"
	rb, err := load(t, map[string]string{"r.star": src})
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(context.Background(), loader.FromBundle(rb.Bundle, nil), names(t), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if again.Bundle.Digest() != rb.Bundle.Digest() || len(again.Bundle.Files) != 2 {
		t.Errorf("the bundle changed on the way: %v, %v", again.Bundle, rb.Bundle)
	}
	if again.Doc != "Upgrades." || again.Version != "1.2.3" || again.Scope.Kinds[0] != "Deployment.apps" {
		t.Errorf("got %+v", again)
	}
	for _, c := range []struct{ from, to, want string }{
		{"1.30.3", "1.31.0", ""},
		{"1.30.3", "1.31.0-rc.1", ""},
		{"1.29.1", "1.31.0", "is not for an upgrade from 1.29.1; expected 1.30.x -> 1.31.x"},
		{"1.30.3", "1.32.0", "is not for an upgrade to 1.32.0; expected 1.30.x -> 1.31.x"},
		{"", "latest", `version to upgrade to: got "latest", want a version such as "1.31.0"`},
	} {
		got := ""
		if err := rb.Upgrades.Allow(c.from, c.to); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s -> %s: got %q, want %q", c.from, c.to, got, c.want)
		}
	}
}

const paramsRunbook = `runbook(name = "r", version = "1.0.0", params = {
    "to": param.string(doc = "Target Istio version", pattern = r"^\d+\.\d+\.\d+$"),
    "hub": param.string(default = "docker.io/istio"),
    "n": param.int(default = 3, min = 1, max = 9),
    "fast": param.bool(default = False),
    "soak": param.duration(default = "1d"),
    "base": param.version(default = "1.28.9"),
    "skip": param.list(default = []),
    "set": param.dict(default = {"a": 1}),
    "profile": param.enum(["default", "ambient"], default = "default"),
    "note": param.string(required = False),
})
def run(p):
    if p.set != {"a": 1} or p.skip != []:
        fail("defaults")
`

func TestBind(t *testing.T) {
	rb, err := load(t, map[string]string{"r.star": paramsRunbook})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		sets []string
		file map[string]any
		want string // of the parameters, or the error
	}{
		{"defaults", []string{"to=1.31.0"}, nil, `params(to = "1.31.0", hub = "docker.io/istio", n = 3, fast = False, soak = 24h0m0s, base = 1.28.9, skip = [], set = {"a": 1}, profile = "default", note = None)`},
		{"all kinds as text", []string{"to=1.31.0", "n=5", "fast=true", "soak=10m", "base=1.28.10", "skip=a,b", "set=o=007,q=\"true\",v=1.31.0,w=1.31,x=1,y=true", "profile=ambient", "note=a=b", "hub="}, nil, `params(to = "1.31.0", hub = "", n = 5, fast = True, soak = 10m0s, base = 1.28.10, skip = ["a", "b"], set = {"o": "007", "q": "true", "v": "1.31.0", "w": "1.31", "x": 1, "y": True}, profile = "ambient", note = "a=b")`},
		{"file, set wins", []string{"n=2"}, map[string]any{"to": "1.31.0", "n": 5.0, "skip": []any{"x", int64(1)}}, `params(to = "1.31.0", hub = "docker.io/istio", n = 2, fast = False, soak = 24h0m0s, base = 1.28.9, skip = ["x", 1], set = {"a": 1}, profile = "default", note = None)`},
		{"lists and dicts as JSON", []string{"to=1.31.0", `skip=["a, b",1]`, `set={"v":"1.31","n":2}`}, nil, `params(to = "1.31.0", hub = "docker.io/istio", n = 3, fast = False, soak = 24h0m0s, base = 1.28.9, skip = ["a, b", 1], set = {"n": 2, "v": "1.31"}, profile = "default", note = None)`},
		{"broken JSON list", []string{"to=1.31.0", `skip=["a"`}, nil, `parameter skip: got "[\"a\"", want a,b or a JSON list such as ["a","b"]`},
		{"broken JSON dict", []string{"to=1.31.0", `set={"a"}`}, nil, `parameter set: got "{\"a\"}", want a=1,b=x or a JSON object such as {"a":1}`},
		{"missing", nil, nil, `parameter to: is missing (Target Istio version); expected --set to=STRING`},
		{"pattern", []string{"to=latest"}, nil, `parameter to: got "latest", which does not match ^\d+\.\d+\.\d+$`},
		{"unknown", []string{"to=1.31.0", "hubb=x"}, nil, `parameter hubb: is not declared by this runbook; did you mean "hub"?`},
		{"no value", []string{"to"}, map[string]any{"to": "1.31.0"}, `--set "to": has no value; expected NAME=VALUE`},
		{"twice", []string{"to=1.31.0", "to=1.31.1"}, nil, `parameter to: is set twice`},
		{"mistyped in file", nil, map[string]any{"to": 1.31}, `parameter to: got float, want string`},
		{"int", []string{"to=1.31.0", "n=many"}, nil, `parameter n: got "many", want an int`},
		{"int range", []string{"to=1.31.0", "n=10"}, nil, `parameter n: got 10, want at most 9`},
		{"fraction", nil, map[string]any{"to": "1.31.0", "n": 2.5}, `parameter n: got 2.5, want an int`},
		{"bool", []string{"to=1.31.0", "fast=yes"}, nil, `parameter fast: got "yes", want true or false`},
		{"duration", []string{"to=1.31.0", "soak=10"}, nil, `parameter soak: got "10", want a duration such as "30s", "10m", "1h30m" or "2d"`},
		{"version", []string{"to=1.31.0", "base=1.2"}, nil, `parameter base: got "1.2", want a version such as "1.31.0"`},
		{"enum", []string{"to=1.31.0", "profile=ambiant"}, nil, `parameter profile: got "ambiant"; did you mean "ambient"? one of: default, ambient`},
		{"dict", []string{"to=1.31.0", "set=x"}, nil, `parameter set: got "x", want key=value`},
		{"several at once", []string{"n=x", "nn=1"}, nil, "runbook r: 3 parameters are wrong: \n  parameter nn: is not declared by this runbook; did you mean \"n\"?\n  parameter to: is missing (Target Istio version); expected --set to=STRING\n  parameter n: got \"x\", want an int"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := rb.Bind(c.sets, c.file)
			if err != nil {
				if err.Error() != c.want {
					t.Errorf("got  %s\nwant %s", err, c.want)
				}
				if diag.ExitCode(err) != diag.Usage {
					t.Errorf("got exit code %d, want %d", diag.ExitCode(err), diag.Usage)
				}
				return
			}
			if p.String() != c.want {
				t.Errorf("got  %s\nwant %s", p, c.want)
			}
			again, err := rb.Bind(nil, p.Map())
			if err != nil || again.String() != p.String() {
				t.Errorf("bound again from the journal's form: got %v, %v, want %v", again, err, p)
			}
		})
	}
	p, err := rb.Bind([]string{"to=1.31.0"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := rb.Exec(context.Background(), p, ExecOptions{}, nil); err != nil {
		t.Error(err)
	}
}

func FuzzBind(f *testing.F) {
	rb, err := load(f, map[string]string{"r.star": paramsRunbook})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("to=1.31.0", "n=5")
	f.Add("set=a=b,c", "soak=1d12h")
	f.Fuzz(func(t *testing.T, a, b string) {
		p, err := rb.Bind([]string{a, b}, nil)
		if err != nil {
			return
		}
		if again, err := rb.Bind(nil, p.Map()); err != nil || again.String() != p.String() {
			t.Errorf("%q %q: not stable: %v, %v", a, b, again, err)
		}
	})
}

func TestBindSecret(t *testing.T) {
	rb, err := load(t, map[string]string{"r.star": `
runbook(name = "r", version = "1.0.0", params = {
    "token": param.secret(doc = "Token", pattern = "^hunter[0-9]$"),
    "spare": param.secret(required = False),
    "to": param.string(default = "x"),
})
def run(p):
    pass
`})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(answer string, err error) func(*Param) (string, error) {
		return func(p *Param) (string, error) {
			if p.Name != "token" {
				t.Errorf("asked for %s", p.Name)
			}
			return answer, err
		}
	}
	for _, c := range []struct {
		name  string
		given Given
		want  string // of token, or the error
	}{
		{"read", Given{Read: map[string]string{"token": "hunter2"}}, "hunter2"},
		{"of a file of parameters", Given{File: map[string]any{"token": "hunter2"}}, "hunter2"},
		{"read wins", Given{Read: map[string]string{"token": "hunter2"}, File: map[string]any{"token": "hunter3"}}, "hunter2"},
		{"asked", Given{Ask: ask("hunter2", nil)}, "hunter2"},
		{"asked, and wrong", Given{Ask: ask("gopher1", nil)}, "parameter token: what was given does not match ^hunter[0-9]$"},
		{"asked, and nothing said", Given{Ask: ask("", nil)}, "parameter token: is empty"},
		{"nobody there", Given{Ask: ask("", errors.New("no terminal"))}, "parameter token: no terminal"},
		{"missing", Given{}, "parameter token: is missing (Token); expected --set-file token=FILE (- for standard input), --set-env token=VARIABLE, or a terminal to be asked at"},
		{"on the command line", Given{Sets: []string{"token=hunter2"}}, "parameter token: is secret, and --set leaves it in the shell's history and in the list of processes; expected --set-file token=FILE (- for standard input), --set-env token=VARIABLE, or a terminal to be asked at"},
		{"twice", Given{Sets: []string{"to=y"}, Read: map[string]string{"token": "hunter2", "to": "z"}}, "parameter to: is set twice"},
		{"unknown", Given{Read: map[string]string{"token": "hunter2", "tokn": "hunter2"}}, `parameter tokn: is not declared by this runbook; did you mean "token"?`},
		{"empty", Given{Read: map[string]string{"token": ""}}, "parameter token: is empty"},
		{"too large", Given{Read: map[string]string{"token": strings.Repeat("hunter2", 1<<18)}}, "parameter token: is larger than 1048576 bytes"},
		{"mistyped", Given{File: map[string]any{"token": 2}}, "parameter token: got int, want secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := rb.BindAll(c.given)
			if err != nil {
				if err.Error() != c.want || diag.ExitCode(err) != diag.Usage {
					t.Errorf("got  %s (exit %d)\nwant %s", err, diag.ExitCode(err), c.want)
				}
				return
			}
			if got := p.Secrets()["token"].Reveal(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if _, there := p.Map()["token"]; there {
				t.Error("what is written down has the secret")
			}
			if p.String() != `params(token = <secret>, spare = None, to = "x")` {
				t.Errorf("got %s", p)
			}
		})
	}
}
