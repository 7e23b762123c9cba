package journal

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

// A payload is laid out by hand, and read without going over its body. Both have
// to agree with encoding/json, by which other programs read a journal.
func TestPayload(t *testing.T) {
	at := time.Date(2026, 3, 29, 1, 59, 59, 120_000_000, time.FixedZone("", 3600))
	for _, body := range []string{`{}`, `{"message":"<a> & \u2028 \"q\"","seq":7}`, `{"a":{"time":"x","body":[1,2.5,null]}}`} {
		rec := &Record{Seq: 12, Time: at, Type: TypeLog, Body: json.RawMessage(body)}
		got, err := encoded(rec)
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(payload{rec.Seq, rec.Time.UTC(), rec.Body})
		if err != nil {
			t.Fatal(err)
		}
		if body == `{}` && !bytes.Equal(got, want) {
			t.Errorf("encoded %s, want %s", got, want)
		}
		for _, p := range [][]byte{got, want, bytes.ReplaceAll(want, []byte(`,"body"`), []byte(` , "body"`))} {
			var general payload
			if err := json.Unmarshal(p, &general); err != nil {
				t.Fatal(err)
			}
			back, err := decoded(parts{payload: p, typ: string(TypeLog)})
			if err != nil || back.Seq != 12 || back.Type != TypeLog || !back.Time.Equal(at) || !bytes.Equal(back.Body, general.Body) {
				t.Errorf("%s: read %+v, %v", p, back, err)
			}
		}
	}
	for _, bad := range []string{``, `{"seq":1`, `{"seq":-1,"time":"2026-03-29T00:00:00Z","body":{}}`, `{"seq":1,"time":"yesterday","body":{}}`} {
		if back, err := decoded(parts{payload: []byte(bad)}); err == nil {
			t.Errorf("%s: read %+v", bad, back)
		}
	}
}
