package gate

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/mesh"
)

var (
	podKind        = schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	sliceKind      = schema.GroupVersionKind{Group: "discovery.k8s.io", Version: "v1", Kind: "EndpointSlice"}
	namespaceKind  = schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}
	mutatingKind   = schema.GroupVersionKind{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "MutatingWebhookConfiguration"}
	validatingKind = schema.GroupVersionKind{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingWebhookConfiguration"}
	deploymentKind = schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}
)

// world is the cluster as an effect finds it: as it was read, with what the
// effects before it make of it. Live, those are the ones that are made at the
// same time, of which nothing is there yet that they bring.
type world struct {
	ctx context.Context
	r   cluster.Reader
	run *Run
}

// after is the object as the earlier effects leave it; o as it is now, nil if
// it is not there. touched tells whether any of them is about it.
func (w world) after(ref cluster.Ref, o *cluster.Object) (now *cluster.Object, touched bool) {
	for _, p := range w.run.Earlier {
		switch {
		case p.Ref.ID() != ref.ID():
		case p.Verb == effect.Delete, p.Verb == effect.Evict:
			o, touched = nil, true
		case !w.run.Forecast && o == nil: // it is not there yet
		default:
			if i := p.Intended(); i != nil {
				o, touched = i, true
			}
		}
	}
	return o, touched
}

// left is the object as the whole call leaves it, nil if that deletes it.
func (w world) left(ref cluster.Ref, o *cluster.Object) *cluster.Object {
	for _, p := range w.run.Call {
		switch {
		case p.Ref.ID() != ref.ID():
		case p.Verb == effect.Delete:
			o = nil
		default:
			if i := p.Intended(); i != nil {
				o = i
			}
		}
	}
	return o
}

// objects lists objects of a kind as the earlier effects leave them.
func (w world) objects(gvk schema.GroupVersionKind, o cluster.ListOptions) ([]*cluster.Object, error) {
	got, err := w.run.Seen.objects(w.ctx, w.r, gvk, o)
	if err != nil {
		return nil, err
	}
	selector, err := labels.Parse(o.Labels)
	if err != nil {
		return nil, err
	}
	var out []*cluster.Object
	seen := map[string]bool{}
	for _, obj := range got {
		ref := cluster.RefOf(obj)
		ref.Group, ref.Version, ref.Kind = gvk.Group, gvk.Version, gvk.Kind // a list of metadata has its own
		seen[ref.ID()] = true
		if now, touched := w.after(ref, obj); now != nil && (!touched || selector.Matches(labels.Set(now.GetLabels()))) {
			out = append(out, now)
		}
	}
	if !w.run.Forecast {
		return out, nil
	}
	for _, p := range w.run.Earlier {
		if p.Ref.Group != gvk.Group || p.Ref.Kind != gvk.Kind || seen[p.Ref.ID()] || o.Namespace != "" && p.Ref.Namespace != o.Namespace {
			continue
		}
		seen[p.Ref.ID()] = true
		if now, _ := w.after(p.Ref, nil); now != nil && selector.Matches(labels.Set(now.GetLabels())) {
			out = append(out, now)
		}
	}
	return out, nil
}

// get reads one object as the earlier effects leave it; nil if it is not there.
func (w world) get(ref cluster.Ref) (*cluster.Object, error) {
	o, err := w.run.Seen.object(w.ctx, w.r, ref)
	if err != nil {
		return nil, err
	}
	now, _ := w.after(ref, o)
	return now, nil
}

// webhooks lists the configurations of admission webhooks.
func (w world) webhooks() ([]*cluster.Object, error) {
	var out []*cluster.Object
	for _, gvk := range []schema.GroupVersionKind{mutatingKind, validatingKind} {
		got, err := w.objects(gvk, cluster.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("admission webhooks: %w", err)
		}
		out = append(out, got...)
	}
	return out, nil
}

// endpoints says who answers a Service, less what leaving selects.
type endpoints struct {
	ready  int    // pods, or other endpoints, that are ready and stay
	leave  int    // pods that are ready and go with the effect
	gone   int    // pods that are ready and go with an earlier one
	brings bool   // an earlier effect of the call brings a workload behind it
	why    string // there is none at all: the reason
}

// behind counts the ready endpoints of a Service. leaving selects the pods that
// are about to go.
func (w world) behind(svc cluster.Ref, leaving func(pod *cluster.Object) bool) (endpoints, error) {
	o, err := w.get(svc)
	switch {
	case err != nil:
		return endpoints{}, fmt.Errorf("%s: %w", svc, err)
	case o == nil:
		return endpoints{why: svc.String() + " does not exist"}, nil
	}
	return w.behindOf(o, leaving)
}

func (w world) behindOf(svc *cluster.Object, leaving func(pod *cluster.Object) bool) (endpoints, error) {
	ref := cluster.RefOf(svc)
	if t, _, err := unstructured.NestedString(svc.Object, "spec", "type"); err == nil && t == "ExternalName" {
		return endpoints{ready: 1}, nil // who answers is not this cluster's to know
	}
	chosen, _, err := unstructured.NestedStringMap(svc.Object, "spec", "selector")
	if err != nil {
		return endpoints{}, fmt.Errorf("%s: %w", ref, err)
	}
	if len(chosen) == 0 {
		return w.slices(ref)
	}
	selector := labels.SelectorFromSet(chosen)
	out := endpoints{why: fmt.Sprintf("%s has no ready endpoint", ref)}
	pods, err := w.run.Seen.objects(w.ctx, w.r, podKind, cluster.ListOptions{Namespace: ref.Namespace, Labels: selector.String()})
	if err != nil {
		return endpoints{}, fmt.Errorf("pods behind %s: %w", ref, err)
	}
	for _, p := range pods {
		ready, _ := cluster.Condition(p, "Ready")
		switch {
		case ready.Status != "True" || p.GetDeletionTimestamp() != nil:
		case w.goes(p):
			out.gone++
		case leaving != nil && leaving(p):
			out.leave++
		default:
			out.ready++
		}
	}
	for _, p := range w.run.Earlier {
		out.brings = out.brings || w.run.Forecast && bringsPods(p, ref.Namespace, selector)
	}
	if out.ready+out.leave+out.gone == 0 && !out.brings {
		out.brings, err = w.brought(ref.Namespace, selector)
	}
	return out, err
}

// brought reports whether this run has put a workload behind a selector in place
// already, before its step failed, and the call that takes it up waits for it. Of
// a workload that was there before nobody knows whether waiting helps.
func (w world) brought(namespace string, selector labels.Selector) (bool, error) {
	if !w.run.Forecast || w.run.ID == "" {
		return false, nil
	}
	for _, ref := range w.run.Awaits {
		if ref.Namespace != namespace || !hasPods(ref.Kind) {
			continue
		}
		o, err := w.get(ref)
		if err != nil {
			return false, fmt.Errorf("%s: %w", ref, err)
		}
		if o == nil || o.GetAnnotations()[cluster.AnnotationRun] != w.run.ID || replicas(o) == 0 {
			continue
		}
		if selector.Matches(labels.Set(mesh.PodLabels(o))) {
			return true, nil
		}
	}
	return false, nil
}

// slices counts the ready endpoints of a Service without selector, which
// somebody keeps by hand.
func (w world) slices(svc cluster.Ref) (endpoints, error) {
	out := endpoints{why: fmt.Sprintf("%s has no ready endpoint", svc)}
	found, err := w.objects(sliceKind, cluster.ListOptions{Namespace: svc.Namespace, Labels: "kubernetes.io/service-name=" + svc.Name})
	if err != nil {
		return out, fmt.Errorf("endpoints of %s: %w", svc, err)
	}
	for _, s := range found {
		list, _ := s.Object["endpoints"].([]any)
		for _, e := range list {
			m, _ := e.(map[string]any)
			if ready, known, err := unstructured.NestedBool(m, "conditions", "ready"); err == nil && (ready || !known) {
				out.ready++ // unknown counts as ready (discovery/v1)
			}
		}
	}
	return out, nil
}

// goes reports whether an earlier effect takes the pod away.
func (w world) goes(pod *cluster.Object) bool {
	return slices.ContainsFunc(w.run.Earlier, func(p *effect.Effect) bool { return takes(p)(pod) })
}

// takes is the selector of the pods that an effect takes away for good.
func takes(e *effect.Effect) func(pod *cluster.Object) bool {
	none := func(*cluster.Object) bool { return false }
	if e.Before == nil {
		return none
	}
	switch {
	case e.Ref.Kind == "Pod" && (e.Verb == effect.Evict || e.Verb == effect.Delete):
		return func(pod *cluster.Object) bool { return cluster.RefOf(pod).ID() == e.Ref.ID() }
	case e.Ref.Kind == "Namespace" && e.Verb == effect.Delete:
		return func(pod *cluster.Object) bool { return pod.GetNamespace() == e.Ref.Name }
	case !hasPods(e.Ref.Kind) || !stops(e):
		return none
	}
	sel, err := selectorOf(e.Before)
	if err != nil {
		return none // such a workload has no pods: the API server refuses it
	}
	return func(pod *cluster.Object) bool {
		return pod.GetNamespace() == e.Ref.Namespace && sel.Matches(labels.Set(pod.GetLabels()))
	}
}

func hasPods(kind string) bool {
	return slices.Contains([]string{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Rollout"}, kind)
}

// stops reports whether an effect deletes a workload or scales it to nothing.
func stops(e *effect.Effect) bool {
	if e.Verb == effect.Delete {
		return true
	}
	after := e.Intended()
	return after != nil && e.Ref.Kind != "DaemonSet" && replicas(after) == 0
}

func replicas(o *cluster.Object) int64 {
	n, ok, err := unstructured.NestedInt64(o.Object, "spec", "replicas")
	if err != nil || !ok {
		return 1
	}
	return n
}

func selectorOf(o *cluster.Object) (labels.Selector, error) {
	m, ok, err := unstructured.NestedMap(o.Object, "spec", "selector")
	if err != nil || !ok {
		return nil, errors.Join(errors.New("no selector"), err)
	}
	return parseSelector(m)
}

// bringsPods reports whether an effect puts a workload in place whose pods the
// selector selects.
func bringsPods(e *effect.Effect, namespace string, selector labels.Selector) bool {
	o := e.Intended()
	if o == nil || e.Verb == effect.Delete || e.Ref.Namespace != namespace || !hasPods(e.Ref.Kind) || stops(e) {
		return false
	}
	l, _, err := unstructured.NestedStringMap(o.Object, "spec", "template", "metadata", "labels")
	return err == nil && selector.Matches(labels.Set(l))
}
