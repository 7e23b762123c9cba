package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
)

// Whatever becomes of objects and their labels, a list by labels gives what a look
// at each of them gives, in the same order.
func TestListsByLabelsMissNothing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same each time
	table := &table{items: map[nsName]*entry{}}
	selectors := []string{"app=a", "app==b", "app in (a)", "app in (a,b)", "app!=a", "app", "!app", "app=a,tier=x", "tier=x,app!=b", "app=never", "app=a,app=b"}
	for i := range 3000 {
		at := nsName{fmt.Sprint("ns", rnd.IntN(4)), fmt.Sprint("n", rnd.IntN(12))}
		if rnd.IntN(4) == 0 {
			table.delete(at)
		} else {
			meta := map[string]any{"namespace": at.namespace, "name": at.name}
			set := map[string]any{}
			for label, values := range map[string]string{"app": "ab-", "tier": "x-"} {
				if v := values[rnd.IntN(len(values))]; v != '-' {
					set[label] = string(v)
				}
			}
			if len(set) > 0 {
				meta["labels"] = set
			}
			table.set(at, &entry{obj: &unstructured.Unstructured{Object: map[string]any{"metadata": meta}}})
		}
		text := selectors[rnd.IntN(len(selectors))]
		sel, err := labels.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		f := filter{labels: sel}
		var want, got []string
		for _, k := range table.keys {
			if f.matches(table.items[k]) {
				want = append(want, k.namespace+"/"+k.name)
			}
		}
		for _, e := range table.pick(f) {
			got = append(got, e.obj.GetNamespace()+"/"+e.obj.GetName())
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Fatalf("after %d changes, %s: got %v, want %v", i+1, text, got, want)
		}
	}
}
