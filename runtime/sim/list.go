package sim

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var listOptionsKind = schema.GroupKind{Group: "meta.k8s.io", Kind: "ListOptions"}

func sendInitialErrors() field.ErrorList {
	return field.ErrorList{field.Forbidden(field.NewPath("resourceVersionMatch"), "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")}
}

// filter is what a list or watch selects.
type filter struct {
	gr        schema.GroupResource
	namespace string
	labels    labels.Selector // nil for all
	fields    fields.Selector // nil for all
}

func (f filter) matches(e *entry) bool {
	if f.labels != nil && !f.labels.Matches(labels.Set(e.obj.GetLabels())) {
		return false
	}
	return f.fields == nil || f.fields.Matches(fieldSet{e.obj})
}

// fieldSet reads an object's fields for a field selector.
type fieldSet struct{ obj *unstructured.Unstructured }

// Has implements fields.Fields.
func (s fieldSet) Has(name string) bool { return s.Get(name) != "" }

// Get implements fields.Fields.
func (s fieldSet) Get(name string) string {
	if name == "status.successful" {
		name = "status.succeeded"
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
// metadata.name and metadata.namespace (field label conversions of the API
// server's scheme).
var selectable = map[string]string{
	"pods":        " spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork status.phase status.podIP status.nominatedNodeName ",
	"events":      " involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid involvedObject.apiVersion involvedObject.resourceVersion involvedObject.fieldPath reason reportingComponent source type ",
	"secrets":     " type ",
	"namespaces":  " status.phase ",
	"nodes":       " spec.unschedulable ",
	"replicasets": " status.replicas ",
	"jobs":        " status.successful ",
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
		ok := r.Field == "metadata.name" || (r.Field == "metadata.namespace" && res.namespaced)
		if res.crd == nil {
			ok = ok || strings.Contains(selectable[res.plural], " "+r.Field+" ")
		} else if v := res.crd.versions[version]; v != nil {
			for _, f := range v.def.SelectableFields {
				ok = ok || strings.TrimPrefix(f.JSONPath, ".") == r.Field
			}
		}
		if !ok {
			gvr := schema.GroupVersionResource{Group: res.group, Version: version, Resource: res.plural}
			return nil, apierrors.NewBadRequest(fmt.Sprintf("Unable to find %q that match label selector %q, field selector %q: field label not supported: %s", gvr.String(), "", text, r.Field))
		}
	}
	return sel, nil
}

// selectEntries returns the matching entries in order.
func (c *Cluster) selectEntries(f filter) []*entry {
	t := c.st.tables[f.gr]
	if t == nil {
		return nil
	}
	if f.fields != nil {
		if name, ok := f.fields.RequiresExactMatch("metadata.name"); ok && f.namespace != "" {
			if e := t.items[nsName{f.namespace, name}]; e != nil && f.matches(e) {
				return []*entry{e}
			}
			return nil
		}
	}
	keys := t.span(f.namespace)
	out := make([]*entry, 0, len(keys))
	for _, k := range keys {
		if e := t.items[k]; f.matches(e) {
			out = append(out, e)
		}
	}
	return out
}

// page is a list that was begun with a limit: the rest of it is answered from
// the same state.
type page struct {
	id      string
	rv      uint64
	entries []*entry
}

// maxPages bounds the begun lists that are remembered; an older continue token
// has expired.
const maxPages = 64

// continuation is what a continue token holds.
type continuation struct {
	ID     string `json:"id"`
	Offset int    `json:"offset"`
}

// listing is the answer to a list request, before it is written.
type listing struct {
	rv        uint64
	entries   []*entry
	token     string
	remaining int
}

func (c *Cluster) list(q *query) (listing, error) {
	f, err := q.filter()
	if err != nil {
		return listing{}, err
	}
	o := q.list
	if o.Continue != "" {
		return c.nextPage(o.Continue, int(o.Limit))
	}
	if err := c.checkListVersion(o); err != nil {
		return listing{}, err
	}
	all := listing{rv: c.st.rv, entries: c.selectEntries(f)}
	if o.Limit <= 0 || int(o.Limit) >= len(all.entries) {
		return all, nil
	}
	c.docs.pageNo++
	p := &page{id: strconv.Itoa(c.docs.pageNo), rv: c.st.rv, entries: all.entries}
	c.docs.pages = append(c.docs.pages, p)
	if len(c.docs.pages) > maxPages {
		c.docs.pages = c.docs.pages[1:]
	}
	return p.cut(0, int(o.Limit))
}

func (c *Cluster) checkListVersion(o metav1.ListOptions) error {
	if o.ResourceVersion == "" || o.ResourceVersion == "0" {
		return nil
	}
	rv, err := strconv.ParseUint(o.ResourceVersion, 10, 64)
	if err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("invalid resource version %q: %v", o.ResourceVersion, err))
	}
	if rv > c.st.rv {
		return apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", rv, c.st.rv), 1)
	}
	if o.ResourceVersionMatch == metav1.ResourceVersionMatchExact && rv != c.st.rv {
		return apierrors.NewResourceExpired("The provided resource version is too old")
	}
	return nil
}

func (c *Cluster) nextPage(token string, limit int) (listing, error) {
	b, err := base64.RawURLEncoding.DecodeString(token)
	var at continuation
	if err == nil {
		err = json.Unmarshal(b, &at)
	}
	if err != nil {
		return listing{}, apierrors.NewBadRequest(fmt.Sprintf("continue key is not valid: %v", err))
	}
	for _, p := range c.docs.pages {
		if p.id == at.ID && at.Offset <= len(p.entries) && at.Offset >= 0 {
			return p.cut(at.Offset, limit)
		}
	}
	return listing{}, apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.")
}

func (p *page) cut(from, limit int) (listing, error) {
	end := len(p.entries)
	if limit > 0 && from+limit < end {
		end = from + limit
	}
	l := listing{rv: p.rv, entries: p.entries[from:end], remaining: len(p.entries) - end}
	if l.remaining > 0 {
		b, err := json.Marshal(continuation{ID: p.id, Offset: end})
		if err != nil {
			return l, apierrors.NewInternalError(err)
		}
		l.token = base64.RawURLEncoding.EncodeToString(b)
	}
	return l, nil
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
	fmt.Fprintf(&b, `{"kind":%q,"apiVersion":%q,"metadata":%s,"items":[`, kind, apiVersion, head)
	for i, e := range l.entries {
		data, err := q.render(c, e)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(data)
	}
	b.WriteString("]}\n")
	return b.Bytes(), nil
}
