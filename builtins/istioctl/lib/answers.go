package lib

import (
	"fmt"
	"maps"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"rutter.dev/rutter/runtime/plain"
	"rutter.dev/rutter/runtime/sim"
)

// answersKept bounds the remembered answers per configuration.
const answersKept = 4096

// answers remembers what a webhook says of pods: the replicas of a workload differ
// in name and identity only, and an injection costs about 3 ms.
type answers struct {
	mu    sync.Mutex
	of    map[string]*answer
	order []string // keys, oldest first
}

// answer is what the webhook says of pods of one kind. It is found out once, by
// whoever needs it first.
type answer struct {
	once sync.Once
	find func() (*unstructured.Unstructured, error) // nil once it was asked
	pod  *unstructured.Unstructured                 // nil: not injected
	err  error
}

func (a *answer) get() (*unstructured.Unstructured, error) {
	a.once.Do(func() {
		a.pod, a.err = a.find()
		a.find = nil
	})
	return a.pod, a.err
}

// to is the answer of a key, which find will find out if nobody has yet.
func (as *answers) to(key string, find func() (*unstructured.Unstructured, error)) *answer {
	as.mu.Lock()
	defer as.mu.Unlock()
	if a := as.of[key]; a != nil {
		return a
	}
	if as.of == nil {
		as.of = map[string]*answer{}
	}
	if len(as.order) >= answersKept {
		delete(as.of, as.order[0])
		as.order = as.order[1:]
	}
	a := &answer{find: find}
	as.of[key] = a
	as.order = append(as.order, key)
	return a
}

// ahead finds out answers in the background, one after the other, in the order in
// which they are asked for.
type ahead struct {
	mu      sync.Mutex
	queue   []*answer
	working bool
}

func (w *ahead) find(a *answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = append(w.queue, a)
	if !w.working {
		w.working = true
		go w.work()
	}
}

// work ends when there is nothing left to find out.
func (w *ahead) work() {
	for {
		w.mu.Lock()
		if len(w.queue) == 0 {
			w.queue, w.working = nil, false
			w.mu.Unlock()
			return
		}
		next := w.queue[0]
		w.queue = w.queue[1:]
		w.mu.Unlock()
		_, _ = next.get() // an error is for who asks for it
	}
}

// identity are the metadata that the API server or a controller gives to each
// pod of a template. Istio's templates look at none of them when the pod has
// an owner.
func identity() []string {
	return []string{"name", "uid", "creationTimestamp", "resourceVersion", "managedFields"}
}

// asked is a pod as the webhook is asked about it, without what tells it from those
// of its kind: its identity, and the node that a DaemonSet's is pinned to.
type asked struct {
	pod *unstructured.Unstructured
	own map[string]any // its identity
	pin any            // its affinity
}

// askedOf is nil for a pod whose name means something: there is nothing to share.
func askedOf(p *unstructured.Unstructured) *asked {
	if p.GetGenerateName() == "" || metav1.GetControllerOfNoCopy(p) == nil {
		return nil
	}
	out := &asked{}
	out.pod, out.own = withoutIdentity(p)
	out.pin = unpinned(out.pod)
	return out
}

// answer gives the webhook's to pods of a kind.
func (h *webhook) answer(in sim.InjectionRequest, q *asked) (*answer, error) {
	raw, err := plain.Encode(q.pod.Object) // sorts keys
	if err != nil {
		return nil, err
	}
	namespace := requestNamespace(in)
	return h.answers.to(namespace+" "+sum(raw), func() (*unstructured.Unstructured, error) {
		return h.ask(namespace, "", raw)
	}), nil
}

// prepare gives the answer that is to be found out for pods like this one; nil where
// pods are not alike.
func (h *webhook) prepare(in sim.InjectionRequest) *answer {
	q := askedOf(in.Pod)
	if q == nil {
		return nil
	}
	a, err := h.answer(in, q)
	if err != nil {
		return nil // it will be met again
	}
	return a
}

// inject answers for the pod without its identity, and gives it back.
func (h *webhook) inject(in sim.InjectionRequest) (*unstructured.Unstructured, error) {
	q := askedOf(in.Pod)
	if q == nil {
		return h.injectAlone(in)
	}
	a, err := h.answer(in, q)
	if err != nil {
		return nil, err
	}
	injected, err := a.get()
	switch {
	case err != nil:
		return nil, err
	case injected == nil:
		return in.Pod, nil
	case q.pin != nil && specOf(injected)["affinity"] != nil:
		return h.injectAlone(in) // a template of this mesh has a say about it
	}
	out := injected.DeepCopy()
	if q.pin != nil {
		specOf(out)["affinity"] = runtime.DeepCopyJSONValue(q.pin)
	}
	meta := out.Object["metadata"].(map[string]any)
	for k, v := range q.own {
		meta[k] = runtime.DeepCopyJSONValue(v)
	}
	return out, nil
}

// injectAlone asks about this very pod.
func (h *webhook) injectAlone(in sim.InjectionRequest) (*unstructured.Unstructured, error) {
	raw, err := in.Pod.MarshalJSON()
	if err != nil {
		return nil, err
	}
	out, err := h.ask(requestNamespace(in), in.Pod.GetName(), raw)
	if err == nil && out == nil {
		out = in.Pod
	}
	return out, err
}

// ask sends a pod to the webhook and applies its patch. It returns nil when there is
// nothing to inject.
func (h *webhook) ask(namespace, name string, pod []byte) (*unstructured.Unstructured, error) {
	patch, err := callWebhook(h.handler, namespace, name, pod)
	if err != nil || len(patch) == 0 {
		return nil, err
	}
	out, err := applyPatch(pod, patch)
	if err != nil {
		return nil, fmt.Errorf("its patch: %w", err)
	}
	return out, nil
}

// withoutIdentity returns a shallow copy without identity metadata, and those. The
// identity of its owner is left out too: of a ReplicaSet that is yet to be made only
// the name is known.
func withoutIdentity(p *unstructured.Unstructured) (*unstructured.Unstructured, map[string]any) {
	own := map[string]any{}
	given, _ := p.Object["metadata"].(map[string]any)
	meta := maps.Clone(given)
	for _, k := range identity() {
		if v, ok := meta[k]; ok {
			own[k] = v
			delete(meta, k)
		}
	}
	if owners, ok := meta["ownerReferences"].([]any); ok {
		own["ownerReferences"] = owners
		unnamed := make([]any, len(owners))
		for i, o := range owners {
			owner, _ := o.(map[string]any)
			owner = maps.Clone(owner)
			delete(owner, "uid")
			unnamed[i] = owner
		}
		meta["ownerReferences"] = unnamed
	}
	obj := maps.Clone(p.Object)
	obj["metadata"] = meta
	return &unstructured.Unstructured{Object: obj}, own
}

// unpinned takes from the copy of a DaemonSet's pod the affinity that pins it to
// its node, and returns it: it is all in which it differs from those of other
// nodes. Nil where there is none.
func unpinned(p *unstructured.Unstructured) any {
	owner := metav1.GetControllerOfNoCopy(p)
	spec := specOf(p)
	pin := spec["affinity"]
	if owner == nil || owner.Kind != "DaemonSet" || pin == nil {
		return nil
	}
	spec = maps.Clone(spec)
	delete(spec, "affinity")
	p.Object["spec"] = spec
	return pin
}

func specOf(p *unstructured.Unstructured) map[string]any {
	spec, _ := p.Object["spec"].(map[string]any)
	return spec
}
