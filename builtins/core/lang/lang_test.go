package lang

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/value"
)

type clock struct{}

func (clock) Now() time.Time                             { return time.Date(2026, 9, 1, 2, 0, 0, 0, time.UTC) }
func (clock) Sleep(context.Context, time.Duration) error { return nil }
func (clock) Virtual() bool                              { return true }

// host runs Read builtins as the engine does, without journal.
type host struct {
	builtin.Host
	set *builtin.Set
}

func (h host) Call(t *starlark.Thread, name string, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	spec := h.set.Lookup(name)
	a, err := spec.Unpack(args, kwargs)
	if err != nil {
		return nil, err
	}
	v, err := spec.Do(&builtin.Call{Ctx: context.Background(), Env: &env.Env{Clock: clock{}}, Thread: t}, a)
	if err != nil {
		return nil, err
	}
	return value.FromGo(v)
}

func newSet(t *testing.T) *builtin.Set {
	t.Helper()
	set, err := builtin.NewSet(Builtins()...)
	if err == nil {
		set, err = AddTo(set)
	}
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func eval(set *builtin.Set, expr string, withHost bool) (starlark.Value, error) {
	thread := &starlark.Thread{}
	if withHost {
		thread.SetLocal(builtin.HostKey, builtin.Host(host{set: set}))
	}
	names := set.Predeclared()
	names["obj"] = value.NewObject(map[string]any{"apiVersion": "v1", "kind": "Secret", "data": map[string]any{"k": "aHVudGVyMg=="}})
	return starlark.EvalOptions(&syntax.FileOptions{}, thread, "x.star", expr, names)
}

func TestExamplesRun(t *testing.T) {
	set := newSet(t)
	for _, spec := range set.All() {
		if _, err := eval(set, spec.Example, true); err != nil {
			t.Errorf("%s: example: %v", spec.Name, err)
		}
	}
}

func TestValuesAndErrors(t *testing.T) {
	set := newSet(t)
	laughs := "a: &a [x,x,x,x,x,x,x,x,x]\\n"
	for c := 'b'; c <= 'i'; c++ {
		p := string(c - 1)
		laughs += string(c) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+p+",", 9), ",") + "]\\n"
	}
	for _, c := range []struct{ expr, want string }{
		{`json.encode({"b": 1.0, "a": [None, True]})`, `"{\"a\":[null,true],\"b\":1.0}"`},
		{`json.decode('{"b": 12345678901234567890123, "a": 1.0}')`, `{"a": 1.0, "b": 12345678901234567890123}`},
		{`json.encode(obj)`, `"{\"apiVersion\":\"v1\",\"data\":{\"k\":\"<secret>\"},\"kind\":\"Secret\"}"`},
		{`"aHV" in yaml.encode(obj) + yaml.encode(obj.data)`, `False`},
		{`json.encode(semver.parse("1.31.0"))`, `"\"1.31.0\""`},
		{`yaml.decode("a: 1\nb: [x, 2.5]")`, `{"a": 1, "b": ["x", 2.5]}`},
		{`yaml.decode("")`, `None`},
		{`yaml.decode_all("a: 1\n---\n---\n# only a remark\n---\nb: 2\n")`, `[{"a": 1}, {"b": 2}]`},
		{`yaml.encode({"a": {"b": [1]}})`, `"a:\n  b:\n  - 1\n"`},
		{`semver.sort(["1.28.10", "1.28.9", "1.28.10-rc.1"], reverse = True)`, `[1.28.10, 1.28.10-rc.1, 1.28.9]`},
		{`[semver.compare("1.0.0", "1.0.1"), semver.satisfies("1.31.2", "1.30.x")]`, `[-1, False]`},
		{`re.match(r"(?P<minor>\d+)\.(x)?", "v31.0").named.minor`, `"31"`},
		{`re.match("a", "b")`, `None`},
		{`re.find_all("x", "b")`, `[]`},
		{`re.replace("(a)", "banana", "<${1}>")`, `"b<a>n<a>n<a>"`},
		{`re.replace("a", "a" * 3, "bb")`, `"bbbbbb"`},
		{`re.replace("()()()()()()()()()", "a" * 200000, "")`, `error: re.replace: found more than 100000 matches, want at most that`},
		{`re.replace("a", "a" * 1000001, "")`, `error: re.replace: found more than 1000000 matches, want at most that`},
		{`time.now()`, `2026-09-01 02:00:00 +0000 UTC`},
		{`time.parse("2026-09-01T02:00:00Z") - time.now() == 0 * time.second`, `True`},
		{`time.parse_duration("1d12h")`, `36h0m0s`},
		{`struct(a = 1).a`, `1`},

		{`yaml.decode("a: 1\na: 2")`, `error: yaml.decode: document 1: yaml: unmarshal errors:`},
		{`yaml.decode("a: 1\n---\nb: 1")`, `error: yaml.decode: got 2 documents, want one; use yaml.decode_all`},
		{`yaml.decode("` + laughs + `")`, `error: yaml.decode: document 1: is more than 6544 bytes long once its aliases are written out, and 306 before`},
		{`json.decode("{")`, `error: json.decode: unexpected EOF`},
		{`json.encode(json.encode)`, `error: json.encode: `},
		{`re.match("(", "x")`, "error: re.match: pattern \"(\": missing closing ): `(`"},
		{`semver.satisfies("1.31.0", "many")`, `error: semver.satisfies: range: got "many", want a range such as "1.31.x"`},
		{`semver.parse("1.31")`, `error: semver.parse: version: got "1.31", want a version such as "1.31.0"`},
		{`time.parse("today")`, `error: time.parse: got "today", want a time such as "2026-09-01T02:00:00Z"`},
	} {
		v, err := eval(set, c.expr, true)
		got := ""
		if err != nil {
			got = "error: " + err.Error()
		} else {
			got = v.String()
		}
		if err != nil && !strings.HasPrefix(got, c.want) || err == nil && got != c.want {
			t.Errorf("%.80s:\n got  %s\n want %s", c.expr, got, c.want)
		}
	}
	if _, err := eval(set, `time.now()`, false); err == nil || !strings.Contains(err.Error(), "may not be called while a module loads") {
		t.Errorf("time.now while loading: got %v", err)
	}
}
