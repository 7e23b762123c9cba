package manifest

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"

	"rutter.dev/rutter/runtime/cluster"
)

// lastApplied is where kubectl keeps a copy of the whole object, material included.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// What stands for material. There is no digest in it: that of a password which
// people choose is found in a dictionary.
const (
	masked        = "<secret>"
	maskedBefore  = "<secret, as it was>"
	maskedChanged = "<secret, another>"
)

// Mask returns o, or for a Secret a copy without its material.
func Mask(o *cluster.Object) *cluster.Object {
	return maskedWith(o, func(string) string { return masked })
}

// maskPair is Mask for two states of one object, either of which may be nil. It
// tells which values are not the same in both, and nothing more of them.
func maskPair(before, after *cluster.Object) (a, b *cluster.Object) {
	was, is := material(before), material(after)
	label := func(changed string) func(string) string {
		return func(key string) string {
			x, had := was[key]
			y, has := is[key]
			if had && has && x != y {
				return changed
			}
			return masked
		}
	}
	return maskedWith(before, label(maskedBefore)), maskedWith(after, label(maskedChanged))
}

func isSecret(o *cluster.Object) bool {
	return o != nil && o.GetKind() == "Secret" && o.GetAPIVersion() == "v1"
}

func maskedWith(o *cluster.Object, label func(key string) string) *cluster.Object {
	if !isSecret(o) {
		return o
	}
	n := o.DeepCopy()
	for _, field := range []string{"data", "stringData"} {
		switch m := n.Object[field].(type) {
		case nil:
		case map[string]any:
			for k := range m {
				m[k] = label(k)
			}
		default: // no server takes it, and it is material all the same
			n.Object[field] = masked
		}
	}
	if a := n.GetAnnotations(); a[lastApplied] != "" {
		a[lastApplied] = masked
		n.SetAnnotations(a)
	}
	return n
}

// Keys are the names of a Secret's values, sorted.
func Keys(o *cluster.Object) []string { return slices.Sorted(maps.Keys(material(o))) }

// material is what a Secret holds by key, decoded; stringData comes before data, as
// for the server.
func material(o *cluster.Object) map[string]string {
	out := map[string]string{}
	if !isSecret(o) {
		return out
	}
	for _, field := range []string{"data", "stringData"} {
		m, _ := o.Object[field].(map[string]any)
		for k, v := range m {
			out[k] = fmt.Sprint(v)
			if field != "data" {
				continue
			}
			if raw, err := base64.StdEncoding.DecodeString(out[k]); err == nil {
				out[k] = string(raw)
			}
		}
	}
	return out
}
