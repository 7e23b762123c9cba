package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/value"
)

type memBlobs map[string][]byte

func (m memBlobs) Put(b []byte) (string, error) {
	h := sha256.Sum256(b)
	d := "sha256:" + hex.EncodeToString(h[:])
	m[d] = append([]byte(nil), b...)
	return d, nil
}

func (m memBlobs) Get(d string) ([]byte, error) {
	b, ok := m[d]
	if !ok {
		return nil, errors.New("no blob " + d)
	}
	return b, nil
}

const twoDocs = `
# only a comment
---
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: x}
data: {n: "1"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: b, namespace: x}
spec: {replicas: 2}
`

func TestManifestSurvivesEncoding(t *testing.T) {
	objs, err := Parse(twoDocs)
	if err != nil {
		t.Fatal(err)
	}
	blobs := memBlobs{}
	m, err := New(objs, Info{Version: "1.31.0", Components: []string{"base"}}, blobs)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := m.EncodeHandle()
	if err != nil {
		t.Fatal(err)
	}
	v, err := Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	back, err := From(v, blobs)
	if err != nil {
		t.Fatal(err)
	}
	if len(back) != 2 || back[1].GetName() != "b" {
		t.Fatalf("got %v", back)
	}
	if n := back[1].Object["spec"].(map[string]any)["replicas"]; n != int64(2) {
		t.Errorf("replicas: got %T %v, want int64 2", n, n)
	}
	if got := v.(*Manifest).Version; got != "1.31.0" {
		t.Errorf("version: got %q", got)
	}
}

func TestNewRefusesSecretMaterial(t *testing.T) {
	objs, err := Parse("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: v}\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(objs, Info{}, memBlobs{}); err == nil || !strings.Contains(err.Error(), "secret/s") {
		t.Errorf("got %v, want a refusal that names the Secret", err)
	}
}

func TestFromForms(t *testing.T) {
	obj := func(name string) map[string]any {
		return map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name}}
	}
	list := starlark.NewList([]starlark.Value{value.NewObject(obj("a")), value.NewObject(obj("b"))})
	for _, tc := range []struct {
		name string
		in   starlark.Value
		want int
		err  string
	}{
		{"text", starlark.String(twoDocs), 2, ""},
		{"object", value.NewObject(obj("a")), 1, ""},
		{"list", list, 2, ""},
		{"kubernetes list", value.NewObject(map[string]any{"apiVersion": "v1", "kind": "List", "items": []any{obj("a"), obj("b")}}), 2, ""},
		{"empty", starlark.String("---\n"), 0, "holds no object"},
		{"number", starlark.MakeInt(3), 0, "got int, want a manifest"},
		{"no kind", starlark.String("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nmetadata: {name: b}\n"), 0, "document 2: has no kind"},
		{"no name", starlark.String("apiVersion: v1\nkind: ConfigMap\n"), 0, "document 1: ConfigMap has no metadata.name"},
		{"twice", starlark.NewList([]starlark.Value{value.NewObject(obj("a")), value.NewObject(obj("a"))}), 0, "configmap/a is there twice, first in [0]"},
		{"bad yaml", starlark.String("a: [\n"), 0, "document 1: not a manifest"},
		{"key twice", starlark.String("apiVersion: v1\napiVersion: v1\nkind: A\n"), 0, "document 1"},
		{"a word", starlark.String("hello"), 0, "document 1: got string"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := From(tc.in, memBlobs{})
			if tc.err == "" {
				if err != nil || len(got) != tc.want {
					t.Fatalf("got %d objects, %v; want %d", len(got), err, tc.want)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Fatalf("got %v, want an error with %q", err, tc.err)
			}
		})
	}
}

func TestMissingBlobNamesTheManifest(t *testing.T) {
	m := &Manifest{Digest: "sha256:0123456789abcdef", Refs: []cluster.Ref{{Kind: "A"}}}
	if _, err := m.Objects(memBlobs{}); err == nil || !strings.Contains(err.Error(), "manifest 0123456789ab") {
		t.Errorf("got %v", err)
	}
}
