package manifest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"

	"rutter.dev/rutter/runtime/cluster"
)

// lastApplied is where kubectl keeps a copy of the whole object, material included.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// Mask returns o, or for a Secret a copy whose material is replaced by labels
// that tell two values apart without showing either: "<secret sha256:ab12cd34>".
func Mask(o *cluster.Object) *cluster.Object {
	if o == nil || o.GetKind() != "Secret" || o.GetAPIVersion() != "v1" {
		return o
	}
	n := o.DeepCopy()
	for _, field := range []string{"data", "stringData"} {
		if m, ok := n.Object[field].(map[string]any); ok {
			for k, v := range m {
				m[k] = "<secret " + digestOf(field, v) + ">"
			}
		}
	}
	if a := n.GetAnnotations(); a[lastApplied] != "" {
		a[lastApplied] = "<secret>"
		n.SetAnnotations(a)
	}
	return n
}

// SecretDigests labels each key of a Secret's material by a short digest.
func SecretDigests(o *cluster.Object) map[string]any {
	out := map[string]any{}
	for _, field := range []string{"data", "stringData"} {
		if m, ok := o.Object[field].(map[string]any); ok {
			for k, v := range m {
				out[k] = digestOf(field, v)
			}
		}
	}
	return out
}

// digestOf is short: enough to tell values apart, too little to confirm a
// guess with certainty. data and stringData of one value have one digest.
func digestOf(field string, v any) string {
	b := []byte(fmt.Sprint(v))
	if field == "data" {
		if raw, err := base64.StdEncoding.DecodeString(string(b)); err == nil {
			b = raw
		}
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:4])
}
