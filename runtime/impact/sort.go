package impact

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/mesh"
	"rutter.dev/rutter/runtime/plan"
	"rutter.dev/rutter/runtime/sim"
)

// sorter tells what is made anew now, later or never.
type sorter struct {
	r             *Report
	before, after *world
	outdated      []mesh.Workload
	rolled        []plan.Restart
	moved         []sim.Change // everything that is not as it was
}

func (s *sorter) sort() {
	s.r.Now, s.r.Later, s.r.Never = []Affected{}, []Affected{}, []Affected{}
	rolled := map[string]bool{}
	for i := range s.rolled {
		a := s.now(&s.rolled[i])
		rolled[a.Ref.ID()] = true
		s.r.Now = append(s.r.Now, a)
	}
	for id, x := range s.before.of {
		y := s.after.of[id]
		if rolled[id] || y == nil { // or it went with all that it had, and had no pods
			continue
		}
		a := Affected{Ref: x.ref, Role: x.role(), Pods: x.names(), From: revised(x.proxy)}
		if a.Role == "" {
			a.Role = y.role()
		}
		switch why := s.later(x, y, &a); {
		case why != "" && x.ref.Kind == "Pod":
			a.Why = "nothing makes a bare pod anew: " + why + " only once it is replaced by hand"
			s.r.Never = append(s.r.Never, a)
		case why != "":
			a.Why = why
			s.r.Later = append(s.r.Later, a)
		case a.Role != "":
			a.To, a.Why = "", never(x, y)
			s.r.Never = append(s.r.Never, a)
		}
	}
	for _, list := range [][]Affected{s.r.Now, s.r.Later, s.r.Never} {
		slices.SortFunc(list, byRef)
	}
}

// now describes a workload whose pods were replaced on the twin.
func (s *sorter) now(r *plan.Restart) Affected {
	ref := cluster.Ref{Group: "apps", Version: "v1", Kind: r.Kind, Namespace: r.Namespace, Name: r.Name}
	a := Affected{Ref: ref, Pods: r.Pods, From: r.From, To: r.To, Course: r}
	for _, side := range []struct {
		w       *world
		version *string
	}{{s.before, &a.From}, {s.after, &a.To}} {
		for _, x := range side.w.of {
			if x.ref.Kind == r.Kind && x.ref.Namespace == r.Namespace && x.ref.Name == r.Name {
				a.Ref, a.Role, *side.version = x.ref, cmp.Or(a.Role, x.role()), revised(x.proxy)
			}
		}
	}
	switch {
	case r.New == 0:
		a.Why = "its pods go, and nothing makes others"
		if s.after.of[a.Ref.ID()] == nil {
			a.Why = "it goes, and its pods with it"
		}
		return a
	case len(r.Pods) == 0:
		a.Why = "it is new, or has more pods"
		return a
	}
	a.Fields = s.template(a.Ref)
	a.Why = "its pods are replaced"
	if len(a.Fields) > 0 {
		a.Why = "its pod template changes"
		if x := s.after.of[a.Ref.ID()]; x != nil && x.managed {
			a.Why = "istiod writes its pod template anew"
		}
	}
	a.Why += ", which rolls it at once"
	return a
}

// template are the fields in which the pod template of a workload changed.
func (s *sorter) template(ref cluster.Ref) []plan.Field {
	for _, ch := range s.moved {
		if ch.Before == nil || ch.After == nil || cluster.RefOf(ch.After).ID() != ref.ID() {
			continue
		}
		var out []plan.Field
		for _, f := range plan.Differing(ch.Before, ch.After) {
			if strings.HasPrefix(f.Path, "spec.template") {
				out = append(out, f)
			}
		}
		return out
	}
	return nil
}

// later says why a workload's next pod is another one by the change; "" where it
// is not. It fills in what that pod is like.
func (s *sorter) later(x, y *workload, a *Affected) string {
	was, is := x.sample, y.sample
	switch {
	case was.refused != is.refused && is.refused != "" && was.refused == "":
		return "its next pod can't be made: " + is.refused
	case was.refused != is.refused && is.refused == "":
		a.To = revised(is.proxy)
		return "its next pod can be made again; before, it could not: " + was.refused
	case is.refused != "":
		return ""
	}
	if was.pod != nil && is.pod != nil {
		if a.Fields = plan.Differing(was.pod, is.pod); len(a.Fields) > 0 {
			a.To = revised(is.proxy)
			// What the injector notes of itself says nothing that the rest does not.
			if rest := slices.DeleteFunc(slices.Clone(a.Fields), func(f plan.Field) bool { return strings.Contains(f.Path, mesh.AnnotationStatus) }); len(rest) > 0 {
				a.Fields = rest
			}
			return s.injected(x, was.proxy, is.proxy, a)
		}
	}
	for _, name := range y.reads {
		at := y.ref.Namespace + "/" + name
		if !reflect.DeepEqual(s.before.configs[at], s.after.configs[at]) {
			return fmt.Sprintf("it reads configmap/%s when it starts, and not again", name)
		}
	}
	return ""
}

// injected says what becomes of a workload's proxy with its next pod. What
// restart.outdated would restart it for comes first.
func (s *sorter) injected(x *workload, was, is *mesh.Proxy, a *Affected) string {
	for _, w := range s.outdated {
		if w.Ref.ID() == x.ref.ID() {
			a.Outdated = true
			return w.Why()
		}
	}
	switch {
	case was == nil && is == nil:
		return "its pod comes out otherwise"
	case was == nil:
		return "its next pod gets a proxy, " + revised(is)
	case is == nil:
		return "its next pod has no proxy any more"
	case was.Revision != is.Revision:
		return fmt.Sprintf("another revision injects it: %s, was %s", is.Revision, was.Revision)
	case was.Image != is.Image:
		return fmt.Sprintf("its proxy is %s then, was %s", is.Image, was.Image)
	}
	return "its injection template gives another pod"
}

// never says why a workload of the mesh is as it was.
func never(x, y *workload) string {
	switch {
	case x.sample.refused != "":
		return "its next pod can't be made, with the change as without: " + x.sample.refused
	case x.component() != "":
		return "no injector makes its pods, and what it reads when it starts is as it was"
	case x.managed:
		return "istiod writes its pods, as before"
	case x.ref.Kind == "Pod":
		return "nothing makes a bare pod anew"
	case y.sample.proxy == nil:
		return "no injector selects it, with the change as without"
	}
	return "its next pod is the same with the change as without"
}

// groups are the affected by why, the most first, and then in the order of words.
func groups(list []Affected) []group {
	by := map[string]*group{}
	for i := range list {
		a := &list[i]
		if by[a.Why] == nil {
			by[a.Why] = &group{why: a.Why}
		}
		by[a.Why].list = append(by[a.Why].list, a)
	}
	out := make([]group, 0, len(by))
	for _, why := range slices.Sorted(maps.Keys(by)) {
		out = append(out, *by[why])
	}
	slices.SortStableFunc(out, func(a, b group) int { return len(b.list) - len(a.list) })
	return out
}

type group struct {
	why  string
	list []*Affected
}
