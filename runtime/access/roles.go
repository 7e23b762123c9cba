package access

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"rutter.dev/rutter/runtime/cluster"
)

// Role is a ClusterRole, or with a namespace a Role.
type Role struct {
	Namespace string
	Name      string
	Rules     []Rule
	Subjects  []rbacv1.Subject // whom it is bound to; none: no binding
}

// Rule is a rule and for whom it is.
type Rule struct {
	rbacv1.PolicyRule
	By []cluster.Asker
}

// Roles groups needs into a ClusterRole and a Role per namespace, all of the
// same name, bound to subjects. Permissions in the same API group
// with the same verbs, and no names, share a rule. Reading comes first.
func Roles(name string, needs []Need, subjects []rbacv1.Subject) []Role {
	var out []Role
	for _, ns := range namespaces(needs) {
		r := Role{Namespace: ns, Name: name, Subjects: subjects}
		r.Rules = rules(slices.DeleteFunc(slices.Clone(needs), func(n Need) bool { return n.Namespace != ns }))
		out = append(out, r)
	}
	return out
}

func namespaces(needs []Need) []string {
	var out []string
	for _, n := range needs {
		out = append(out, n.Namespace)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// atom is one resource (or URL) in one group with names: what may be done to it.
type atom struct {
	group, resource, url string
	names                string // sorted, comma-separated; "" is any
}

type grant struct {
	atom
	verbs []string
	by    map[cluster.Asker]bool
}

// rules makes the rules of one role.
func rules(needs []Need) []Rule {
	return joined(byVerbs(byNames(needs)))
}

type verbAtom struct {
	group, resource, url, verb string
}

// byNames collects the names of each verb on each resource.
func byNames(needs []Need) map[verbAtom][]Need {
	out := map[verbAtom][]Need{}
	for _, n := range needs {
		k := verbAtom{n.Group, n.Resource, n.URL, n.Verb}
		out[k] = append(out[k], n)
	}
	return out
}

// byVerbs collects the verbs that a resource needs with equal names.
func byVerbs(in map[verbAtom][]Need) []grant {
	found := map[atom]*grant{}
	for k, needs := range in {
		var names []string
		for _, n := range needs {
			if n.Name != "" {
				names = append(names, n.Name)
			}
		}
		slices.Sort(names)
		a := atom{k.group, k.resource, k.url, strings.Join(names, ",")}
		g := found[a]
		if g == nil {
			g = &grant{atom: a, by: map[cluster.Asker]bool{}}
			found[a] = g
		}
		g.verbs = append(g.verbs, k.verb)
		for _, n := range needs {
			for _, by := range n.By {
				g.by[by] = true
			}
		}
	}
	out := make([]grant, 0, len(found))
	for _, g := range found {
		slices.SortFunc(g.verbs, func(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b)) })
		out = append(out, *g)
	}
	slices.SortFunc(out, compareGrants)
	return out
}

// compareGrants puts reading before writing.
func compareGrants(a, b grant) int {
	return cmp.Or(
		cmp.Compare(boolRank(a.writes()), boolRank(b.writes())), cmp.Compare(a.url, b.url), cmp.Compare(a.group, b.group),
		cmp.Compare(a.resource, b.resource), cmp.Compare(a.names, b.names), slices.Compare(a.verbs, b.verbs),
	)
}

func boolRank(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (g grant) writes() bool {
	return slices.ContainsFunc(g.verbs, func(v string) bool { return v != "get" && v != "list" && v != "watch" })
}

func mergeAskers(a, b []cluster.Asker) []cluster.Asker {
	out := append(slices.Clone(a), b...)
	slices.SortFunc(out, compareAskers)
	return slices.Compact(out)
}

func (g grant) askers() []cluster.Asker {
	out := make([]cluster.Asker, 0, len(g.by))
	for b := range g.by {
		out = append(out, b)
	}
	slices.SortFunc(out, compareAskers)
	return out
}

// joined merges grants without names that differ only in the resource, or the
// URL.
func joined(grants []grant) []Rule {
	var out []Rule
	at := map[string]int{}
	for _, g := range grants {
		key := fmt.Sprintf("%q %q %v %s", g.group, g.verbs, g.url != "", g.names)
		if i, ok := at[key]; ok && g.names == "" {
			if g.url != "" {
				out[i].NonResourceURLs = append(out[i].NonResourceURLs, g.url)
			} else {
				out[i].Resources = append(out[i].Resources, g.resource)
			}
			out[i].By = mergeAskers(out[i].By, g.askers())
			continue
		}
		at[key] = len(out)
		r := Rule{By: g.askers()}
		r.Verbs = g.verbs
		if g.url != "" {
			r.NonResourceURLs = []string{g.url}
		} else {
			r.APIGroups, r.Resources = []string{g.group}, []string{g.resource}
		}
		if g.names != "" {
			r.ResourceNames = strings.Split(g.names, ",")
		}
		out = append(out, r)
	}
	return out
}
