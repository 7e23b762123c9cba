package access

import (
	"cmp"
	"slices"

	"rutter.dev/rutter/runtime/cluster"
)

// table is permissions and for whom each is.
type table map[Permission]map[cluster.Asker]bool

func (t table) add(p Permission, by ...cluster.Asker) {
	if t[p] == nil {
		t[p] = map[cluster.Asker]bool{}
	}
	for _, b := range by {
		t[p][b] = true
	}
}

// move puts what is known of p under q.
func (t table) move(p, q Permission) {
	by := t[p]
	delete(t, p)
	for b := range by {
		t.add(q, b)
	}
}

// in reports whether everything of the resource may be had with verb where p
// is; where says in which scope.
func (t table) in(p Permission, verb string) (where Permission, ok bool) {
	p.Verb, p.Name = verb, ""
	anywhere := p
	anywhere.Namespace = ""
	if t[anywhere] != nil {
		return anywhere, true
	}
	return p, t[p] != nil
}

// widen drops the names from reads of what may be listed whole.
func (t table) widen() {
	for _, p := range t.keys() {
		if p.Verb != "get" && p.Verb != "watch" && p.Verb != "list" {
			continue
		}
		if q, ok := t.in(p, "list"); ok {
			q.Verb = p.Verb
			if q != p {
				t.move(p, q)
			}
		}
	}
}

// absorb drops what a permission without name, or in all namespaces, includes.
func (t table) absorb() {
	for _, p := range t.keys() {
		if q, ok := t.in(p, p.Verb); ok && q != p {
			t.move(p, q)
		}
	}
}

// keys are the permissions, sorted, as they are now.
func (t table) keys() []Permission {
	out := make([]Permission, 0, len(t))
	for p := range t {
		out = append(out, p)
	}
	slices.SortFunc(out, Permission.compare)
	return out
}

func (t table) sorted() []Need {
	var out []Need
	for _, p := range t.keys() {
		n := Need{Permission: p}
		for b := range t[p] {
			n.By = append(n.By, b)
		}
		slices.SortFunc(n.By, compareAskers)
		out = append(out, n)
	}
	return out
}

func compareAskers(a, b cluster.Asker) int {
	return cmp.Or(cmp.Compare(a.Step, b.Step), cmp.Compare(a.By, b.By))
}

// compare orders by place, then kind, then verb.
func (p Permission) compare(q Permission) int {
	return cmp.Or(
		cmp.Compare(p.Namespace, q.Namespace), cmp.Compare(p.URL, q.URL), cmp.Compare(p.Group, q.Group),
		cmp.Compare(p.Resource, q.Resource), cmp.Compare(rank(p.Verb), rank(q.Verb)), cmp.Compare(p.Verb, q.Verb), cmp.Compare(p.Name, q.Name),
	)
}

// verbs in the order in which a rule names them.
var verbs = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}

func rank(verb string) int {
	if i := slices.Index(verbs, verb); i >= 0 {
		return i
	}
	return len(verbs)
}
