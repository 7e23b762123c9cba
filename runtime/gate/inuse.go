package gate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/mesh"
)

var inUse = &Gate{
	Code: InUse, Name: "in-use",
	Rationale: "Proxies of a revision that is gone run on with the configuration they had, until their certificate expires; pods of a namespace whose injector is gone start without a sidecar, and nobody is told.",
	Source:    "istio.io: canary upgrades, uninstall the old control plane; revision tags; GUIDE §3 and §4 row 4 (istio#47423)",
	Before: func(ctx context.Context, r cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
		w := world{ctx, r, run}
		if e.OwnersOnly() {
			return nil, nil
		}
		if e.Ref.Kind == mutatingKind.Kind {
			return injectionTaken(w, e)
		}
		return revisionTaken(w, e)
	},
}

// users collects who uses what is removed.
type users struct{ namespaces, templates, proxies, gateways examples }

func (u *users) findings(what, next string) []Finding {
	var out []Finding
	for _, x := range []struct {
		who *examples
		say string
	}{
		{&u.namespaces, "namespaces are injected by it"},
		{&u.templates, "pod templates are injected by it"},
		{&u.proxies, "running proxies belong to it"},
		{&u.gateways, "gateways name it"},
	} {
		if x.who.n > 0 {
			out = append(out, block(fmt.Sprintf("%s while %d %s: %s", what, x.who.n, x.say, x.who.some()), "nobody who uses it", next)...)
		}
	}
	return out
}

// injectionTaken judges the deletion or change of an injection webhook: who is
// injected by it now and would be by nobody then.
func injectionTaken(w world, e *effect.Effect) ([]Finding, error) {
	mine, err := mesh.InjectorsOf(e.Before)
	if err != nil || len(mine) == 0 {
		return nil, err
	}
	var then []mesh.Injector
	if e.Verb != effect.Delete {
		after := e.Intended()
		if after == nil {
			return nil, fmt.Errorf("what the %s makes of %s is not known", e.Verb, e.Ref)
		}
		if then, err = mesh.InjectorsOf(after); err != nil {
			return nil, err
		}
		if sameSelectors(mine, then) {
			return nil, nil
		}
	}
	others, err := w.injectors(e.Ref.Name)
	if err != nil {
		return nil, err
	}
	then = append(then, others...)
	u := &users{}
	loses := func(space, pod map[string]string) bool {
		_, now := mesh.InjectingRevision(mine, space, pod)
		_, still := mesh.InjectingRevision(then, space, pod)
		return now && !still
	}
	if err := w.injected(u, loses); err != nil {
		return nil, err
	}
	what := e.Ref.String() + " goes away"
	if e.Verb != effect.Delete {
		what = e.Ref.String() + " would select less"
	}
	if tag := mine[0].Tag; tag != "" {
		what = fmt.Sprintf("revision tag %q goes away", tag)
		if e.Verb == effect.Delete {
			if err := w.gatewaysOf(u, tag); err != nil {
				return nil, err
			}
		}
	}
	return u.findings(what, "relabel or restart them for another revision first"), nil
}

// revisionTaken judges what takes a control plane away: its Deployment deleted
// or scaled to nothing, its Service or its namespace deleted.
func revisionTaken(w world, e *effect.Effect) ([]Finding, error) {
	if e.Before == nil || !mayTakePlane(e) {
		return nil, nil
	}
	planes, err := w.run.Seen.controlPlanes(w.ctx, w.r)
	if err != nil {
		return nil, err
	}
	going, staying := map[string]bool{}, map[string]bool{}
	for _, p := range planes {
		if now, touched := w.after(p.Ref, nil); touched && (now == nil || replicas(now) == 0) || p.Replicas == 0 {
			continue // gone already
		}
		if takesPlane(e, p) {
			going[p.Revision] = true
		} else {
			staying[p.Revision] = true
		}
	}
	var out []Finding
	for _, rev := range slices.Sorted(maps.Keys(going)) {
		if staying[rev] && e.Ref.Kind != "Service" {
			continue // another Deployment of the revision serves on
		}
		found, err := revisionUsed(w, rev)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

func mayTakePlane(e *effect.Effect) bool {
	switch {
	case e.Ref.Kind == deploymentKind.Kind:
		return stops(e)
	case e.Ref.Kind == "Service" || e.Ref.Kind == namespaceKind.Kind:
		return e.Ref.Group == "" && e.Verb == effect.Delete
	}
	return false
}

func takesPlane(e *effect.Effect, p mesh.ControlPlane) bool {
	switch e.Ref.Kind {
	case namespaceKind.Kind:
		return p.Namespace == e.Ref.Name
	case "Service": // that proxies of the revision know it by (charts istio-discovery, service.yaml)
		name := "istiod"
		if p.Revision != mesh.DefaultRevision {
			name += "-" + p.Revision
		}
		return p.Namespace == e.Ref.Namespace && e.Ref.Name == name
	}
	return p.Ref.ID() == e.Ref.ID()
}

func revisionUsed(w world, rev string) ([]Finding, error) {
	ins, err := w.injectors("")
	if err != nil {
		return nil, err
	}
	u := &users{}
	names := map[string]bool{rev: true}
	for _, in := range ins {
		if in.Revision == rev && in.Tag != "" {
			names[in.Tag] = true
		}
	}
	err = w.injected(u, func(space, pod map[string]string) bool {
		by, ok := mesh.InjectingRevision(ins, space, pod)
		return ok && by == rev
	})
	if err != nil {
		return nil, err
	}
	if err := w.proxiesOf(u, rev); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if err := w.gatewaysOf(u, name); err != nil {
			return nil, err
		}
	}
	return u.findings(fmt.Sprintf("revision %q goes away", rev), "move them to another revision and restart them first; what names it shows istioctl.revisions or kubectl get ns -L istio.io/rev"), nil
}

// injectors are the injection webhooks of all configurations but one, in the
// order in which they are called.
func (w world) injectors(but string) ([]mesh.Injector, error) {
	configs, err := w.objects(mutatingKind, cluster.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("injection webhooks: %w", err)
	}
	slices.SortStableFunc(configs, func(a, b *cluster.Object) int {
		return cmp.Compare(a.GetName(), b.GetName())
	})
	var out []mesh.Injector
	for _, c := range configs {
		if c.GetName() == but {
			continue
		}
		in, err := mesh.InjectorsOf(c)
		if err != nil {
			return nil, err
		}
		out = append(out, in...)
	}
	return out, nil
}

// injected collects the namespaces and pod templates whose pods are affected.
func (w world) injected(u *users, affected func(space, pod map[string]string) bool) error {
	spaces, err := w.namespaces()
	if err != nil {
		return err
	}
	hit := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(spaces)) {
		if affected(spaces[name], nil) {
			hit[name] = true
			u.namespaces.add(cluster.Ref{Kind: namespaceKind.Kind, Name: name}, "")
		}
	}
	templates, err := w.run.Seen.templates(w.ctx, w.r)
	if err != nil {
		return err
	}
	for _, t := range templates {
		if now, touched := w.after(t.Owner, nil); touched && now == nil || hit[t.Owner.Namespace] {
			continue // it goes before; or its namespace was named
		}
		if affected(spaces[t.Owner.Namespace], t.Labels) {
			u.templates.add(t.Owner, "")
		}
	}
	return nil
}

// ownersAsked bounds how many owners of proxies are looked up: beyond it, what
// is listed counts as running.
const ownersAsked = 20

// proxiesOf collects the workloads whose running proxies a revision injected.
// Pods whose owner is gone are about to be.
func (w world) proxiesOf(u *users, rev string) error {
	all, err := w.run.Seen.census(w.ctx, w.r)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, p := range all {
		if p.Revision != rev || seen[p.Owner.ID()] {
			continue
		}
		seen[p.Owner.ID()] = true
		now, touched := w.after(p.Owner, nil)
		if touched && now == nil || w.renews(p) {
			continue
		}
		if len(seen) <= ownersAsked {
			_, err := w.r.Get(w.ctx, p.Owner)
			if errors.Is(err, cluster.ErrNotFound) || errors.Is(err, cluster.ErrNoKind) {
				continue
			}
			if err != nil && !errors.Is(err, cluster.ErrDenied) { // who may not look takes it for running
				return fmt.Errorf("%s: %w", p.Owner, err)
			}
		}
		u.proxies.add(p.Owner, "")
	}
	return nil
}

const gatewayGroup = "gateway.networking.k8s.io"

// renews: a forecast takes it that a pod which an earlier effect has made anew is
// injected by whatever injects then. Whether it was is looked at live.
func (w world) renews(p mesh.Proxy) bool {
	return w.run.Forecast && slices.ContainsFunc(w.run.Earlier, func(e *effect.Effect) bool {
		if e.Verb == effect.Evict {
			return e.Ref.Namespace == p.Namespace && e.Ref.Name == p.Pod
		}
		after := e.Intended()
		if e.Ref.Kind == "Gateway" && e.Ref.Group == gatewayGroup && e.Before != nil && after != nil {
			// istiod rolls it as soon as another revision is in charge.
			return e.Ref.Namespace == p.Namespace && e.Ref.Name == p.Labels[mesh.LabelGatewayName] &&
				e.Before.GetLabels()[mesh.LabelRev] != after.GetLabels()[mesh.LabelRev]
		}
		if e.Ref.ID() != p.Owner.ID() || e.Before == nil || after == nil {
			return false
		}
		was, _, err := unstructured.NestedFieldNoCopy(e.Before.Object, "spec", "template")
		now, _, nerr := unstructured.NestedFieldNoCopy(after.Object, "spec", "template")
		return err == nil && nerr == nil && !equality.Semantic.DeepEqual(was, now)
	})
}

// gatewaysOf collects Gateways, waypoints among them, that name a revision or tag.
func (w world) gatewaysOf(u *users, name string) error {
	gvk := schema.GroupVersionKind{Group: gatewayGroup, Version: "v1", Kind: "Gateway"}
	selector := labels.SelectorFromSet(labels.Set{mesh.LabelRev: name}).String()
	got, err := w.objects(gvk, cluster.ListOptions{Labels: selector, MetadataOnly: true})
	if err != nil {
		return fmt.Errorf("gateways of %s: %w", name, err)
	}
	for _, o := range got {
		u.gateways.add(cluster.Ref{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind, Namespace: o.GetNamespace(), Name: o.GetName()}, "")
	}
	return nil
}
