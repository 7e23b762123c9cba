package twin

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// EndState is how a rehearsal leaves its twin, where that is not as the cluster
// was: what the cluster would be afterwards. Its objects are shared, and not to be
// changed.
type EndState struct {
	Changed []*unstructured.Unstructured `json:"changed"` // new ones included
	Gone    []*unstructured.Unstructured `json:"gone"`    // kind and name alone
}

// EndState gives what changed, in order, without Events and without the values
// of Secrets.
func (t *Twin) EndState() *EndState {
	out := &EndState{Changed: []*unstructured.Unstructured{}, Gone: []*unstructured.Unstructured{}}
	for _, ch := range t.Changes() {
		switch o := ch.After; {
		case ch.GR.Resource == "events":
		case o == nil:
			name := &unstructured.Unstructured{Object: map[string]any{}}
			name.SetGroupVersionKind(ch.Before.GroupVersionKind())
			name.SetNamespace(ch.Before.GetNamespace())
			name.SetName(ch.Before.GetName())
			out.Gone = append(out.Gone, name)
		case o.GetKind() == "Secret":
			o = o.DeepCopy()
			blind(o)
			out.Changed = append(out.Changed, o)
		default:
			out.Changed = append(out.Changed, o)
		}
	}
	return out
}
