package sim

import (
	"strings"
	"testing"
)

func FuzzReadObjects(f *testing.F) {
	for _, s := range []string{
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n---\n# nothing\n", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: p}}\n",
		"a: &a [*a]", "{", "---\n---", "kind: List\napiVersion: v1\nitems: 3", "\xff", "a: !!binary x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		objs, err := ReadObjects(strings.NewReader(text), "x.yaml")
		if err != nil {
			return
		}
		for _, o := range objs {
			if o.GetKind() == "" || o.GetAPIVersion() == "" {
				t.Errorf("an object without a kind: %v", o.Object)
			}
		}
	})
}
