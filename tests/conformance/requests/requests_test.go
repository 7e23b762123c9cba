package requests

import (
	"sync"
	"testing"
)

// all is the table, dimension by dimension.
func all() [][]scenario {
	return [][]scenario{
		verbs(), validationCases, conflictCases, dryRunCases, applyCases, strategicCases, patchCases,
		contentCases, selectorCases, pagingCases, watchCases, deletionCases, namespaceCases,
		subresourceCases, crdCases, metadataCases, controllerCases, evictionCases, rolloutCases,
	}
}

// tally counts what ran.
type tally struct {
	mu                         sync.Mutex
	cases, requests, different int
}

func (n *tally) add(requests, different int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cases++
	n.requests += requests
	n.different += different
}

// TestSimulatedAgainstRecorded sends every case to the simulated cluster and
// compares the answers with the recorded ones of a real server.
func TestSimulatedAgainstRecorded(t *testing.T) {
	list := readKnown(t)
	var n tally
	var mu sync.Mutex
	t.Run("cases", func(t *testing.T) {
		for _, dimension := range all() {
			g := readGoldens(t, dimension[0].dimension())
			for _, s := range dimension {
				t.Run(s.name, func(t *testing.T) {
					t.Parallel()
					want, ok := g.answers[s.name]
					if !ok {
						t.Fatalf("%s has no such case", goldenFile(s.dimension()))
					}
					got, sent := play(t, simulated(t, g.version), s)
					ds := compare(s.name, want, got)
					n.add(sent, len(ds))
					mu.Lock()
					defer mu.Unlock()
					for _, d := range unknown(ds, list) {
						t.Error(d)
					}
				})
			}
		}
	})
	closeKnown(t, list, &n)
}

// closeKnown fails for entries that describe no difference, and says what ran.
func closeKnown(t *testing.T, list []*known, n *tally) {
	t.Helper()
	whole := 0
	for _, d := range all() {
		whole += len(d)
	}
	requests := 0
	for _, k := range list {
		for _, r := range k.Where {
			requests += len(r)
		}
		if n.cases < whole {
			continue // a selection was run
		}
		for _, s := range k.stale() {
			t.Errorf("%s: %q: %s: no such difference any more; take it out", knownFile, k.Reason, s)
		}
	}
	t.Logf("%d cases, %d requests, %d known differences in %d of the answers", n.cases, n.requests, len(list), requests)
}

// TestTableIsWellFormed holds the table to its own rules.
func TestTableIsWellFormed(t *testing.T) {
	names, namespaces := map[string]bool{}, map[string]string{}
	cases, requests := 0, 0
	for _, dimension := range all() {
		for _, s := range dimension {
			cases++
			requests += len(s.steps)
			if names[s.name] {
				t.Errorf("%s: twice", s.name)
			}
			names[s.name] = true
			if other := namespaces[s.namespace()]; other != "" {
				t.Errorf("%s and %s have the same namespace %s", s.name, other, s.namespace())
			}
			namespaces[s.namespace()] = s.name
			if s.dimension() != dimension[0].dimension() {
				t.Errorf("%s is in the table of %s", s.name, dimension[0].dimension())
			}
		}
	}
	if cases < 150 || requests < 600 {
		t.Errorf("%d cases, %d requests; 150 and 600 are asked for", cases, requests)
	}
}
