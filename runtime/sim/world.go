package sim

import (
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// world is one controller's view of the cluster. Its methods run under the
// cluster's lock.
type world struct {
	c          *Cluster
	controller string
	manager    string // field manager of its writes
}

// managerOf is the field manager of a controller's writes: its own name for it
// when it has one, kubelet for the kubelet, kube-controller-manager for others.
func managerOf(ctl Controller) string {
	if m, ok := ctl.(interface{ Manager() string }); ok {
		return m.Manager()
	}
	if ctl.Name() == "kubelet" {
		return ctl.Name()
	}
	return "kube-controller-manager"
}

var _ World = (*world)(nil)

// Now implements World.
func (w *world) Now() time.Time { return w.c.now }

// Get implements World.
func (w *world) Get(gr schema.GroupResource, namespace, name string) *unstructured.Unstructured {
	if e := w.c.st.get(objectKey{gr, namespace, name}); e != nil {
		return e.obj
	}
	return nil
}

// List implements World.
func (w *world) List(gr schema.GroupResource, namespace string) []*unstructured.Unstructured {
	t := w.c.st.read(gr, namespace)
	if t == nil {
		return nil
	}
	keys := t.span(namespace)
	out := make([]*unstructured.Unstructured, len(keys))
	for i, k := range keys {
		out[i] = t.items[k].obj
	}
	return out
}

// Owned implements World.
func (w *world) Owned(gr schema.GroupResource, namespace, ownerUID string) []*unstructured.Unstructured {
	w.c.st.need(gr, namespace, "")
	var out []*unstructured.Unstructured
	for _, k := range w.c.st.dependents(ownerUID) {
		if k.gr != gr || (namespace != "" && k.namespace != namespace) {
			continue
		}
		obj := w.c.st.get(k).obj
		for _, o := range obj.GetOwnerReferences() {
			if string(o.UID) == ownerUID && o.Controller != nil && *o.Controller {
				out = append(out, obj)
				break
			}
		}
	}
	return out
}

func (w *world) options() writeOptions {
	return writeOptions{manager: w.manager, controller: true}
}

// Create implements World.
func (w *world) Create(obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	res, err := w.resource(obj)
	if err != nil {
		return nil, err
	}
	o := w.options()
	next := shallow(obj)
	if res.crd != nil { // the round trip through the Go type copies the others
		next = obj.DeepCopy()
	}
	return w.c.create(res.gr(), obj.GetNamespace(), next, o)
}

// Update implements World.
func (w *world) Update(obj *unstructured.Unstructured) error {
	return w.write(obj, "")
}

// UpdateStatus implements World.
func (w *world) UpdateStatus(obj *unstructured.Unstructured) error {
	return w.write(obj, "status")
}

func (w *world) write(obj *unstructured.Unstructured, sub string) error {
	res, err := w.resource(obj)
	if err != nil {
		return err
	}
	o := w.options()
	o.subresource = sub
	// A pod's spec is written by the scheduler alone, whose bindings the real
	// server does not track either.
	// Of endpoints it is whole lists that change, which belong to their
	// controller from the beginning.
	switch res.gr() {
	case grPods, grEndpoints, grSlices:
		o.untracked = true
	default:
		o.untracked = sub != "" || len(managedFields(obj)) == 0
	}
	var next *unstructured.Unstructured
	if sub == "status" { // nothing else of it is stored
		next = shallow(obj)
		if status, ok := next.Object["status"]; ok {
			next.Object["status"] = runtime.DeepCopyJSONValue(status)
		}
	} else {
		next = obj.DeepCopy()
	}
	next.SetResourceVersion("") // one instant, one lock: nothing can have come between
	_, err = w.c.update(res.gr(), obj.GetNamespace(), obj.GetName(), o, func(*unstructured.Unstructured) (*unstructured.Unstructured, error) {
		return next, nil
	})
	return err
}

func (w *world) resource(obj *unstructured.Unstructured) (*resource, error) {
	gvk := obj.GroupVersionKind()
	res := w.c.reg.byKind[gvk.GroupKind()]
	if res == nil {
		return nil, fmt.Errorf("%s %s/%s: the cluster serves no such kind", gvk, obj.GetNamespace(), obj.GetName())
	}
	return res, nil
}

// Apply implements World.
func (w *world) Apply(obj *unstructured.Unstructured) error {
	res, err := w.resource(obj)
	if err != nil {
		return err
	}
	body, err := json.Marshal(obj.Object)
	if err != nil {
		return fmt.Errorf("%s %s/%s: %w", res.gr(), obj.GetNamespace(), obj.GetName(), err)
	}
	o := writeOptions{manager: w.manager, version: obj.GroupVersionKind().Version}
	_, _, err = w.c.patch(res.gr(), obj.GetNamespace(), obj.GetName(), types.ApplyYAMLPatchType, body, new(true), o)
	return err
}

// Delete implements World.
func (w *world) Delete(gr schema.GroupResource, namespace, name string) error {
	_, err := w.c.delete(gr, namespace, name, deleteOptions{controller: true})
	return err
}

// End implements World.
func (w *world) End(gr schema.GroupResource, namespace, name string) error {
	_, err := w.c.delete(gr, namespace, name, deleteOptions{grace: new(int64), controller: true})
	return err
}

// Name implements World.
func (w *world) Name(base string) string { return base + w.c.suffix() }

// Event implements World. An event about the same thing for the same reason
// is counted, as the real recorder does.
func (w *world) Event(obj *unstructured.Unstructured, kind, reason, message string) {
	w.c.recordEvent(w.controller, obj, kind, reason, message)
}
