package plain

import (
	"reflect"
	"strings"
	"testing"

	utiljson "k8s.io/apimachinery/pkg/util/json"
)

var answers = []string{
	`{}`, ` { } `, `null`, `[]`, `{"a":[]}`, `{"a":[ ],"b":{},"c":null}`, `{"a":1,"a":2}`, `{"a":{"x":1},"a":{"y":2}}`,
	`{"n":[0,-0,1,-1,9223372036854775807,9223372036854775808,-9223372036854775808,1.5,1e3,1E-2,-0.0,1.0,1e400]}`,
	`{"n":01}`, `{"n":-}`, `{"n":1.}`, `{"n":.5}`, `{"n":1e}`, `{"n":+1}`, `{"n":1x}`,
	`{"s":"a\n\t\r\"\\\/\b\f"}`, `{"s":"\u003ca\u003e & ü ✓"}`, `{"s":"\ud83d\ude00 \ud83d"}`, `{"s":"\uZZZZ"}`, `{"s":"\u12"}`, `{"s":"\u+123"}`, `{"s":"\x"}`,
	"{\"s\":\"\xff\"}", "{\"s\":\"a\\n\xff\"}", "{\"s\":\"a\nb\"}", `{"s":"open`, `{"s":"\`,
	`{"a":true,"b":false,"c":nul}`, `{"a" :1 , "b": [ 1 , 2 ] }`, `{"a":1,}`, `{,"a":1}`, `{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1 2]}`, `{"a":1 "b":2}`, `{"a":1}}`, `{"a":1} x`, `{a:1}`, `{"a"}`, `{"a":}`, ``, `{`, `"s"`, `1`,
	`{"deep":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + `}`,
	`{"Kind":"Upper","kind":"lower"}`,
}

func sameAsGeneral(t *testing.T, raw string) {
	t.Helper()
	var want map[string]any
	wantErr := utiljson.Unmarshal([]byte(raw), &want)
	got, err := Decode([]byte(raw))
	if (err == nil) != (wantErr == nil) || err == nil && !reflect.DeepEqual(got, want) {
		t.Errorf("%.200q:\n got %#v, %v\nwant %#v, %v", raw, got, err, want, wantErr)
	}
}

func TestDecodeIsThatOfAPIMachinery(t *testing.T) {
	for _, raw := range answers {
		sameAsGeneral(t, raw)
	}
}

func FuzzDecode(f *testing.F) {
	for _, raw := range answers {
		f.Add(raw)
	}
	f.Fuzz(sameAsGeneral)
}

var pods = func() string {
	const pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"shop","labels":{"app":"web"},"managedFields":[{"f:metadata":{"f:labels":{".":{},"f:app":{}}}}]},"spec":{"containers":[{"name":"web","image":"web:1","ports":[{"containerPort":8080}]}]},"status":{"phase":"Running"}}`
	return `{"items":[` + strings.Repeat(pod+",", 199) + pod + `]}`
}()

// Only managedFields of the items' own metadata are left out, whatever is in them.
func TestDecodeLean(t *testing.T) {
	item := func(managed string) string {
		return `{"metadata":{` + managed + `"name":"web"},"spec":{"managedFields":[1],"metadata":{"managedFields":{"kept":true}}}}`
	}
	want, err := Decode([]byte(`{"metadata":{"managedFields":["the list's"]},"items":[` + item("") + `,{"kind":"Pod"},` + item("") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, managed := range []string{`"managedFields":[],`, `"managedFields":[{"f:\"]}":{"a":["}","{"]}}],`, `"managedFields": {"x":[[]]} ,`, `"managedFields":null,`} {
		raw := `{"metadata":{"managedFields":["the list's"]},"items":[` + item(managed) + `,{"kind":"Pod"},` + item(managed) + `]}`
		got, err := DecodeLean([]byte(raw))
		if strings.Contains(managed, "null") { // no array: left to the general decoder, which keeps it
			want, err = Decode([]byte(raw))
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %v, %v\nwant %v", raw, got, err, want)
		}
	}
	if _, err := DecodeLean([]byte(`{"items":[{"metadata":{"managedFields":[{]}}]}`)); err == nil {
		t.Error("broken managedFields are taken for whole")
	}
}

func BenchmarkDecodeLean(b *testing.B) {
	benchmarkDecode(b, func(raw []byte) error { _, err := DecodeLean(raw); return err })
}

func BenchmarkDecode(b *testing.B) {
	benchmarkDecode(b, func(raw []byte) error { _, err := Decode(raw); return err })
}

func BenchmarkDecodeGeneral(b *testing.B) {
	benchmarkDecode(b, func(raw []byte) error { var m map[string]any; return utiljson.Unmarshal(raw, &m) })
}

func benchmarkDecode(b *testing.B, decode func([]byte) error) {
	raw := []byte(pods)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if err := decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}
