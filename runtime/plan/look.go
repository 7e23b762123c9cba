package plan

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/mesh"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/twin"
)

var (
	grPods       = schema.GroupResource{Resource: "pods"}
	grSets       = schema.GroupResource{Group: "apps", Resource: "replicasets"}
	grMutating   = schema.GroupResource{Group: "admissionregistration.k8s.io", Resource: "mutatingwebhookconfigurations"}
	grValidating = schema.GroupResource{Group: "admissionregistration.k8s.io", Resource: "validatingwebhookconfigurations"}
	grBudgets    = schema.GroupResource{Group: "policy", Resource: "poddisruptionbudgets"}
	grNamespaces = schema.GroupResource{Resource: "namespaces"}
	grConfigMaps = schema.GroupResource{Resource: "configmaps"}
)

// look finds out from the twin, once the rehearsal is over, what became of it.
func (g *gatherer) look(ctx context.Context, t *twin.Twin, c *cluster.Client) error {
	g.restarts(t)
	for _, b := range t.Budgets() {
		if b.Least == 0 {
			g.plan.Budgets = append(g.plan.Budgets, b)
		}
	}
	g.assume(t)
	return g.rely(ctx, t, c)
}

// owner is a workload whose pods changed.
type owner struct{ kind, namespace, name string }

// restarts finds the workloads whose pods are not those that were there.
func (g *gatherer) restarts(t *twin.Twin) {
	for _, r := range Rolled(t, g.plan.Begins) {
		w := owner{r.Kind, r.Namespace, r.Name}
		if len(r.Pods) == 0 && r.Wanted == 0 && !g.restarted(w) { // only new pods: it is a new workload
			continue
		}
		g.explain(w, &r)
		g.plan.Restarts = append(g.plan.Restarts, r)
	}
}

// Rolled lists the workloads of a twin whose pods are not those that were there
// when it began, with the course that they took, in its order. begins is when
// that was. Why is left to who knows what was done.
func Rolled(t *twin.Twin, begins time.Time) []Restart {
	changes := t.Changes()
	owners := cluster.Owners{}
	for _, ch := range changes {
		if ch.GR == grSets {
			owners.Add(either(ch))
		}
	}
	found := map[owner]*Restart{}
	for _, ch := range changes {
		if ch.GR != grPods || ch.Before != nil && ch.After != nil && ch.Before.GetUID() == ch.After.GetUID() {
			continue
		}
		for _, pod := range []*unstructured.Unstructured{ch.Before, ch.After} {
			if pod == nil {
				continue
			}
			w := ownerOf(pod, owners)
			r := found[w]
			if r == nil {
				r = &Restart{Kind: w.kind, Namespace: w.namespace, Name: w.name, Pods: []string{}}
				found[w] = r
			}
			if pod == ch.Before {
				r.Pods = append(r.Pods, pod.GetName())
				r.From = cmp.Or(r.From, proxyVersion(pod))
			} else {
				r.New++
				r.To = cmp.Or(r.To, proxyVersion(pod))
			}
		}
	}
	for _, c := range t.Workloads() {
		if r := found[owner{c.Kind, c.Namespace, c.Name}]; r != nil {
			r.After, r.Duration = c.Began.Sub(begins), c.Ended.Sub(c.Began)
			r.Wanted, r.Least, r.Short, r.Ready = c.Wanted, c.Least, c.Short, c.Ready
		}
	}
	out := make([]Restart, 0, len(found))
	for _, r := range found {
		slices.Sort(r.Pods)
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b Restart) int {
		return cmp.Or(cmp.Compare(a.After, b.After), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return out
}

func either(ch sim.Change) *unstructured.Unstructured {
	if ch.After != nil {
		return ch.After
	}
	return ch.Before
}

func ownerOf(pod *unstructured.Unstructured, owners cluster.Owners) owner {
	ref := owners.Of(pod)
	return owner{ref.Kind, pod.GetNamespace(), ref.Name}
}

// proxyVersion is the version of a pod's Istio proxy; "" where it has none.
func proxyVersion(pod *unstructured.Unstructured) string {
	for _, field := range []string{"containers", "initContainers"} {
		list, _, _ := unstructured.NestedFieldNoCopy(pod.Object, "spec", field)
		containers, _ := list.([]any)
		for _, x := range containers {
			m, _ := x.(map[string]any)
			if m["name"] == "istio-proxy" {
				image, _ := m["image"].(string)
				return mesh.ImageVersion(image)
			}
		}
	}
	return ""
}

func (g *gatherer) restarted(w owner) bool {
	return slices.ContainsFunc(g.plan.Effects, func(e Effect) bool { return touches(e, w) })
}

func touches(e Effect, w owner) bool {
	return e.Ref.Kind == w.kind && e.Ref.Namespace == w.namespace && e.Ref.Name == w.name
}

// explain says why the pods of a workload are replaced: by the effect that
// restarts it or changes its pod template, or else by what was done before.
func (g *gatherer) explain(w owner, r *Restart) {
	for i := range g.plan.Effects {
		e := &g.plan.Effects[i]
		evicted := e.Verb == effect.Evict && slices.Contains(r.Pods, e.Ref.Name) && e.Ref.Namespace == w.namespace
		if why := e.rolls(); evicted || touches(*e, w) && why != "" {
			r.Step, r.Wave, r.Why = e.Step, e.Wave, cmp.Or(why, e.Why, "its pods are evicted")
			return
		}
	}
	r.Why = "it follows from what was changed before: nothing restarts it by itself"
}

// rolls says why an effect on a workload replaces its pods; "" where it does
// not.
func (e *Effect) rolls() string {
	switch {
	case e.Created:
		return "it is new"
	case e.Class == effect.Restart || e.Wave != "":
		return e.Why
	case slices.ContainsFunc(e.Fields, func(f Field) bool { return strings.HasPrefix(f.Path, "spec.template") }):
		return "its pod template changes: " + e.Summary
	}
	return ""
}

// assume names what every twin takes for granted, where it matters to this
// plan, beside what its own has met with.
func (g *gatherer) assume(t *twin.Twin) {
	p := g.plan
	if len(p.Restarts) > 0 {
		AssumeOfPods(t)
	}
	if len(p.Effects) > 0 {
		t.Assume(twin.Assumption{Code: twin.Standstill, Subject: "everybody else", Text: "leaves the cluster as it is meanwhile: autoscalers, deployments by others, nodes that come and go"})
		t.Assume(twin.Assumption{Code: twin.NotCalled, Subject: "proxies", Text: "are taken to accept the configuration of their istiod: nothing is sent to them"})
	}
	for _, a := range p.Asks {
		what := "approve()"
		if a.Gate != "" {
			what = a.Gate
		}
		t.Assume(twin.Assumption{Code: twin.NotCalled, Subject: "a person", Text: fmt.Sprintf("says yes to %s: %s", what, a.Message)})
	}
	p.Assumptions = t.Assumptions()
}

// AssumeOfPods names what a twin takes for granted where pods are made in it:
// who makes them, how fast, and the webhooks that would have a say about them and
// that it can't call.
func AssumeOfPods(t *twin.Twin) {
	t.Assume(twin.Assumption{Code: twin.Simulated, Subject: "controllers, scheduler and kubelets", Text: "are simulated: pods become ready unless their image or node says otherwise"})
	t.Assume(twin.Assumption{Code: twin.Timing, Subject: "durations", Text: "are those of simulated pods, which are ready seconds after they start; real images are pulled and start more slowly"})
	for _, gr := range []schema.GroupResource{grMutating, grValidating} {
		for _, cfg := range t.Origins(gr) {
			list, _ := cfg.Object["webhooks"].([]any)
			for _, x := range list {
				m, _ := x.(map[string]any)
				name, _ := m["name"].(string)
				if strings.Contains(name, "istio.io") || !aboutPods(m) {
					continue
				}
				t.Assume(twin.Assumption{Code: twin.NotCalled, Subject: "webhook " + name, Text: "has nothing to say about pods that controllers make: it is not called for those of the twin"})
			}
		}
	}
}

func aboutPods(webhook map[string]any) bool {
	rules, _ := webhook["rules"].([]any)
	for _, x := range rules {
		m, _ := x.(map[string]any)
		list, _ := m["resources"].([]any)
		if slices.Contains(list, any("pods")) || slices.Contains(list, any("*")) || slices.Contains(list, any("*/*")) {
			return true
		}
	}
	return false
}

// ends is the time at which the last wave or step of the plan is over.
func (p *Plan) ends() time.Duration {
	end := p.Duration
	for _, r := range p.Restarts {
		end = max(end, r.After+r.Duration)
	}
	return end
}
