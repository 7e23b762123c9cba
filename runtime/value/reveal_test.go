package value

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

func TestToManifest(t *testing.T) {
	names := starlark.StringDict{"s": NewSecret("hunter2")}
	for _, c := range []struct {
		src  string
		want any // nil: no data
	}{
		{`{"apiVersion": "v1", "kind": "Secret", "stringData": {"a": s, "b": "c"}}`, map[string]any{"apiVersion": "v1", "kind": "Secret", "stringData": map[string]any{"a": "hunter2", "b": "c"}}},
		{`{"apiVersion": "v1", "kind": "Secret", "data": {"a": s}}`, map[string]any{"apiVersion": "v1", "kind": "Secret", "data": map[string]any{"a": "hunter2"}}},
		{`{"kind": "List", "items": [{"apiVersion": "v1", "kind": "Secret", "data": {"a": s}}, 1]}`, map[string]any{"kind": "List", "items": []any{map[string]any{"apiVersion": "v1", "kind": "Secret", "data": map[string]any{"a": "hunter2"}}, int64(1)}}},
		{`{"kind": "List", "items": [{"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": s}}]}`, nil},
		{`{"kind": "List", "items": [{"kind": "List", "items": [s]}]}`, nil},
		{`{"kind": "List", "metadata": {"apiVersion": "v1", "kind": "Secret", "data": {"a": s}}}`, nil},
		{`{"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": s}}`, nil},
		{`{"apiVersion": "v2", "kind": "Secret", "data": {"a": s}}`, nil},
		{`{"apiVersion": "v1", "kind": "Secret", "data": s}`, nil},
		{`{"apiVersion": "v1", "kind": "Secret", "data": {"a": {"b": s}}}`, nil},
		{`{"apiVersion": "v1", "kind": "Secret", "metadata": {"annotations": {"a": s}}}`, nil},
		{`{"apiVersion": "v1", "kind": "Secret", "type": s}`, nil},
		{`{1: {"apiVersion": "v1", "kind": "Secret"}}`, nil},
		{`s`, nil},
	} {
		v, err := starlark.EvalOptions(&syntax.FileOptions{}, &starlark.Thread{}, "x.star", c.src, names)
		if err != nil {
			t.Fatal(err)
		}
		before := v.String()
		got, err := ToManifest(v)
		if c.want == nil {
			if !errors.Is(err, ErrNotData) {
				t.Errorf("%s: %v, %v, want %v", c.src, got, err, ErrNotData)
			}
		} else if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", c.src, err, diff)
		}
		if v.String() != before {
			t.Errorf("%s: the script's own has changed: %s", c.src, v)
		}
		if got, err := ToGo(v); c.want != nil && err == nil {
			t.Errorf("%s: is data anywhere: %v", c.src, got)
		}
	}
}
