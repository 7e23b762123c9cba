package lib

import (
	"context"
	"fmt"
	"net"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"istio.io/istio/pkg/kube/kubetypes"

	"rutter.dev/rutter/runtime/cluster"
)

// leanKind is a kind of which a precheck reads annotations only (and of pods
// which init containers they have): its one analyzer is
// analyzers/maturity.AlphaAnalyzer.
type leanKind struct {
	gvk   schema.GroupVersionKind
	whole bool // its metadata is not enough
	list  func() list
	make  func(metav1.ObjectMeta, *cluster.Object) runtime.Object
}

type list interface {
	runtime.Object
	metav1.ListInterface
}

var leanKinds = map[schema.GroupVersionResource]leanKind{
	{Version: "v1", Resource: "pods"}: {
		schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, true, func() list { return &corev1.PodList{} }, leanPod,
	},
	{Version: "v1", Resource: "services"}: {
		schema.GroupVersionKind{Version: "v1", Kind: "Service"},
		false,
		func() list { return &corev1.ServiceList{} },
		func(m metav1.ObjectMeta, _ *cluster.Object) runtime.Object { return &corev1.Service{ObjectMeta: m} },
	},
	{Version: "v1", Resource: "namespaces"}: {
		schema.GroupVersionKind{Version: "v1", Kind: "Namespace"},
		false,
		func() list { return &corev1.NamespaceList{} },
		func(m metav1.ObjectMeta, _ *cluster.Object) runtime.Object { return &corev1.Namespace{ObjectMeta: m} },
	},
	{Group: "apps", Version: "v1", Resource: "deployments"}: {
		schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"},
		false,
		func() list { return &appsv1.DeploymentList{} },
		func(m metav1.ObjectMeta, _ *cluster.Object) runtime.Object { return &appsv1.Deployment{ObjectMeta: m} },
	},
}

// leanPod keeps the names of init containers, by which the analyzer tells
// whether Istio's CNI is there.
func leanPod(m metav1.ObjectMeta, o *cluster.Object) runtime.Object {
	p := &corev1.Pod{ObjectMeta: m}
	spec, _ := o.Object["spec"].(map[string]any)
	inits, _ := spec["initContainers"].([]any)
	for _, c := range inits {
		c, _ := c.(map[string]any)
		name, _ := c["name"].(string)
		p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: name})
	}
	return p
}

// metaOf is what the analyzer may ask of an object's metadata.
func metaOf(o *cluster.Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(), Labels: o.GetLabels(), Annotations: o.GetAnnotations(),
	}
}

// Pods are the pods of a cluster, as far as a precheck asks for them. The zero value
// is none. It is not safe for concurrent use.
type Pods struct{ all []runtime.Object }

// Add takes what it needs of a pod.
func (p *Pods) Add(o *cluster.Object) { p.all = append(p.all, leanPod(metaOf(o), o)) }

// of are those that a list request would give; false where that is not known here.
func (p *Pods) of(o kubetypes.InformerOptions) ([]runtime.Object, bool) {
	if p == nil || o.LabelSelector != "" {
		return nil, false
	}
	chosen, err := fields.ParseSelector(o.FieldSelector)
	if err != nil || slices.ContainsFunc(chosen.Requirements(), func(r fields.Requirement) bool {
		return r.Field != "metadata.namespace" && r.Field != "metadata.name"
	}) {
		return nil, false
	}
	var out []runtime.Object
	for _, pod := range p.all {
		m, err := meta.Accessor(pod)
		if err != nil {
			return nil, false
		}
		if (o.Namespace == "" || o.Namespace == m.GetNamespace()) && chosen.Matches(fields.Set{"metadata.namespace": m.GetNamespace(), "metadata.name": m.GetName()}) {
			out = append(out, pod)
		}
	}
	return out, true
}

// lean is the list of such a kind, once. What comes later is not told: a
// precheck looks once.
type lean struct {
	session *session
	kind    leanKind
	opts    kubetypes.InformerOptions
}

// readLean lets r list the kinds of which little is needed; what are pods, if they
// are not nil, are not listed again.
func (s *session) readLean(r cluster.Reader, seen *Pods) {
	s.read.Store(&r)
	s.seen.Store(seen)
	context.AfterFunc(s.ctx, func() { // for the reason that config tells
		s.read.Store(nil)
		s.seen.Store(nil)
	})
	s.caches.lean = func(gvr schema.GroupVersionResource, o kubetypes.InformerOptions) *lean {
		k, ok := leanKinds[gvr]
		if !ok || o.InformerType != kubetypes.StandardInformer {
			return nil
		}
		return &lean{session: s, kind: k, opts: o}
	}
}

// List implements cache.Lister.
func (l *lean) List(metav1.ListOptions) (runtime.Object, error) {
	out, err := l.all(l.session.ctx)
	if err != nil {
		l.session.note(err)
		l.session.cancel(err) // a reflector would ask again for ever
		return nil, err
	}
	return out, nil
}

func (l *lean) all(ctx context.Context) (runtime.Object, error) {
	var items []runtime.Object
	known := false
	if l.kind.whole { // pods are the one such kind
		items, known = l.session.seen.Load().of(l.opts)
	}
	if !known {
		var err error
		if items, err = l.read(ctx); err != nil {
			return nil, err
		}
	}
	out := l.kind.list()
	out.SetResourceVersion("1") // it is never compared
	return out, meta.SetList(out, items)
}

func (l *lean) read(ctx context.Context) ([]runtime.Object, error) {
	read := l.session.read.Load()
	if read == nil {
		return nil, net.ErrClosed
	}
	res, err := (*read).ResourceFor(ctx, l.kind.gvk)
	if err != nil {
		return nil, err
	}
	var items []runtime.Object
	o := cluster.ListOptions{
		Namespace: l.opts.Namespace, Labels: l.opts.LabelSelector, Fields: l.opts.FieldSelector, Lean: true, MetadataOnly: !l.kind.whole,
	}
	err = (*read).List(ctx, res, o, func(o *cluster.Object) error {
		l.session.heard()
		items = append(items, l.kind.make(metaOf(o), o))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", res.GVR.GroupResource(), err)
	}
	return items, nil
}

// Watch implements cache.Watcher: it ends when it is stopped.
func (*lean) Watch(metav1.ListOptions) (watch.Interface, error) { return watch.NewFake(), nil }

// IsWatchListSemanticsUnSupported tells reflectors to list.
func (*lean) IsWatchListSemanticsUnSupported() bool { return true }

func (l *lean) informer() cache.SharedIndexInformer {
	example := l.kind.make(metav1.ObjectMeta{}, &unstructured.Unstructured{})
	return cache.NewSharedIndexInformer(l, example, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
}
