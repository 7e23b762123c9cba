package lib

import (
	"context"
	"fmt"
	"net"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
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
	gvk  schema.GroupVersionKind
	list func() list
	make func(metav1.ObjectMeta, *cluster.Object) runtime.Object
}

type list interface {
	runtime.Object
	metav1.ListInterface
}

var leanKinds = map[schema.GroupVersionResource]leanKind{
	{Version: "v1", Resource: "pods"}: {
		schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, func() list { return &corev1.PodList{} }, leanPod,
	},
	{Version: "v1", Resource: "services"}: {
		schema.GroupVersionKind{Version: "v1", Kind: "Service"},
		func() list { return &corev1.ServiceList{} },
		func(m metav1.ObjectMeta, _ *cluster.Object) runtime.Object { return &corev1.Service{ObjectMeta: m} },
	},
	{Version: "v1", Resource: "namespaces"}: {
		schema.GroupVersionKind{Version: "v1", Kind: "Namespace"},
		func() list { return &corev1.NamespaceList{} },
		func(m metav1.ObjectMeta, _ *cluster.Object) runtime.Object { return &corev1.Namespace{ObjectMeta: m} },
	},
	{Group: "apps", Version: "v1", Resource: "deployments"}: {
		schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"},
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

// lean is the list of such a kind, once. What comes later is not told: a
// precheck looks once.
type lean struct {
	session *session
	kind    leanKind
	opts    kubetypes.InformerOptions
}

// readLean lets r list the kinds of which little is needed.
func (s *session) readLean(r cluster.Reader) {
	s.read.Store(&r)
	context.AfterFunc(s.ctx, func() { s.read.Store(nil) }) // for the reason that config tells
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
	read := l.session.read.Load()
	if read == nil {
		return nil, net.ErrClosed
	}
	res, err := (*read).ResourceFor(ctx, l.kind.gvk)
	if err != nil {
		return nil, err
	}
	var items []runtime.Object
	o := cluster.ListOptions{Namespace: l.opts.Namespace, Labels: l.opts.LabelSelector, Fields: l.opts.FieldSelector, Lean: true}
	err = (*read).List(ctx, res, o, func(o *cluster.Object) error {
		l.session.heard()
		items = append(items, l.kind.make(metav1.ObjectMeta{
			Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(), Labels: o.GetLabels(), Annotations: o.GetAnnotations(),
		}, o))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", res.GVR.GroupResource(), err)
	}
	out := l.kind.list()
	out.SetResourceVersion("1") // it is never compared
	return out, meta.SetList(out, items)
}

// Watch implements cache.Watcher: it ends when it is stopped.
func (*lean) Watch(metav1.ListOptions) (watch.Interface, error) { return watch.NewFake(), nil }

// IsWatchListSemanticsUnSupported tells reflectors to list.
func (*lean) IsWatchListSemanticsUnSupported() bool { return true }

func (l *lean) informer() cache.SharedIndexInformer {
	example := l.kind.make(metav1.ObjectMeta{}, &unstructured.Unstructured{})
	return cache.NewSharedIndexInformer(l, example, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
}
