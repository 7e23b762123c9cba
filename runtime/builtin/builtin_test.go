package builtin

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/value"
)

type getArgs struct {
	Ref       string            `star:"ref,positional" doc:"What to get."`
	Namespace string            `star:"namespace" doc:"Namespace." default:"default"`
	Wait      time.Duration     `star:"wait" doc:"How long." default:"10m"`
	Version   value.Version     `star:"version" doc:"Version."`
	Canary    value.Quantity    `star:"canary" doc:"First wave." default:"25%"`
	Tail      *int              `star:"tail" doc:"Lines."`
	Prune     bool              `star:"prune" doc:"Prune." default:"false"`
	Kinds     []string          `star:"kinds" doc:"Kinds."`
	Set       map[string]any    `star:"set" doc:"Values."`
	Labels    map[string]string `star:"labels" doc:"Labels."`
	Data      any               `star:"data" doc:"Anything."`
	Fn        starlark.Callable `star:"fn" doc:"Function."`
	Objects   []*value.Object   `star:"objects" doc:"Objects."`
	Output    string            `star:"output" doc:"Form." default:"text" enum:"text,json,yaml"`
	Ratio     float64           `star:"ratio" doc:"Ratio."`
}

func getSpec() *Spec {
	return NewRead(ReadDef[getArgs]{
		Name: "kube.get", Doc: "Gets one object. It may wait.", Example: `kube.get("deploy/web")`, Returns: "object",
		Do: func(_ *Call, a *getArgs) (any, error) { return a.Ref, nil },
	})
}

func call(t testing.TB, s *Spec, src string) (any, error) {
	t.Helper()
	var got any
	env := starlark.StringDict{
		"obj": value.NewObject(map[string]any{"kind": "Pod"}),
		"f": starlark.NewBuiltin("f", func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			var err error
			got, err = s.Unpack(args, kwargs)
			return starlark.None, err
		}),
	}
	_, err := starlark.EvalOptions(&syntax.FileOptions{}, &starlark.Thread{}, "x.star", src, env)
	return got, err
}

func TestUnpackErrors(t *testing.T) {
	s := getSpec()
	for _, c := range []struct{ src, want string }{
		{`f()`, `kube.get: missing argument ref; expected kube.get(ref, *, namespace = "default", wait = "10m", version = None, canary = "25%", tail = None, prune = False, kinds = None, set = None, labels = None, data = None, fn = None, objects = None, output = "text", ratio = None)`},
		{`f("a", namspace = "b")`, `kube.get: unexpected keyword "namspace"; did you mean "namespace"?`},
		{`f("a", "b")`, `kube.get: got 2 positional arguments, want at most 1; by keyword only: namespace, wait, version, canary, tail, prune, kinds, set, labels, data, fn, objects, output, ratio`},
		{`f("a", ref = "b")`, `kube.get: got more than one value for argument "ref"`},
		{`f(1)`, `kube.get: ref: got int, want string`},
		{`f(None)`, `kube.get: ref: got None, want string`},
		{`f("a", namespace = 1)`, `kube.get: namespace: got int, want string`},
		{`f("a", wait = "soon")`, `kube.get: wait: got "soon", want a duration such as "30s", "10m", "1h30m" or "2d"`},
		{`f("a", wait = 10)`, `kube.get: wait: got int, want duration such as "10m"`},
		{`f("a", version = "1.31")`, `kube.get: version: got "1.31", want a version such as "1.31.0"`},
		{`f("a", canary = "125%")`, `kube.get: canary: got "125%", want a count such as 3 or a share such as "25%"`},
		{`f("a", canary = -1)`, `kube.get: canary: got -1, want a count that is not negative`},
		{`f("a", tail = 1 << 70)`, `kube.get: tail: got 1180591620717411303424, which is too large`},
		{`f("a", prune = 1)`, `kube.get: prune: got int, want bool`},
		{`f("a", kinds = "x")`, `kube.get: kinds: got string, want list of string`},
		{`f("a", kinds = ["x", 2])`, `kube.get: kinds: [1]: got int, want string`},
		{`f("a", set = [1])`, `kube.get: set: got list, want dict`},
		{`f("a", set = {1: 2})`, `kube.get: set: got a key of type int (1), want string: not data`},
		{`f("a", set = {"a": {"b": f}})`, `kube.get: set: a.b is a builtin_function_or_method, which is not data`},
		{`f("a", labels = {"x": 1})`, `kube.get: labels: ["x"]: got int, want string`},
		{`f("a", fn = 1)`, `kube.get: fn: got int, want function`},
		{`f("a", objects = [obj, 1])`, `kube.get: objects: [1]: got int, want object`},
		{`f("a", output = "jsn")`, `kube.get: output: got "jsn"; did you mean "json"? one of: text, json, yaml`},
		{`f("a", ratio = float("nan"))`, `kube.get: ratio: got nan, want a finite number`},
	} {
		_, err := call(t, s, c.src)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s:\n got  %v\n want %s", c.src, err, c.want)
			continue
		}
		if diag.ExitCode(err) != diag.Usage {
			t.Errorf("%s: got exit code %d, want %d", c.src, diag.ExitCode(err), diag.Usage)
		}
	}
}

func TestUnpackValues(t *testing.T) {
	got, err := call(t, getSpec(), `f("a", wait = "1h30m", version = "v1.31.0", canary = 2, tail = 0, kinds = ("x", "y"), set = {"a": [1, None]}, labels = {"k": "v"}, data = None, fn = f, objects = [obj], namespace = None, ratio = 1)`)
	if err != nil {
		t.Fatal(err)
	}
	a := got.(*getArgs)
	if a.Wait != 90*time.Minute || a.Version.String() != "1.31.0" || a.Canary.N != 2 || a.Tail == nil || *a.Tail != 0 ||
		a.Kinds[1] != "y" || a.Set["a"].([]any)[0] != int64(1) || a.Labels["k"] != "v" || a.Fn == nil || len(a.Objects) != 1 ||
		a.Namespace != "default" || a.Output != "text" || a.Ratio != 1 || a.Data != nil {
		t.Errorf("got %+v", a)
	}
	got, err = call(t, getSpec(), `f("a")`)
	if err != nil {
		t.Fatal(err)
	}
	if a := got.(*getArgs); a.Wait != 10*time.Minute || !a.Canary.Percent || a.Canary.N != 25 || a.Tail != nil {
		t.Errorf("defaults: got %+v", a)
	}
}

type restArgs struct {
	Name string            `star:"name,positional" doc:"Name."`
	Fn   starlark.Callable `star:"fn,positional" doc:"Function."`
	Args starlark.Tuple    `star:"*args" doc:"For fn."`
	Undo starlark.Callable `star:"undo" doc:"Undo."`
	Kw   []starlark.Tuple  `star:"**kwargs" doc:"For fn."`
}

func TestRest(t *testing.T) {
	s := NewControl(ControlDef[restArgs]{
		Name: "step", Doc: "A step.", Example: `step("a", f)`, Returns: "any",
		Do: func(*Call, *restArgs) (starlark.Value, error) { return starlark.None, nil },
	})
	got, err := call(t, s, `f("a", f, 1, 2, undo = f, x = 3)`)
	if err != nil {
		t.Fatal(err)
	}
	if a := got.(*restArgs); len(a.Args) != 2 || len(a.Kw) != 1 || a.Undo == nil || string(a.Kw[0][0].(starlark.String)) != "x" {
		t.Errorf("got %+v", a)
	}
	if want := "step(name, fn, *args, undo = None, **kwargs)"; s.Signature() != want {
		t.Errorf("got %s, want %s", s.Signature(), want)
	}
	if !strings.Contains(s.Stub(), "def step(name, fn, *args, undo = None, **kwargs):") {
		t.Errorf("got stub %s", s.Stub())
	}
}

func TestInvalidDeclarations(t *testing.T) {
	do := func(*Call, *struct{}) (any, error) { return nil, nil }
	type noDoc struct {
		X string `star:"x"`
	}
	type badDefault struct {
		X time.Duration `star:"x" doc:"X." default:"soon"`
	}
	type badType struct {
		X chan int `star:"x" doc:"X."`
	}
	for want, declare := range map[string]func(){
		"builtin x: a read declaration needs Doc":                                  func() { NewRead(ReadDef[struct{}]{Name: "x", Example: "x()", Do: do}) },
		"builtin x: a read declaration needs Example":                              func() { NewRead(ReadDef[struct{}]{Name: "x", Doc: "X.", Do: do}) },
		"builtin x: a pure declaration needs Do":                                   func() { NewPure(PureDef[struct{}]{Name: "x", Doc: "X.", Example: "x()"}) },
		"builtin a.b.c: a pure declaration needs a Name of one or two identifiers": func() { NewPure(PureDef[struct{}]{Name: "a.b.c", Doc: "X.", Example: "x()", Do: do}) },
		"builtin x: a write declaration needs Plan": func() {
			NewWrite(WriteDef[struct{}]{Name: "x", Doc: "X.", Example: "x()", Effects: []effect.Class{effect.Plain}})
		},
		"builtin x: field X: has no doc tag":                                                             func() { NewPure(PureDef[noDoc]{Name: "x", Doc: "X.", Example: "x()"}) },
		"builtin x: field X: type chan int cannot be an argument":                                        func() { NewPure(PureDef[badType]{Name: "x", Doc: "X.", Example: "x()"}) },
		`builtin x: field X: default: got "soon", want a duration such as "30s", "10m", "1h30m" or "2d"`: func() { NewPure(PureDef[badDefault]{Name: "x", Doc: "X.", Example: "x()"}) },
	} {
		func() {
			defer func() {
				if got := recover(); got != want {
					t.Errorf("got panic %v, want %s", got, want)
				}
			}()
			declare()
		}()
	}
	if _, err := NewSet(getSpec(), getSpec()); err == nil || err.Error() != "builtin kube.get is declared twice" {
		t.Errorf("got %v", err)
	}
}

var errTyped = errors.New("typed")

type fakeHost struct{ Host }

func (fakeHost) Call(_ *starlark.Thread, name string, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	if name == "kube.fails" {
		return nil, errTyped
	}
	return starlark.String(name + args.String()), nil
}

func TestBoundAndHost(t *testing.T) {
	thread := &starlark.Thread{}
	b := &Bound{Builtin: "backup.restore", Recv: starlark.String("saved")}
	if _, err := starlark.Call(thread, b, nil, nil); diag.ExitCode(err) != diag.Usage {
		t.Errorf("without a host: got %v", err)
	}
	thread.SetLocal(HostKey, Host(fakeHost{}))
	v, err := starlark.Call(thread, b, starlark.Tuple{starlark.MakeInt(1)}, nil)
	if err != nil || v.String() != `"backup.restore(\"saved\", 1)"` {
		t.Errorf("got %v, %v", v, err)
	}
	if _, err := starlark.Call(thread, &Bound{Builtin: "kube.fails", Recv: starlark.None}, nil, nil); !errors.Is(err, errTyped) {
		t.Errorf("got %v, want the typed error to survive", err)
	}
}

func FuzzUnpack(f *testing.F) {
	s := getSpec()
	f.Add("ref", "x", int64(1))
	f.Add("wait", "10m", int64(-1))
	f.Add("canary", "25%", int64(5))
	f.Fuzz(func(_ *testing.T, name, text string, n int64) {
		for _, v := range []starlark.Value{starlark.String(text), starlark.MakeInt64(n), starlark.None, starlark.NewList([]starlark.Value{starlark.String(text)})} {
			// Only that it returns: any value is an argument or an error.
			_, _ = s.Unpack(starlark.Tuple{starlark.String("a")}, []starlark.Tuple{{starlark.String(name), v}})
		}
	})
}

func BenchmarkPureCall(b *testing.B) {
	s := NewPure(PureDef[getArgs]{
		Name: "kube.get", Doc: "Gets.", Example: "kube.get()",
		Do: func(*Call, *getArgs) (any, error) { return "x", nil },
	})
	thread, fn := &starlark.Thread{}, s.Value()
	args := starlark.Tuple{starlark.String("deploy/web")}
	kwargs := []starlark.Tuple{{starlark.String("namespace"), starlark.String("shop")}, {starlark.String("wait"), starlark.String("5m")}}
	for b.Loop() {
		if _, err := starlark.Call(thread, fn, args, kwargs); err != nil {
			b.Fatal(err)
		}
	}
}
