package sim

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/plain"
)

// objectKey names a stored object.
type objectKey struct {
	gr        schema.GroupResource
	namespace string
	name      string
}

type nsName struct{ namespace, name string }

func (a nsName) compare(b nsName) int {
	return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
}

func (a nsName) less(b nsName) bool { return a.compare(b) < 0 }

// entry is one stored state of an object. It never changes: a write makes a
// new one, so that readers, lists and watches share it without a lock.
type entry struct {
	obj  *unstructured.Unstructured
	rv   uint64
	born bool // the cluster was made with it

	def lazy[*resource] // of a CustomResourceDefinition

	unkept bool // its JSON is made anew each time: of a twin's objects it would take a third of all memory
	once   sync.Once
	data   []byte
	body   int // where in data the fields after kind and apiVersion begin
	err    error
}

// json is the object's JSON, marshalled once however often it is listed.
func (e *entry) json() ([]byte, error) {
	data, _, err := e.typed()
	return data, err
}

// typed is json, and where in it the fields after kind and apiVersion begin.
func (e *entry) typed() (data []byte, body int, err error) {
	if e.unkept {
		return encodeTyped(e.obj.Object)
	}
	e.once.Do(func() { e.data, e.body, e.err = encodeTyped(e.obj.Object) })
	return e.data, e.body, e.err
}

// encodeTyped is an object's JSON with kind and apiVersion first, as the
// server writes it, and where the other fields begin in it.
func encodeTyped(obj map[string]any) (data []byte, body int, err error) {
	rest := make(map[string]any, len(obj))
	for k, v := range obj {
		if k != "kind" && k != "apiVersion" {
			rest[k] = v
		}
	}
	fields, err := plain.Encode(rest)
	if err != nil {
		return nil, 0, err
	}
	data = fmt.Appendf(make([]byte, 0, len(fields)+64), `{"kind":%q,"apiVersion":%q`, obj["kind"], obj["apiVersion"])
	if len(rest) > 0 {
		data = append(data, ',')
	}
	return append(data, fields[1:]...), len(data), nil
}

// table holds the objects of one resource, sorted by namespace and name as
// etcd's keys are.
type table struct {
	items  map[nsName]*entry
	keys   []nsName
	labels labelled
}

// span returns the sorted keys of a namespace, all for "".
func (t *table) span(namespace string) []nsName {
	if namespace == "" {
		return t.keys
	}
	lo := sort.Search(len(t.keys), func(i int) bool { return t.keys[i].namespace >= namespace })
	hi := lo + sort.Search(len(t.keys)-lo, func(i int) bool { return t.keys[lo+i].namespace > namespace })
	return t.keys[lo:hi]
}

func (t *table) set(k nsName, e *entry) {
	prev, ok := t.items[k]
	if !ok {
		i := sort.Search(len(t.keys), func(i int) bool { return !t.keys[i].less(k) })
		t.keys = slices.Insert(t.keys, i, k)
	}
	t.items[k] = e
	t.labels.move(k, prev, e)
}

func (t *table) delete(k nsName) {
	prev, ok := t.items[k]
	if !ok {
		return
	}
	delete(t.items, k)
	t.labels.move(k, prev, nil)
	i := sort.Search(len(t.keys), func(i int) bool { return !t.keys[i].less(k) })
	t.keys = slices.Delete(t.keys, i, i+1)
}

// change is one committed write, as watches and the history see it. prev is
// nil for a creation; next is the last state (with the deletion's
// resourceVersion) for a removal.
type change struct {
	rv      uint64
	key     objectKey
	prev    *entry
	next    *entry
	removed bool
}

// historySize bounds the changes kept for watches that start in the past; an
// older start gets 410 Gone, as from a compacted etcd.
const historySize = 8192

// twinHistory is the same for a twin, which nobody but its own rehearsal watches:
// old states of many pods are most of its memory otherwise.
const twinHistory = 512

// store is the cluster's state. It is guarded by the cluster's lock.
type store struct {
	rv      uint64
	tables  map[schema.GroupResource]*table
	owned   map[string]map[objectKey]bool // owner UID -> dependents
	history []change
	floor   uint64  // changes at or below it are no longer in history
	backed  *backed // nil but for a twin
}

func newStore() *store {
	return &store{tables: map[schema.GroupResource]*table{}, owned: map[string]map[objectKey]bool{}}
}

func (s *store) table(gr schema.GroupResource) *table {
	t := s.tables[gr]
	if t == nil {
		t = &table{items: map[nsName]*entry{}}
		s.tables[gr] = t
	}
	return t
}

// read is the table of a resource for a look at a namespace, all for ""; nil
// where there is none.
func (s *store) read(gr schema.GroupResource, namespace string) *table {
	s.need(gr, namespace, "")
	return s.tables[gr]
}

// size is how many objects are stored.
func (s *store) size() (n int) {
	for _, t := range s.tables {
		n += len(t.keys)
	}
	return n
}

// pick gives what matches of a table, and fetches no more than that.
func (s *store) pick(f filter) []*entry {
	name := f.name()
	selective := f.namespace == "" && name == "" && f.labels != nil && !f.labels.Empty()
	if selective && s.backed != nil && !unasked(f.gr) {
		s.backed.needLabelled(f.gr, f.labels.String())
	} else {
		s.need(f.gr, f.namespace, name)
	}
	return s.tables[f.gr].pick(f)
}

func (s *store) get(k objectKey) *entry {
	s.need(k.gr, k.namespace, k.name)
	t := s.tables[k.gr]
	if t == nil {
		return nil
	}
	return t.items[nsName{k.namespace, k.name}]
}

// put stores obj, which must not be changed afterwards, under the next
// resourceVersion.
func (s *store) put(k objectKey, obj *unstructured.Unstructured) change {
	prev := s.get(k)
	s.rv++
	obj.SetResourceVersion(strconv.FormatUint(s.rv, 10))
	if s.backed != nil {
		was := (*unstructured.Unstructured)(nil)
		if prev != nil {
			was = prev.obj
		}
		s.backed.share(obj, was)
	}
	e := &entry{obj: obj, rv: s.rv, unkept: s.backed != nil}
	s.place(k, prev, e)
	ch := change{rv: s.rv, key: k, prev: prev, next: e}
	s.remember(ch)
	return ch
}

// place stores an entry and keeps the owner index.
func (s *store) place(k objectKey, prev, e *entry) {
	s.table(k.gr).set(nsName{k.namespace, k.name}, e)
	if prev != nil {
		s.unindex(k, prev.obj)
	}
	for _, o := range e.obj.GetOwnerReferences() {
		m := s.owned[string(o.UID)]
		if m == nil {
			m = map[objectKey]bool{}
			s.owned[string(o.UID)] = m
		}
		m[k] = true
	}
}

// remove deletes a stored object under the next resourceVersion.
func (s *store) remove(k objectKey) change {
	prev := s.get(k)
	s.rv++
	s.table(k.gr).delete(nsName{k.namespace, k.name})
	s.unindex(k, prev.obj)
	last := shallow(prev.obj)
	last.SetResourceVersion(strconv.FormatUint(s.rv, 10))
	ch := change{rv: s.rv, key: k, prev: prev, next: &entry{obj: last, rv: s.rv}, removed: true}
	s.remember(ch)
	return ch
}

func (s *store) unindex(k objectKey, obj *unstructured.Unstructured) {
	for _, o := range obj.GetOwnerReferences() {
		if m := s.owned[string(o.UID)]; m != nil {
			delete(m, k)
			if len(m) == 0 {
				delete(s.owned, string(o.UID))
			}
		}
	}
}

func (s *store) remember(ch change) {
	s.history = append(s.history, ch)
	size := historySize
	if s.backed != nil {
		size = twinHistory
	}
	if len(s.history) >= 2*size {
		cut := len(s.history) - size
		s.floor = s.history[cut-1].rv
		s.history = slices.Clone(s.history[cut:])
	}
}

// since returns the changes after rv; false when some are forgotten.
func (s *store) since(rv uint64) ([]change, bool) {
	if rv < s.floor {
		return nil, false
	}
	i := sort.Search(len(s.history), func(i int) bool { return s.history[i].rv > rv })
	return s.history[i:], true
}

// dependents returns the keys of the objects owned by uid, in order.
func (s *store) dependents(uid string) []objectKey {
	out := make([]objectKey, 0, len(s.owned[uid]))
	for k := range s.owned[uid] {
		out = append(out, k)
	}
	slices.SortFunc(out, compareKeys)
	return out
}

func compareKeys(a, b objectKey) int {
	switch {
	case a.gr.Group != b.gr.Group:
		return cmpString(a.gr.Group, b.gr.Group)
	case a.gr.Resource != b.gr.Resource:
		return cmpString(a.gr.Resource, b.gr.Resource)
	case a.namespace != b.namespace:
		return cmpString(a.namespace, b.namespace)
	}
	return cmpString(a.name, b.name)
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// shallow copies an object's top level and its metadata, which is what the
// server itself writes to; the rest is shared.
func shallow(o *unstructured.Unstructured) *unstructured.Unstructured {
	m := make(map[string]any, len(o.Object))
	for k, v := range o.Object {
		m[k] = v
	}
	if meta, ok := o.Object["metadata"].(map[string]any); ok {
		c := make(map[string]any, len(meta)+2)
		for k, v := range meta {
			c[k] = v
		}
		m["metadata"] = c
	}
	return &unstructured.Unstructured{Object: m}
}
