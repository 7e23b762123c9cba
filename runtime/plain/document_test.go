package plain_test

import (
	"reflect"
	"testing"

	utiljson "k8s.io/apimachinery/pkg/util/json"

	"rutter.dev/rutter/runtime/plain"
)

var documents = []string{
	"", "\n# nothing\n", "null", "{}", "[]", "a: b", `{"a":1,"b":[true,null,"x"]}`, ` {"a": {"b": -0}} `, "{\"a\":\n1}\n",
	`{"a":1,"a":2}`, `{"a":{"b":1,"b":1}}`, `{"a":1.0}`, `{"a":1e3}`, `{"a":18446744073709551615}`, `{"a":99999999999999999999999}`,
	"{\"a\":\"\u2028\"}", "{\"a\":\"\u0085\"}", "{\"a\":\"\x7f\"}", "{\"a\":\"\ufeff\"}", "{\"a\":\"\uffff\"}", "{\"a\":\"é – 日本\"}", `{"a":"é\u2028"}`,
	`{"a":"\/"}`, `{"a":"\ud83d\ude00"}`, `{"a":"\u00e9\t\n"}`, `{"a":"\b\f"}`, "{\"a\":\"\t\"}", "{\"a\":\"x\ny\"}",
	`{"a":1} # a comment`, `{a: 1, b: yes}`, `{"a":yes}`, `{"<<":{"a":1}}`, `{"a":1,}`, `{"a"}`, `{"a":&x 1,"b":*x}`, `"text"`, "7", "{\"a\":\"\xff\"}",
}

// A document that is JSON means what it means as YAML.
func TestDocumentInJSONIsReadAsYAMLIs(t *testing.T) {
	for _, doc := range documents {
		asYAML(t, doc)
	}
}

func FuzzDecodeDocument(f *testing.F) {
	for _, doc := range documents {
		f.Add(doc)
	}
	f.Fuzz(asYAML)
}

func asYAML(t *testing.T, doc string) {
	t.Helper()
	j, err := plain.Written.JSON([]byte(doc))
	var want any
	if err == nil && len(j) > 0 {
		err = utiljson.Unmarshal(j, &want)
	}
	got, gotErr := plain.Written.Decode([]byte(doc))
	if gotErr == nil && err != nil { // JSON is right where the YAML parser has limits of its own
		var is any
		if utiljson.Unmarshal([]byte(doc), &is) == nil && reflect.DeepEqual(got, is) {
			return
		}
	}
	if (gotErr == nil) != (err == nil) || err == nil && !reflect.DeepEqual(got, want) {
		t.Errorf("%q: got %#v, %v; want %#v, %v", doc, got, gotErr, want, err)
	}
}
