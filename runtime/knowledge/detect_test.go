package knowledge

import (
	"context"
	"os"
	"slices"
	"testing"

	"sigs.k8s.io/yaml"

	"rutter.dev/rutter/runtime/cluster"
)

// example is a cluster that a note concerns, and one that it does not, which
// differ in little.
type example struct {
	Finds  [][]map[string]any `json:"finds"` // one for each detection
	Leaves [][]map[string]any `json:"leaves"`
}

func objects(list []map[string]any) []*cluster.Object {
	var out []*cluster.Object
	for _, m := range list {
		out = append(out, &cluster.Object{Object: m})
	}
	return out
}

// Every detector finds what it is for, by each of its detections, and leaves
// alone what is not concerned.
func TestDetectors(t *testing.T) {
	raw, err := os.ReadFile("testdata/examples.yaml")
	if err != nil {
		t.Fatal(err)
	}
	examples := map[string]example{}
	if err := yaml.UnmarshalStrict(raw, &examples); err != nil {
		t.Fatal(err)
	}
	for _, n := range all20to31(t) {
		ex, ok := examples[n.ID]
		delete(examples, n.ID)
		if n.Class != Detector {
			if ok {
				t.Errorf("%s is %s, and has an example", n.ID, n.Class)
			}
			continue
		}
		t.Run(n.ID, func(t *testing.T) {
			if len(ex.Finds) < len(n.Detect) || len(ex.Leaves) == 0 {
				t.Fatalf("%d detections, %d clusters that it concerns and %d that it does not", len(n.Detect), len(ex.Finds), len(ex.Leaves))
			}
			said := map[string]bool{}
			for i, y := range ex.Finds {
				hits := look(t, n, objects(y))
				if len(hits) == 0 {
					t.Errorf("finds %d: nothing found", i)
				}
				for _, h := range hits {
					said[h.Says] = true
				}
			}
			for _, d := range n.Detect {
				if !said[d.Says] {
					t.Errorf("no example for: %s", d.Says)
				}
			}
			for i, no := range ex.Leaves {
				if hits := look(t, n, objects(no)); len(hits) > 0 {
					t.Errorf("leaves %d: found %v", i, hits)
				}
			}
		})
	}
	for id := range examples {
		t.Errorf("example of %s, which is no note", id)
	}
}

func look(t *testing.T, n *Note, objs []*cluster.Object) []Hit {
	t.Helper()
	found, err := Look(context.Background(), &fake{objects: objs}, []*Note{n})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].Note != n {
		t.Fatalf("found %+v", found)
	}
	// An object that tells alone tells so without the rest of the cluster.
	for _, h := range found[0].Hits {
		if !h.by.alone() {
			continue
		}
		i := slices.IndexFunc(objs, func(o *cluster.Object) bool { return cluster.RefOf(o) == h.Ref })
		if !slices.Contains(n.Match(objs[i]), h.Says) {
			t.Errorf("%s: Look finds it, Match does not", h.Ref)
		}
	}
	return found[0].Hits
}
