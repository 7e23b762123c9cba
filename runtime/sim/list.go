package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// filter is what a list or watch selects.
type filter struct {
	gr        schema.GroupResource
	namespace string
	labels    labels.Selector // nil for all
	fields    fields.Selector // nil for all
}

func (f filter) matches(e *entry) bool {
	if f.labels != nil && !f.labels.Matches(labelSet(metaMap(e.obj, "labels"))) {
		return false
	}
	return f.fields == nil || f.fields.Matches(fieldSet{e.obj})
}

// labelSet reads an object's labels where they are.
type labelSet map[string]any

// Has implements labels.Labels.
func (s labelSet) Has(name string) bool {
	_, ok := s[name]
	return ok
}

// Get implements labels.Labels.
func (s labelSet) Get(name string) string {
	v, _ := s.Lookup(name)
	return v
}

// Lookup implements labels.Labels.
func (s labelSet) Lookup(name string) (string, bool) {
	v, ok := s[name]
	if !ok {
		return "", false
	}
	text, _ := v.(string)
	return text, true
}

// metaMap is a map of an object's metadata as it is stored.
func metaMap(o *unstructured.Unstructured, field string) map[string]any {
	meta, _ := o.Object["metadata"].(map[string]any)
	m, _ := meta[field].(map[string]any)
	return m
}

// fieldSet reads an object's fields for a field selector.
type fieldSet struct{ obj *unstructured.Unstructured }

// Has implements fields.Fields.
func (s fieldSet) Has(name string) bool { return s.Get(name) != "" }

// Get implements fields.Fields.
func (s fieldSet) Get(name string) string {
	switch name {
	case "status.successful":
		name = "status.succeeded"
	case "source":
		name = "source.component"
	}
	var v any = s.obj.Object
	for p := range strings.SplitSeq(name, ".") {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	if v == nil {
		switch name {
		case "spec.unschedulable", "spec.hostNetwork":
			return "false"
		}
		return ""
	}
	return fmt.Sprint(v)
}

// selectable are the fields that field selectors may name beside
// metadata.name and metadata.namespace, of the kinds that have conversions of
// field labels of their own (pkg/apis of the API server).
var selectable = map[string]string{
	"pods":                   " spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork status.phase status.podIP status.podIPs status.nominatedNodeName ",
	"services":               " spec.clusterIP spec.type ",
	"events":                 " involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid involvedObject.apiVersion involvedObject.resourceVersion involvedObject.fieldPath reason reportingComponent source type ",
	"secrets":                " type ",
	"namespaces":             " status.phase ",
	"nodes":                  " spec.unschedulable ",
	"replicationcontrollers": " status.replicas ",
	"jobs.batch":             " status.successful ",
	"events.events.k8s.io":   " regarding.kind regarding.namespace regarding.name regarding.uid regarding.apiVersion regarding.resourceVersion regarding.fieldPath reason reportingController type ",
}

// selects refuses a field that the resource's field selectors may not name, in
// the words of the server.
func (r *resource) selects(version, name string) error {
	own, special := selectable[r.gr().String()]
	common := name == "metadata.name" || name == "metadata.namespace"
	switch {
	case r.crd != nil:
		if v := r.crd.versions[version]; v != nil {
			for _, f := range v.def.SelectableFields {
				common = common || strings.TrimPrefix(f.JSONPath, ".") == name
			}
		}
		if !common || name == "metadata.namespace" && !r.namespaced {
			return fmt.Errorf("field label not supported: %s", name)
		}
	case !special:
		if !common {
			return fmt.Errorf("%q is not a known field selector: only %q, %q", name, "metadata.name", "metadata.namespace")
		}
	case strings.Contains(own, " "+name+" "), name == "metadata.name", common && r.namespaced:
	case r.plural == "jobs":
		return fmt.Errorf("field label %q not supported for Job", name)
	default:
		return fmt.Errorf("field label not supported: %s", name)
	}
	return nil
}

func parseFields(res *resource, version, text string) (fields.Selector, error) {
	if text == "" {
		return nil, nil
	}
	sel, err := fields.ParseSelector(text)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	for _, r := range sel.Requirements() {
		if err := res.selects(version, r.Field); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	}
	return sel, nil
}

// selectEntries returns the matching entries in order.
func (c *Cluster) selectEntries(f filter) []*entry {
	return c.st.read(f.gr, f.namespace).pick(f)
}

// name is the one name that matches, "" where others may.
func (f filter) name() string {
	if f.fields == nil {
		return ""
	}
	name, _ := f.fields.RequiresExactMatch("metadata.name")
	return name
}

// pick is the entries that match, in order.
func (t *table) pick(f filter) []*entry {
	if t == nil {
		return nil
	}
	if name := f.name(); name != "" {
		// Without a namespace it is found at once where its kind has none.
		if e := t.items[nsName{f.namespace, name}]; e != nil && f.matches(e) {
			return []*entry{e}
		}
		if f.namespace != "" {
			return nil
		}
	}
	keys := t.among(f)
	out := make([]*entry, 0, len(keys))
	for _, k := range keys {
		if e := t.items[k]; f.matches(e) {
			out = append(out, e)
		}
	}
	return out
}

// listing is the answer to a list request, before it is written.
type listing struct {
	rv        uint64
	entries   []*entry
	token     string
	remaining int
}

// write renders the list from its entries' cached JSON.
func (l listing) write(c *Cluster, q *query) ([]byte, error) {
	if q.format == formatTable {
		return q.table(c, l)
	}
	var b bytes.Buffer
	kind, apiVersion := q.res.listKind(), q.res.gvk(q.version).GroupVersion().String()
	if q.format == formatPartial {
		kind, apiVersion = "PartialObjectMetadataList", "meta.k8s.io/v1"
	}
	meta := map[string]any{"resourceVersion": strconv.FormatUint(l.rv, 10)}
	if q.res.crd != nil && q.format == formatObject {
		meta["continue"] = "" // the list of an unstructured kind always has one
	}
	if l.token != "" {
		meta["continue"] = l.token
		if q.list.LabelSelector == "" && q.list.FieldSelector == "" {
			meta["remainingItemCount"] = l.remaining
		}
	}
	head, err := json.Marshal(meta)
	if err != nil {
		return nil, err
	}
	items, size := make([][2][]byte, len(l.entries)), 0
	for i, e := range l.entries {
		if items[i], err = q.item(c, e); err != nil {
			return nil, err
		}
		size += len(items[i][0]) + len(items[i][1]) + 1
	}
	b.Grow(size + len(head) + len(kind) + len(apiVersion) + 64) // once: lists are large
	fmt.Fprintf(&b, `{"kind":%q,"apiVersion":%q,"metadata":%s,"items":[`, kind, apiVersion, head)
	for i, data := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(data[0])
		b.Write(data[1])
	}
	b.WriteString("]}\n")
	return b.Bytes(), nil
}

// item is an entry as a list shows it, in two parts. The items of a typed list
// do not repeat their kind.
func (q *query) item(c *Cluster, e *entry) (parts [2][]byte, err error) {
	if q.format != formatObject || q.res.crd != nil {
		parts[0], err = q.render(c, e)
		return parts, err
	}
	data, body := []byte(nil), 0
	if e.obj.GetAPIVersion() == q.res.gvk(q.version).GroupVersion().String() {
		data, body, err = e.typed()
	} else {
		var out *unstructured.Unstructured
		if out, err = c.convert(q.res, e.obj, q.version); err == nil {
			data, body, err = encodeTyped(out.Object)
		}
	}
	if err != nil {
		return parts, err
	}
	return [2][]byte{{'{'}, data[body:]}, nil
}

// Look gives the stored objects that match selectors, in order, as a list request
// would, without writing them out. They are shared, and not to be changed. ok is
// false where only a request can answer: for another version of the API than the
// stored one, with selectors that are refused, and for what may not be read.
func (c *Cluster) Look(gvr schema.GroupVersionResource, namespace, labelSelector, fieldSelector string) (out []*unstructured.Unstructured, ok bool) {
	if sel, err := fields.ParseSelector(fieldSelector); err == nil && (labelSelector == "" || namespace != "") {
		c.anticipate(gvr.GroupResource(), namespace, filter{fields: sel}.name())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	res := c.reg.byName[gvr.GroupResource()]
	if res == nil || res.createOnly || res.storage != gvr.Version || !res.namespaced && namespace != "" {
		return nil, false
	}
	f := filter{gr: res.gr(), namespace: namespace}
	var err error
	if labelSelector != "" {
		if f.labels, err = labels.Parse(labelSelector); err != nil {
			return nil, false
		}
	}
	if f.fields, err = parseFields(res, gvr.Version, fieldSelector); err != nil {
		return nil, false
	}
	entries := c.st.pick(f)
	if b := c.st.backed; b != nil && (b.err != nil || b.refusal(f.gr, namespace, f.name()) != nil) {
		return nil, false
	}
	out = make([]*unstructured.Unstructured, len(entries))
	for i, e := range entries {
		if e.obj.GroupVersionKind() != res.gvk(gvr.Version) {
			return nil, false
		}
		out[i] = e.obj
	}
	return out, true
}
