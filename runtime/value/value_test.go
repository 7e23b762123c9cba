package value

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	startime "go.starlark.net/lib/time"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

const deployment = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"shop",
"labels":{"app":"web","app.kubernetes.io/name":"web"},"get":1},
"spec":{"replicas":3,"ratio":1.0,"big":12345678901234567890123,"paused":false,"none":null,
"containers":[{"name":"a","image":"x:1","args":["p","q"]},{"name":"b","image":"y:2"}]}}`

const secret = `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"cacerts","annotations":
{"kubectl.kubernetes.io/last-applied-configuration":"{\"kind\":\"Secret\",\"k\":\"aHVudGVyMg==\"}"}},"data":{"key":"aHVudGVyMg=="}}`

func object(t testing.TB, text string) *Object {
	t.Helper()
	x, err := DecodeJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return NewObject(x.(map[string]any))
}

func eval(t testing.TB, expr string, env starlark.StringDict) (starlark.Value, error) {
	t.Helper()
	return starlark.EvalOptions(&syntax.FileOptions{Set: true}, &starlark.Thread{}, "x.star", expr, env)
}

func TestObject(t *testing.T) {
	env := starlark.StringDict{
		"o": object(t, deployment), "o2": object(t, deployment), "s": object(t, secret),
		"l": object(t, `{"apiVersion":"v1","kind":"List","items":[`+secret+`]}`), "str": starlark.Universe["str"],
	}
	for _, c := range []struct{ expr, want string }{
		{`o.spec.containers[0].image`, `"x:1"`},
		{`o.metadata.labels["app.kubernetes.io/name"]`, `"web"`},
		{`o.metadata["get"]`, `1`},
		{`o.spec.big`, `12345678901234567890123`},
		{`[type(o.spec.replicas), type(o.spec.ratio), type(o.spec.none)]`, `["int", "float", "NoneType"]`},
		{`o.get("spec.replicas", 9)`, `3`},
		{`o.get("spec.nothing.at.all", 9)`, `9`},
		{`o.get("spec.none", 9)`, `9`},
		{`o.get("spec.containers[1].image")`, `"y:2"`},
		{`o.get("spec.containers.1.image")`, `"y:2"`},
		{`o.get("spec.containers[7].image", "-")`, `"-"`},
		{`o.get('metadata.labels["app.kubernetes.io/name"]')`, `"web"`},
		{`o.metadata.labels.get("app.kubernetes.io/name")`, `"web"`},
		{`o.metadata.labels.get("app/name", "-")`, `"-"`},
		{`o.metadata.labels.get("app.io/name", "-")`, `"-"`},
		{`[k for k in o]`, `["apiVersion", "kind", "metadata", "spec"]`},
		{`["spec" in o, "status" in o, len(o), bool(o)]`, `[True, False, 4, True]`},
		{`o == o2`, `True`},
		{`o.spec == o2.metadata`, `False`},
		{`o.spec.containers[0].args == ["p", "q"]`, `True`},
		{`[c.name for c in o.spec.containers]`, `["a", "b"]`},
		{`o.spec.containers[::-1][0].name`, `"b"`},
		{`len(o.spec.containers + [1])`, `3`},
		{`o.spec.containers[1] in o.spec.containers`, `True`},
		{`dict(o.metadata.labels)["app"]`, `"web"`},
		{`type(o.to_dict()["spec"]["containers"])`, `"list"`},
		{`hasattr(o, "spec") and not hasattr(o, "status")`, `True`},
		{`getattr(o, "status", 1)`, `1`},
		{`"replicas" in dir(o.spec)`, `True`},
		{`s.data.key`, `<secret>`},
		{`"aHVu" in str(s.metadata) + str(l.items) + str(s.metadata.annotations)`, `False`},
		{`l.items[0].data.key`, `<secret>`},
		{`s.metadata.annotations["kubectl.kubernetes.io/last-applied-configuration"]`, `<secret>`},
		{`[i.data.key for i in l.to_dict()["items"][:0]] + [l.to_dict()["items"][0]["data"]["key"]]`, `[<secret>]`},
		{`s.data`, `{"key":"<secret>"}`},
		{`"aHVu" in str(s) + str(l) + "%s" % s.data.key`, `False`},
		{`s.to_dict()["data"]["key"]`, `<secret>`},

		{`o.spec.replica`, `error: Deployment.apps/web has no attribute "spec.replica"; did you mean "replicas"? it has: big, containers, none, paused, ratio, replicas`},
		{`o.spec.containers[1].imag`, `error: Deployment.apps/web has no attribute "spec.containers[1].imag"; did you mean "image"? it has: image, name`},
		{`o.metadata.labels["ap"]`, `error: Deployment.apps/web has no attribute "metadata.labels.ap"; did you mean "app"? it has: app, app.kubernetes.io/name`},
		{`o[1]`, `error: Deployment.apps/web: got int as key, want string`},
		{`o.get("")`, `error: Deployment.apps/web: get: the path is empty`},
		{`o.get("a..b")`, `error: Deployment.apps/web: get: path "a..b" has an empty part`},
		{`o.get("a[x]")`, `error: Deployment.apps/web: get: path "a[x]": got [x], want a number or a quoted key in brackets`},
		{`o.get("a[")`, `error: Deployment.apps/web: get: path "a[": a bracket is not closed`},
		{`o.get("spec.containers.name")`, `error: Deployment.apps/web: spec.containers is a list; got "name", want a number`},
		{`o.get("spec.replicas.x")`, `error: Deployment.apps/web: spec.replicas is a int and has no "x"`},
		{`o < o2`, `error: objects have no order: object < object`},
		{`{o: 1}`, `error: unhashable type: object; use its name, or its uid, as the key`},
	} {
		v, err := eval(t, c.expr, env)
		got := ""
		if err != nil {
			got = "error: " + err.Error()
		} else {
			got = v.String()
		}
		if got != c.want {
			t.Errorf("%s:\n got  %s\n want %s", c.expr, got, c.want)
		}
	}
	var miss *AttrError
	if _, err := eval(t, "o.spec.x", env); !errors.As(err, &miss) || miss.Path != "spec.x" {
		t.Errorf("got %v, want a reachable AttrError", err)
	}
}

type handle struct{ text string }

func (h handle) String() string                         { return h.text }
func (handle) Type() string                             { return "manifest" }
func (handle) Freeze()                                  {}
func (handle) Truth() starlark.Bool                     { return true }
func (handle) Hash() (uint32, error)                    { return 0, errors.New("unhashable") }
func (handle) HandleKind() string                       { return "manifest/1" }
func (h handle) EncodeHandle() (json.RawMessage, error) { return json.Marshal(h.text) }

func codec() *Codec {
	flip := func(b []byte) ([]byte, error) {
		out := make([]byte, len(b))
		for i := range b {
			out[i] = b[i] ^ 0x5a
		}
		return out, nil
	}
	return &Codec{Seal: flip, Open: flip, Decoders: map[string]Decoder{
		"manifest/1": func(raw json.RawMessage) (starlark.Value, error) {
			var s string
			err := json.Unmarshal(raw, &s)
			return handle{s}, err
		},
	}}
}

func TestCodecRoundTrip(t *testing.T) {
	v131, err := ParseVersion("1.31.0")
	if err != nil {
		t.Fatal(err)
	}
	env := starlark.StringDict{
		"o": object(t, deployment), "s": object(t, secret), "h": handle{"m"}, "v": v131,
		"q": Quantity{25, true}, "d": startime.Duration(time.Minute), "float": starlark.Universe["float"],
	}
	c := codec()
	for _, expr := range []string{
		`None`, `True`, `"<&>\n\u2028é"`, `12345678901234567890123`, `1.0`, `1e300`, `float("inf")`, `b"\x00\xff"`, `b""`,
		`[1, [2, (3, ())], {}]`, `{"z": 1, "a": {"b": [None]}}`, `{1: 2, (1, 2): "x"}`, `{"$rutter": "handle", "kind": "manifest/1"}`,
		`set([1, 2])`, `o`, `o.spec.containers`, `[o, {"o": o.spec}]`, `h`, `{"saved": h}`, `v`, `q`, `d`, `s.data.key`,
	} {
		in, err := eval(t, expr, env)
		if err != nil {
			t.Fatalf("%s: %v", expr, err)
		}
		raw, err := c.Encode(in)
		if err != nil || !json.Valid(raw) {
			t.Errorf("%s: %v, %s", expr, err, raw)
			continue
		}
		out, err := c.Decode(raw)
		if err != nil {
			t.Errorf("%s: decode %s: %v", expr, raw, err)
			continue
		}
		if in.Type() != out.Type() || in.String() != out.String() {
			t.Errorf("%s: got %s %s, want %s %s", expr, out.Type(), out, in.Type(), in)
		}
		if again, err := c.Encode(out); err != nil || string(again) != string(raw) {
			t.Errorf("%s: encoded again: %s, want %s (%v)", expr, again, raw, err)
		}
	}
	raw, err := c.Encode(object(t, secret))
	if err != nil || strings.Contains(string(raw), "aHVudGVyMg") {
		t.Errorf("a Secret was recorded in the clear: %s, %v", raw, err)
	}
}

func TestCodecRefuses(t *testing.T) {
	loop := starlark.NewList(nil)
	if err := loop.Append(loop); err != nil {
		t.Fatal(err)
	}
	env := starlark.StringDict{"loop": loop, "s": object(t, secret), "f": starlark.Universe["len"]}
	for _, c := range []struct{ expr, want string }{
		{`f`, `value is a builtin_function_or_method, which is not data`},
		{`{"a": [1, f]}`, `a[1] is a builtin_function_or_method, which is not data`},
		{`loop`, `nests deeper than 100 levels, or holds itself: not data`},
		{`s`, `value holds Secret material, which is recorded only encrypted; give the run an age key`},
		{`[s.metadata]`, `[0] holds Secret material, which is recorded only encrypted; give the run an age key`},
		{`[s.data.key]`, `[0] holds Secret material, which is recorded only encrypted; give the run an age key`},
	} {
		v, err := eval(t, c.expr, env)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (&Codec{}).Encode(v); err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.expr, err, c.want)
		}
	}
	if _, err := (&Codec{}).Decode([]byte(`{"$rutter":"handle","kind":"new/9","value":1}`)); err == nil {
		t.Error("a handle of an unknown kind was decoded")
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"$rutter":"tuple","value":[1]}`, `{"a":{"$rutter":"float","value":"NaN"}}`, `[1,2,{"b":null}]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := codec()
		v, err := c.Decode(b)
		if err != nil {
			return
		}
		raw, err := c.Encode(v)
		if err != nil {
			return
		}
		w, err := c.Decode(raw)
		if err != nil || w.String() != v.String() {
			t.Errorf("%q: %v came back as %v, %v", b, v, w, err)
		}
	})
}

func FuzzPath(f *testing.F) {
	f.Add(`a.b[0]["c.d"]`)
	f.Fuzz(func(_ *testing.T, path string) {
		// Only that it returns: any text is a path or an error.
		_, _, _ = NewObject(map[string]any{"a": []any{map[string]any{"b": "c"}}}).Lookup(path)
	})
}

func TestScalars(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"0": 0, "10m": 10 * time.Minute, "1h30m": 90 * time.Minute, "2d": 48 * time.Hour, "1d12h": 36 * time.Hour,
	} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("duration %q: got %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "10", "-1m", "+1m", "d", "1d-1h", "-1d", "1.5d", "99999999d", "10 m", "1d2d"} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("duration %q: got %v, want an error", in, got)
		}
	}
	for _, in := range []string{"", "%", "101%", "-1", "+1", "1.5", "x%"} {
		if got, err := ParseQuantity(in); err == nil {
			t.Errorf("quantity %q: got %v, want an error", in, got)
		}
	}
	q, err := ParseQuantity("25%")
	if err != nil || q.Of(10, true) != 3 || q.Of(10, false) != 2 {
		t.Errorf("25%% of 10: got %d up, %d down, %v", q.Of(10, true), q.Of(10, false), err)
	}
	a, errA := ParseVersion("1.28.10")
	b, errB := ParseVersion("v1.28.9")
	if errA != nil || errB != nil || a.Compare(b) != 1 || (Version{}).Compare(a) != -1 {
		t.Error("1.28.10 must be newer than 1.28.9")
	}
}

func BenchmarkObjectAttr(b *testing.B) {
	o := object(b, deployment)
	for b.Loop() {
		spec, _ := o.Attr("spec")
		list, _ := spec.(*Object).Attr("containers")
		if v, err := list.(*List).Index(0).(*Object).Attr("image"); v == nil || err != nil {
			b.Fatal(err)
		}
	}
}
