package istioctl

import (
	"slices"

	"rutter.dev/rutter/runtime/cluster"
)

// names are refs as people read them, sorted.
func names(refs []cluster.Ref) []string {
	out := make([]string, len(refs))
	for i, r := range refs {
		out[i] = r.String()
	}
	slices.Sort(out)
	return out
}
