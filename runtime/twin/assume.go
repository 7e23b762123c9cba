package twin

import (
	"cmp"
	"net/http"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// Code names a kind of assumption.
type Code string

// The kinds of assumptions.
const (
	Unreadable    Code = "unreadable" // what the user may not read counts as not there
	DryRunLeftOut Code = "dry-run"    // the server was not asked whether it would take a change
	Simulated     Code = "simulated"  // controllers, kubelets and injection are the twin's
	NotCalled     Code = "not-called" // a webhook, a probe, a query that nothing is sent to
	Standstill    Code = "standstill" // what others do to the cluster meanwhile is not foreseen
	Timing        Code = "timing"     // durations are by the clock of the simulation
)

// Assumption is one thing that a twin could not know, and went on without.
type Assumption struct {
	Code    Code   `json:"code"`
	Subject string `json:"subject"`
	Text    string `json:"text"`
}

// String is the assumption as a sentence.
func (a Assumption) String() string { return a.Subject + " " + a.Text }

// assumptions collects what was assumed, each once.
type assumptions struct {
	mu   sync.Mutex
	all  []Assumption
	seen map[Assumption]bool
}

func (s *assumptions) say(a Assumption) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = map[Assumption]bool{}
	}
	if !s.seen[a] {
		s.seen[a] = true
		s.all = append(s.all, a)
	}
}

// unread says that a part of the cluster could not be looked at.
func (s *assumptions) unread(gr schema.GroupResource, namespace, name string, _ error) {
	what := gr.String()
	if name != "" {
		what += " " + name
	}
	if namespace != "" {
		what += " in " + namespace
	}
	s.say(Assumption{Code: Unreadable, Subject: what, Text: "may not be read with these credentials: as far as the twin is concerned there are none"})
}

// sorted gives them by kind and subject.
func (s *assumptions) sorted() []Assumption {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Clone(s.all)
	slices.SortFunc(out, func(a, b Assumption) int {
		return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Text, b.Text))
	})
	return out
}

// assumed is a connector whose answers are assumptions.
type assumed struct {
	next sim.Connector
	said *assumptions
}

func (t *Twin) connector(next sim.Connector) sim.Connector {
	if next == nil {
		return nil
	}
	return assumed{next, t.said}
}

// Connect implements sim.Connector.
func (a assumed) Connect(w http.ResponseWriter, r *http.Request, to sim.Connection) {
	a.said.say(Assumption{Code: NotCalled, Subject: "gateways, proxies and istiods", Text: "are taken to answer probes as simulated ones do, and for the hosts of gateways as is expected: nothing is sent to them"})
	a.next.Connect(w, r, to)
}
