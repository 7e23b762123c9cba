package impact

import (
	"context"
	"errors"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/mesh"
)

// world is a state of the cluster, as far as pods are concerned.
type world struct {
	of map[string]*workload // by Ref.ID
	// configs are ConfigMaps by "namespace/name", to be compared.
	configs map[string]any
}

// workload is what makes pods: a controller, or a pod that nobody makes.
type workload struct {
	ref      cluster.Ref
	uid      string
	template *cluster.Object // its pod template as a pod; nil where it has none that is known
	pods     []string
	proxy    *mesh.Proxy // of its first pod that has one
	labels   map[string]string
	managed  bool     // istiod keeps it for a Gateway
	reads    []string // ConfigMaps that it reads at its start
	sample   sample
}

// sample is the pod that would be made of a workload's template.
type sample struct {
	pod     *cluster.Object // as admission makes it, without what names it
	proxy   *mesh.Proxy     // nil: it is not injected
	refused string          // why it can't be made
}

// look reads who makes which pods, and has a sample of each made.
func look(ctx context.Context, c *cluster.Client) (*world, error) {
	w := &world{of: map[string]*workload{}, configs: map[string]any{}}
	for _, kind := range mesh.TemplatedKinds() {
		if err := w.makers(ctx, c, kind); err != nil {
			return nil, err
		}
	}
	if err := w.pods(ctx, c); err != nil {
		return nil, err
	}
	if err := w.configMaps(ctx, c); err != nil {
		return nil, err
	}
	for _, x := range w.of {
		if err := x.try(ctx, c); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// list lists objects of a kind; none where it is not served or may not be read,
// which the twin names among its assumptions.
func list(ctx context.Context, c *cluster.Client, gvk schema.GroupVersionKind, o cluster.ListOptions, each func(*cluster.Object) error) error {
	res, err := c.ResourceFor(ctx, gvk)
	if err == nil {
		err = c.List(ctx, res, o, each)
	}
	if errors.Is(err, cluster.ErrNoKind) || errors.Is(err, cluster.ErrNotFound) || errors.Is(err, cluster.ErrDenied) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%ss: %w", gvk.Kind, err)
	}
	return nil
}

func (w *world) makers(ctx context.Context, c *cluster.Client, kind mesh.TemplatedKind) error {
	return list(ctx, c, kind.GVK, cluster.ListOptions{Lean: true}, func(o *cluster.Object) error {
		x := &workload{ref: cluster.RefOf(o), uid: string(o.GetUID()), labels: o.GetLabels(), managed: o.GetLabels()[mesh.LabelGatewayOwner] != "", reads: mesh.ReadAtStart(o)}
		if t, ok, err := unstructured.NestedMap(o.Object, kind.Path...); err == nil && ok {
			x.template = &cluster.Object{Object: t}
		}
		w.of[x.ref.ID()] = x
		return nil
	})
}

// pods gives every pod to its workload. Those that have ended or are being deleted
// are nobody's: their successors count.
func (w *world) pods(ctx context.Context, c *cluster.Client) error {
	owners := cluster.Owners{}
	for _, gvk := range []schema.GroupVersionKind{{Group: "apps", Version: "v1", Kind: "ReplicaSet"}, {Group: "batch", Version: "v1", Kind: "Job"}} {
		err := list(ctx, c, gvk, cluster.ListOptions{MetadataOnly: true}, func(o *cluster.Object) error {
			owners.Add(o)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return list(ctx, c, schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, cluster.ListOptions{Lean: true}, func(p *cluster.Object) error {
		phase, _, _ := unstructured.NestedString(p.Object, "status", "phase")
		if phase == "Succeeded" || phase == "Failed" || p.GetDeletionTimestamp() != nil {
			return nil
		}
		ref := owners.Of(p)
		x := w.of[ref.ID()]
		if x == nil {
			x = &workload{ref: ref, uid: string(p.GetUID()), labels: p.GetLabels(), managed: p.GetLabels()[mesh.LabelGatewayOwner] != "", template: likeness(p)}
			w.of[ref.ID()] = x
		}
		x.pods = append(x.pods, p.GetName())
		if px, ok := mesh.ProxyOf(p); ok && x.proxy == nil {
			px.Labels = nil
			x.proxy = &px
		}
		return nil
	})
}

// likeness is a pod that injectors treat as they would treat the given one, for
// what makes its pods of a template that is not known: they choose by labels and
// annotations, of which those go that an injector wrote.
func likeness(p *cluster.Object) *cluster.Object {
	labels, notes := map[string]any{}, map[string]any{}
	for k, v := range p.GetLabels() {
		labels[k] = v
	}
	for k, v := range p.GetAnnotations() {
		if k != mesh.AnnotationStatus && k != mesh.LabelRev {
			notes[k] = v
		}
	}
	return &cluster.Object{Object: map[string]any{
		"metadata": map[string]any{"labels": labels, "annotations": notes},
		"spec":     map[string]any{"containers": []any{map[string]any{"name": "app", "image": "app"}}},
	}}
}

func (w *world) configMaps(ctx context.Context, c *cluster.Client) error {
	wanted := map[string]bool{}
	for _, x := range w.of {
		for _, name := range x.reads {
			wanted[x.ref.Namespace+"/"+name] = true
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	return list(ctx, c, schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, cluster.ListOptions{Lean: true}, func(o *cluster.Object) error {
		if at := o.GetNamespace() + "/" + o.GetName(); wanted[at] {
			w.configs[at] = []any{o.Object["data"], o.Object["binaryData"]}
		}
		return nil
	})
}

// try has the workload's next pod made, as a dry-run on the twin: its admission,
// injectors included, is that of the world as it is then.
func (x *workload) try(ctx context.Context, c *cluster.Client) error {
	if x.template == nil || x.managed { // istiod writes the latter's pods itself
		return nil
	}
	pod := x.template.DeepCopy()
	pod.SetAPIVersion("v1")
	pod.SetKind("Pod")
	pod.SetNamespace(x.ref.Namespace)
	pod.SetName("")
	pod.SetGenerateName(x.ref.Name + "-")
	yes := true
	pod.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: x.ref.GVK().GroupVersion().String(), Kind: x.ref.Kind, Name: x.ref.Name, UID: "00000000-0000-0000-0000-000000000000", Controller: &yes}})
	got, err := c.DryRunCreate(ctx, pod, cluster.WriteOptions{})
	switch {
	case err == nil:
	case errors.Is(err, cluster.ErrUnreachable) || ctx.Err() != nil:
		return fmt.Errorf("a new pod of %s: %w", x.ref, err)
	default:
		x.sample = sample{refused: err.Error()}
		return nil
	}
	x.sample = sample{pod: anonymous(got)}
	if px, ok := mesh.ProxyOf(got); ok {
		px.Labels = nil
		x.sample.proxy = &px
	}
	return nil
}

// anonymous takes from a pod what differs from one of its likes to the next.
func anonymous(p *cluster.Object) *cluster.Object {
	if md, ok := p.Object["metadata"].(map[string]any); ok {
		for _, k := range []string{"name", "generateName", "uid", "creationTimestamp", "resourceVersion", "managedFields", "ownerReferences"} {
			delete(md, k)
		}
	}
	delete(p.Object, "status")
	return p
}

// component is what a workload of a mesh is that no injector makes; "" for others.
func (x *workload) component() string {
	switch {
	case x.labels["app"] == "istiod":
		return "control plane"
	case x.labels["k8s-app"] == "istio-cni-node":
		return "cni"
	case x.labels["app.kubernetes.io/name"] == "ztunnel" || x.labels["app"] == "ztunnel":
		return string(mesh.Ztunnel)
	}
	return ""
}

// role is what its proxy is for.
func (x *workload) role() string {
	if s := x.component(); s != "" {
		return s
	}
	for _, p := range []*mesh.Proxy{x.proxy, x.sample.proxy} {
		if p != nil {
			return string(p.Kind)
		}
	}
	return ""
}

func (x *workload) names() []string {
	out := append([]string{}, x.pods...)
	slices.Sort(out)
	return out
}
