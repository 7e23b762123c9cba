package sim

import (
	"fmt"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// meeting is a backing whose answers about some kinds come when all of these have
// been asked for, and that counts what it is asked for.
type meeting struct {
	empty
	kinds   map[string]bool
	missing *sync.WaitGroup
	mu      sync.Mutex // guards asked
	asked   map[Part]int
}

func (m *meeting) Fetch(p Part) ([]*unstructured.Unstructured, error) {
	m.mu.Lock()
	m.asked[p]++
	m.mu.Unlock()
	if m.kinds[p.Resource] {
		m.missing.Done()
		m.missing.Wait()
	}
	return m.empty.Fetch(p)
}

func backedBy(t *testing.T, m *meeting) *Cluster {
	t.Helper()
	var served []Served
	for _, s := range []struct{ plural, kind string }{{"namespaces", "Namespace"}, {"pods", "Pod"}, {"services", "Service"}, {"configmaps", "ConfigMap"}} {
		served = append(served, Served{Versions: []string{"v1"}, Plural: s.plural, Kind: s.kind, Namespaced: s.kind != "Namespace"})
	}
	m.asked = map[Part]int{}
	c, err := New(Options{Backing: m, Served: served})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Who looks at different parts waits side by side, and each part is asked for once.
func TestPartsAreFetchedSideBySide(t *testing.T) {
	m := &meeting{kinds: map[string]bool{"services": true, "configmaps": true}, missing: &sync.WaitGroup{}}
	m.missing.Add(2)
	c := backedBy(t, m)
	var looking sync.WaitGroup
	for range 3 {
		for _, plural := range []string{"services", "configmaps"} {
			looking.Go(func() {
				if _, ok := c.Look(schema.GroupVersionResource{Version: "v1", Resource: plural}, "shop", "", "metadata.name=a"); !ok {
					t.Errorf("%s can't be looked at: %v", plural, c.Backed())
				}
			})
		}
	}
	looking.Wait()
	for p, n := range m.asked {
		if n != 1 {
			t.Errorf("%v was asked for %d times", p, n)
		}
	}
}

// Where many namespaces are looked at, all are asked for at once, however many look
// at the same time.
func TestManyNamespacesAreFetchedTogether(t *testing.T) {
	m := &meeting{}
	c := backedBy(t, m)
	var looking sync.WaitGroup
	for i := range 50 {
		looking.Go(func() {
			c.Look(schema.GroupVersionResource{Version: "v1", Resource: "services"}, fmt.Sprintf("n%d", i), "", "")
		})
	}
	looking.Wait()
	n := 0
	for p, times := range m.asked {
		if p.Resource == "services" {
			n += times
		}
	}
	if n > wideAfter+1 {
		t.Errorf("services were asked for %d times, want %d at most", n, wideAfter+1)
	}
}
