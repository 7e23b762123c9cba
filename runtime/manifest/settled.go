package manifest

import (
	"reflect"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"rutter.dev/rutter/runtime/cluster"
)

// settled reports whether applying want plainly leaves live as it is, which
// spares the dry-run of large objects such as CRDs. It does where live holds
// all of want, literally, and where nothing that rutter applied before, or that
// adopting brings to it, is missing in want: server-side apply drops that and
// nothing else (structured-merge-diff, merge.Updater.prune), and there is no
// conflict over equal values. False says nothing yet: the server is asked then.
func settled(want, live *cluster.Object, adopt []string) (bool, error) {
	if live == nil || live.GetDeletionTimestamp() != nil || !holds(live.Object, want.Object) {
		return false, nil
	}
	same := true
	// A mark that rutter itself applied is dropped like anything else; those of
	// adopted managers stay theirs.
	for _, manager := range append([]string{cluster.FieldManager}, adopt...) {
		fields, err := cluster.Owned(live, func(m metav1.ManagedFieldsEntry) bool { return m.Manager == manager })
		if err != nil {
			return false, err
		}
		fields.Iterate(func(p fieldpath.Path) {
			stays := manager != cluster.FieldManager && isMark(p)
			same = same && (stays || has(want.Object, p))
		})
	}
	return same, nil
}

// holds reports whether every value of want is literally in live.
func holds(live, want any) bool {
	switch w := want.(type) {
	case map[string]any:
		l, ok := live.(map[string]any)
		if !ok {
			return false
		}
		for k, v := range w {
			at, there := l[k]
			if !there || !holds(at, v) {
				return false
			}
		}
		return true
	case []any:
		l, ok := live.([]any)
		return ok && slices.EqualFunc(l, w, holds)
	case nil:
		return false // an apply with null is not the same as one without
	}
	return reflect.DeepEqual(live, want)
}

// has reports whether v has something at p.
func has(v any, p fieldpath.Path) bool {
	for _, pe := range p {
		switch in := v.(type) {
		case map[string]any:
			if pe.FieldName == nil {
				return false
			}
			next, ok := in[*pe.FieldName]
			if !ok {
				return false
			}
			v = next
		case []any:
			i := cluster.ItemOf(in, pe)
			if i < 0 {
				return false
			}
			v = in[i]
		default:
			return false
		}
	}
	return true
}
