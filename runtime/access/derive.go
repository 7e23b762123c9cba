package access

import (
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/cluster"
)

// Options shape the roles.
type Options struct {
	// Namespaces, where given, are those whose workloads the run may restart:
	// what is needed there goes into a Role in each, instead of the ClusterRole.
	Namespaces []string
}

// Access is what a run needs, sorted.
type Access struct {
	Needs []Need
	// Homes are the namespaces into which the run applies objects: what is
	// needed there goes into a Role there.
	Homes []string
	// Impersonates is what whoever runs rutter needs beside, when the run is
	// made as somebody else.
	Impersonates []Need
	// Everybody is what was asked and every authenticated user may ask anyway,
	// so that it is left out.
	Everybody []Permission
}

// Need is a permission and for whom it is.
type Need struct {
	Permission
	By []cluster.Asker // sorted, each once
}

// Derive gives the least permissions for a run that makes these requests
// against another cluster with the same control plane.
//
// What the two have in common is what the runbook names: the objects that it
// applies, and the namespaces in which they are (Homes), beside the reserved
// ones (kube-…). There, names are kept. The workloads of a mesh differ from
// cluster to cluster, so that a request to any other namespace becomes one to
// all namespaces, or to those of o, without names. So do the names of
// namespaces themselves, and of objects that controllers name.
//
// Reads of single objects where everything may be listed are not narrowed by
// names: that would protect nothing.
func Derive(requests []Request, o Options) Access {
	d := deriver{homes: homes(requests), locked: locked(requests), o: o, needs: table{}, impersonates: table{}, everybody: map[Permission]bool{}}
	for _, r := range requests {
		for _, p := range impersonation(r.As) {
			d.impersonates.add(p, cluster.Asker{})
		}
		for _, p := range append(r.Needs, d.renewal(r)...) {
			if everybodys(p) {
				p.Name = ""
				d.everybody[p] = true
				continue
			}
			for _, q := range d.generalize(p) {
				d.needs.add(q, r.By)
			}
		}
	}
	d.needs.widen()
	d.needs.absorb()
	out := Access{Needs: d.needs.sorted(), Homes: d.homes, Impersonates: d.impersonates.sorted()}
	for p := range d.everybody {
		out.Everybody = append(out.Everybody, p)
	}
	slices.SortFunc(out.Everybody, Permission.compare)
	return out
}

// locked are the namespaces in which the run takes a Lease; in others it only
// looks whether somebody holds one.
func locked(requests []Request) map[string]bool {
	out := map[string]bool{}
	for _, r := range requests {
		if p := r.Needs[0]; p.Verb != "get" && p.is("coordination.k8s.io", "leases") {
			out[p.Namespace] = true
		}
	}
	return out
}

// renewal is what the lock on the mesh needs where time passes: who has taken
// the Lease renews it, which a run that was short enough did not.
func (d *deriver) renewal(r Request) []Permission {
	p := r.Needs[0]
	if p.Verb != "get" || !p.is("coordination.k8s.io", "leases") || r.By.By != "" || !d.locked[p.Namespace] {
		return nil
	}
	p.Verb = "update"
	return []Permission{p}
}

type deriver struct {
	homes               []string
	locked              map[string]bool // see locked
	o                   Options
	needs, impersonates table
	everybody           map[Permission]bool
}

// homes are the namespaces into which objects are applied, sorted.
func homes(requests []Request) []string {
	var out []string
	for _, r := range requests {
		if ns := r.Needs[0].Namespace; r.Applied && ns != "" {
			out = append(out, ns)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// reserved is the prefix of namespaces that Kubernetes keeps for itself.
const reserved = "kube-"

func (d *deriver) fixed(namespace string) bool {
	return slices.Contains(d.homes, namespace) || strings.HasPrefix(namespace, reserved)
}

// generalize turns what was needed on one cluster into what is needed on any.
func (d *deriver) generalize(p Permission) []Permission {
	switch {
	case p.URL != "":
		return []Permission{p}
	case p.Namespace == "":
		if clustersOwn(p) || p.is("", "namespaces") && !d.fixed(p.Name) {
			p.Name = ""
		}
		return []Permission{p}
	case d.fixed(p.Namespace):
		if generated(p) {
			p.Name = ""
		}
		return []Permission{p}
	}
	p.Name = ""
	if len(d.o.Namespaces) == 0 {
		p.Namespace = ""
		return []Permission{p}
	}
	var out []Permission
	for _, ns := range d.o.Namespaces {
		p.Namespace = ns
		out = append(out, p)
	}
	return out
}

// is reports whether p is about the resource, or a subresource of it.
func (p Permission) is(group, resource string) bool {
	return p.Group == group && (p.Resource == resource || strings.HasPrefix(p.Resource, resource+"/"))
}

// clustersOwn are cluster-scoped kinds whose names say something of the cluster,
// not of the mesh.
func clustersOwn(p Permission) bool { return p.is("", "nodes") || p.is("", "persistentvolumes") }

// journalSecret begins the names of the Secrets that a journal in the cluster
// is in; what follows is the run's id.
const journalSecret = "rutter."

// generated reports whether the name is one of its run alone: controllers name
// the objects of the kind, or rutter does.
func generated(p Permission) bool {
	if p.is("", "secrets") && strings.HasPrefix(p.Name, journalSecret) {
		return true
	}
	for _, r := range [][2]string{
		{"", "pods"},
		{"", "events"},
		{"", "endpoints"},
		{"events.k8s.io", "events"},
		{"apps", "replicasets"},
		{"apps", "controllerrevisions"},
		{"batch", "jobs"},
		{"discovery.k8s.io", "endpointslices"},
	} {
		if p.is(r[0], r[1]) {
			return true
		}
	}
	return false
}

// impersonation is what being somebody else needs of whoever does it
// (k8s.io/apiserver pkg/endpoints/filters/impersonation).
func impersonation(as Identity) []Permission {
	if as.User == "" {
		return nil
	}
	out := []Permission{{Verb: "impersonate", Resource: "users", Name: as.User}}
	if ns, name, ok := ServiceAccount(as.User); ok {
		out[0] = Permission{Verb: "impersonate", Resource: "serviceaccounts", Namespace: ns, Name: name}
	}
	for g := range strings.SplitSeq(as.Groups, ",") {
		if g != "" {
			out = append(out, Permission{Verb: "impersonate", Resource: "groups", Name: g})
		}
	}
	return out
}

// ServiceAccount takes the user name of a ServiceAccount apart.
func ServiceAccount(user string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(user, "system:serviceaccount:")
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, ":")
}

// everybodys reports whether the bindings that every cluster comes with grant p
// to all who are authenticated: system:discovery and system:basic-user
// (kubernetes plugin/pkg/auth/authorizer/rbac/bootstrappolicy).
func everybodys(p Permission) bool {
	if p.URL == "" {
		return p.Verb == "create" && (p.Group == "authorization.k8s.io" && (p.Resource == "selfsubjectaccessreviews" || p.Resource == "selfsubjectrulesreviews") ||
			p.Group == "authentication.k8s.io" && p.Resource == "selfsubjectreviews")
	}
	if p.Verb != "get" {
		return false
	}
	for _, u := range []string{"/api", "/apis", "/healthz", "/livez", "/openapi", "/readyz", "/version"} {
		deeper := u == "/api" || u == "/apis" || u == "/openapi"
		if p.URL == u || deeper && strings.HasPrefix(p.URL, u+"/") || u == "/version" && p.URL == u+"/" {
			return true
		}
	}
	return false
}
