package controllers

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"rutter.dev/rutter/runtime/sim"
)

// smallWorld is the least that controllers can run in: a map, a queue and a
// virtual clock. The tests that need a real API server run on sim.Cluster.
type smallWorld struct {
	t       *testing.T
	now     time.Time
	objects map[string]*unstructured.Unstructured
	queue   []work
	due     map[work]time.Time
	seq     int
	events  []string
	refuse  func(kind, namespace, name string) error
	watch   func() // called after every reconciliation
}

type work struct {
	controller int
	gr         schema.GroupResource
	ns, name   string
}

func newWorld(t *testing.T, docs ...string) *smallWorld {
	t.Helper()
	w := &smallWorld{
		t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		objects: map[string]*unstructured.Unstructured{}, due: map[work]time.Time{},
	}
	for i := 1; i <= 3; i++ {
		w.add(fmt.Sprintf("{apiVersion: v1, kind: Node, metadata: {name: node-%d}, status: {addresses: [{type: InternalIP, address: 10.0.0.%d}]}}", i, i))
	}
	for _, d := range docs {
		w.add(d)
	}
	return w
}

func resourceOf(kind string) schema.GroupResource {
	for gr, k := range map[schema.GroupResource]string{
		grNamespaces: "Namespace", grNodes: "Node", grPods: "Pod", grServices: "Service", grEndpoints: "Endpoints",
		grConfigMaps: "ConfigMap", grServiceAccounts: "ServiceAccount", grClaims: "PersistentVolumeClaim",
		grDeployments: "Deployment", grReplicaSets: "ReplicaSet", grStatefulSets: "StatefulSet", grDaemonSets: "DaemonSet",
		grRevisions: "ControllerRevision", grJobs: "Job", grBudgets: "PodDisruptionBudget", grSlices: "EndpointSlice",
		grAutoscalers: "HorizontalPodAutoscaler",
	} {
		if k == kind {
			return gr
		}
	}
	return schema.GroupResource{}
}

func key(gr schema.GroupResource, ns, name string) string {
	return gr.String() + "|" + ns + "|" + name
}

func parse(t *testing.T, doc string) *unstructured.Unstructured {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return u
}

func (w *smallWorld) add(doc string) *unstructured.Unstructured {
	w.t.Helper()
	u, err := w.Create(parse(w.t, doc))
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

func (w *smallWorld) Now() time.Time { return w.now }

func (w *smallWorld) Get(gr schema.GroupResource, ns, name string) *unstructured.Unstructured {
	return w.objects[key(gr, ns, name)]
}

func (w *smallWorld) List(gr schema.GroupResource, ns string) []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	for k, o := range w.objects {
		if strings.HasPrefix(k, gr.String()+"|") && (ns == "" || o.GetNamespace() == ns) {
			out = append(out, o)
		}
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].GetNamespace()+"|"+out[i].GetName() < out[j].GetNamespace()+"|"+out[j].GetName()
	})
	return out
}

func (w *smallWorld) Owned(gr schema.GroupResource, ns, uid string) []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	for _, o := range w.List(gr, ns) {
		if text(controllerOf(o), "uid") == uid {
			out = append(out, o)
		}
	}
	return out
}

func (w *smallWorld) Create(obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	obj = obj.DeepCopy()
	if w.refuse != nil {
		if err := w.refuse(obj.GetKind(), obj.GetNamespace(), obj.GetName()); err != nil {
			return nil, err
		}
	}
	k := key(resourceOf(obj.GetKind()), obj.GetNamespace(), obj.GetName())
	if w.objects[k] != nil {
		return nil, fmt.Errorf("%s: already exists", k)
	}
	w.seq++
	meta := obj.Object["metadata"].(map[string]any)
	meta["uid"], meta["creationTimestamp"], meta["generation"] = fmt.Sprintf("uid-%d", w.seq), stamp(w.now), int64(1)
	w.objects[k] = obj
	w.changed(obj)
	return obj, nil
}

func (w *smallWorld) Update(obj *unstructured.Unstructured) error {
	next := obj.DeepCopy()
	k := key(resourceOf(obj.GetKind()), obj.GetNamespace(), obj.GetName())
	old := w.objects[k]
	if old == nil {
		return fmt.Errorf("%s: not found", k)
	}
	if s, ok := old.Object["status"]; ok {
		next.Object["status"] = s
	} else {
		delete(next.Object, "status")
	}
	if !equal(old.Object["spec"], next.Object["spec"]) {
		next.SetGeneration(old.GetGeneration() + 1)
	}
	return w.put(k, next)
}

func (w *smallWorld) UpdateStatus(obj *unstructured.Unstructured) error {
	k := key(resourceOf(obj.GetKind()), obj.GetNamespace(), obj.GetName())
	old := w.objects[k]
	if old == nil {
		return fmt.Errorf("%s: not found", k)
	}
	return w.put(k, withStatus(old, deepCopy(obj.Object["status"]).(map[string]any)))
}

func (w *smallWorld) put(k string, next *unstructured.Unstructured) error {
	if !equal(w.objects[k].Object, next.Object) {
		w.objects[k] = next
		w.changed(next)
	}
	return nil
}

// Apply is not used by the controllers of Kubernetes.
func (w *smallWorld) Apply(obj *unstructured.Unstructured) error {
	return fmt.Errorf("%s: this world has no server-side apply", obj.GetName())
}

func (w *smallWorld) Delete(gr schema.GroupResource, ns, name string) error {
	obj := w.Get(gr, ns, name)
	if obj == nil {
		return fmt.Errorf("%s %s/%s: not found", gr, ns, name)
	}
	delete(w.objects, key(gr, ns, name))
	w.changed(obj)
	for _, o := range w.objects {
		if text(controllerOf(o), "uid") == uidOf(obj) {
			if err := w.Delete(resourceOf(o.GetKind()), o.GetNamespace(), o.GetName()); err != nil {
				return err
			}
		}
	}
	return nil
}

// End is Delete: deletion in this world takes no time.
func (w *smallWorld) End(gr schema.GroupResource, ns, name string) error {
	return w.Delete(gr, ns, name)
}

func (w *smallWorld) Name(base string) string {
	w.seq++
	return fmt.Sprintf("%s%05d", base, w.seq)
}

func (w *smallWorld) Event(obj *unstructured.Unstructured, kind, reason, message string) {
	w.events = append(w.events, fmt.Sprintf("%s %s %s/%s: %s", kind, reason, obj.GetKind(), obj.GetName(), message))
}

func (w *smallWorld) changed(obj *unstructured.Unstructured) {
	gr := resourceOf(obj.GetKind())
	for i, c := range All() {
		for _, watched := range c.Watches() {
			if watched != gr {
				continue
			}
			w.enqueue(work{i, gr, obj.GetNamespace(), obj.GetName()})
			if o := controllerOf(obj); o != nil {
				w.enqueue(work{i, resourceOf(text(o, "kind")), obj.GetNamespace(), text(o, "name")})
			}
		}
	}
}

func (w *smallWorld) enqueue(x work) {
	for _, q := range w.queue {
		if q == x {
			return
		}
	}
	w.queue = append(w.queue, x)
}

// settle reconciles until nothing is left to do at this instant.
func (w *smallWorld) settle() {
	controllers := All()
	for n := 0; len(w.queue) > 0; n++ {
		if n > 200000 {
			w.t.Fatalf("the controllers feed each other without end; next is %+v", w.queue[0])
		}
		x := w.queue[0]
		w.queue = w.queue[1:]
		delete(w.due, x)
		if d := controllers[x.controller].Sync(w, x.gr, x.ns, x.name); d > 0 {
			w.due[x] = w.now.Add(d)
		}
		if w.watch != nil {
			w.watch()
		}
	}
}

// advance lets virtual time pass.
func (w *smallWorld) advance(d time.Duration) {
	end := w.now.Add(d)
	w.settle()
	for {
		var next *time.Time
		for _, t := range w.due {
			if next == nil || t.Before(*next) {
				next = &t
			}
		}
		if next == nil || next.After(end) {
			break
		}
		w.now = *next
		var ready []work
		for x, t := range w.due {
			if !t.After(w.now) {
				ready = append(ready, x)
			}
		}
		sort.Slice(ready, func(i, j int) bool { return fmt.Sprint(ready[i]) < fmt.Sprint(ready[j]) })
		for _, x := range ready {
			delete(w.due, x)
			w.enqueue(x)
		}
		w.settle()
	}
	w.now = end
}

// change edits the spec (or metadata) of a stored object.
func (w *smallWorld) change(kind, ns, name string, f func(o map[string]any)) {
	w.t.Helper()
	o := w.Get(resourceOf(kind), ns, name)
	if o == nil {
		w.t.Fatalf("no %s %s/%s", kind, ns, name)
	}
	next := o.DeepCopy()
	f(next.Object)
	if err := w.Update(next); err != nil {
		w.t.Fatal(err)
	}
}

func (w *smallWorld) dump() string {
	var b strings.Builder
	for _, k := range sortedKeys(w.objects) {
		data, err := json.Marshal(w.objects[k].Object)
		if err != nil {
			w.t.Fatal(err)
		}
		b.WriteString(k + " " + string(data) + "\n")
	}
	b.WriteString(strings.Join(w.events, "\n"))
	return b.String()
}

var _ sim.World = (*smallWorld)(nil)

// status reads a counter of an object's status.
func (w *smallWorld) status(kind, name, field string) int64 {
	w.t.Helper()
	return number(w.Get(resourceOf(kind), "shop", name).Object, 0, "status", field)
}

func (w *smallWorld) hasEvent(part string) bool {
	for _, e := range w.events {
		if strings.Contains(e, part) {
			return true
		}
	}
	return false
}

func setImage(image string) func(o map[string]any) {
	return func(o map[string]any) {
		items(o, "spec", "template", "spec", "containers")[0].(map[string]any)["image"] = image
	}
}
