package plain

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"

	utiljson "k8s.io/apimachinery/pkg/util/json"
)

func sameAsMarshal(t *testing.T, v any) {
	t.Helper()
	want, wantErr := json.Marshal(v)
	got, err := Encode(v)
	if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
		t.Errorf("%#v:\n got %s, %v\nwant %s, %v", v, got, err, want, wantErr)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	wantErr = enc.Encode(v)
	got, err = EncodeBare(v)
	if (err == nil) != (wantErr == nil) || err == nil && string(got)+"\n" != b.String() {
		t.Errorf("%#v, bare:\n got %s, %v\nwant %s, %v", v, got, err, b.String(), wantErr)
	}
}

func TestEncodeIsThatOfTheStandardLibrary(t *testing.T) {
	for _, v := range []any{
		nil, true, int64(-7), 7, 1.5, 1e30, math.Inf(1), "", "plain", "a\"b\\c\n\r\t<&>", "\x00\b\f\x7f", "ü ✓ \u2028", "\xff", "ü – 日本 <é> \U0001f600", "é\xc3", "\xe2\x80", "\u2027\u2029", "é\n\x01",
		map[string]any(nil), []any(nil),
		[]string{"x"},
		map[string]string{"k": "v"},
		json.RawMessage(`{"a": 1}`), func() {},
		map[string]any{},
		[]any{},
		map[string]any{"b": []any{int64(1), "x", nil, map[string]any{"é": false}}, "a": map[string]any{"<": 1.0}},
	} {
		sameAsMarshal(t, v)
	}
}

func FuzzEncode(f *testing.F) {
	for _, raw := range answers {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		var v any
		if utiljson.Unmarshal([]byte(raw), &v) == nil {
			sameAsMarshal(t, v)
		}
	})
}

func BenchmarkEncode(b *testing.B) { benchmarkEncode(b, Encode) }

func BenchmarkEncodeGeneral(b *testing.B) { benchmarkEncode(b, json.Marshal) }

func benchmarkEncode(b *testing.B, encode func(any) ([]byte, error)) {
	var v any
	if err := utiljson.Unmarshal([]byte(pods), &v); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(pods)))
	for b.Loop() {
		if _, err := encode(v); err != nil {
			b.Fatal(err)
		}
	}
}
