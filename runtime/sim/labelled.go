package sim

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/selection"
)

// labelled are the objects of a table by the value of a label, for those labels
// that lists of all namespaces were made by: a rehearsal looks for its few istiods
// among thousands of Deployments before each of its effects.
type labelled map[string]map[string]map[nsName]bool

// move takes note of what became of the labels of an object; prev or next is nil
// where there was none, or is none any more.
func (l labelled) move(at nsName, prev, next *entry) {
	for label, values := range l {
		was, had := labelOf(prev, label)
		now, has := labelOf(next, label)
		if had && has && was == now {
			continue
		}
		if had {
			delete(values[was], at)
		}
		if has {
			if values[now] == nil {
				values[now] = map[nsName]bool{}
			}
			values[now][at] = true
		}
	}
}

func labelOf(e *entry, label string) (string, bool) {
	if e == nil {
		return "", false
	}
	return labelSet(metaMap(e.obj, "labels")).Lookup(label)
}

// among are the keys of the objects that a filter can match, in order: those of a
// namespace, or those that have the one value that it asks a label to have.
func (t *table) among(f filter) []nsName {
	if f.namespace != "" || f.labels == nil {
		return t.span(f.namespace)
	}
	requirements, _ := f.labels.Requirements()
	for _, r := range requirements {
		op, values := r.Operator(), r.Values()
		if op != selection.Equals && op != selection.DoubleEquals && op != selection.In || len(values) != 1 {
			continue
		}
		value, _ := values.PopAny()
		return slices.SortedFunc(maps.Keys(t.by(r.Key())[value]), nsName.compare)
	}
	return t.keys
}

// by indexes a label when it is first asked for.
func (t *table) by(label string) map[string]map[nsName]bool {
	if t.labels[label] == nil {
		if t.labels == nil {
			t.labels = labelled{}
		}
		one := labelled{label: {}}
		for at, e := range t.items {
			one.move(at, nil, e)
		}
		maps.Copy(t.labels, one)
	}
	return t.labels[label]
}
