package twin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/plain"
	"rutter.dev/rutter/runtime/sim"
)

// pageSize is how many objects one request for a list asks for.
const pageSize = 500

// sizeOf is the size of a kind's pages. Namespaces are small, and are waited for by
// all that follows.
func sizeOf(gvr schema.GroupVersionResource) int {
	if gvr.Group == "" && gvr.Resource == "namespaces" {
		return 10 * pageSize
	}
	return pageSize
}

// Fetch implements sim.Backing.
func (l *live) Fetch(p sim.Part) ([]*unstructured.Unstructured, error) {
	l.mu.Lock()
	c := l.coming[p]
	delete(l.coming, p)
	l.mu.Unlock()
	if c == nil {
		return l.get(p)
	}
	f := <-c
	return f.objs, f.err
}

// get fetches a part, and notes what follows from the answer.
func (l *live) get(p sim.Part) ([]*unstructured.Unstructured, error) {
	objs, err := l.fetch(p)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case apierrors.IsForbidden(err):
		l.said.unread(p.GroupResource(), p.Namespace, p.Name, err)
		return nil, err
	case err == nil && p.Resource == "customresourcedefinitions":
		for _, o := range objs {
			group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
			l.guard.keeps(group)
		}
	case apierrors.IsTooManyRequests(err), apierrors.IsInternalError(err), apierrors.IsServiceUnavailable(err), apierrors.IsTimeout(err), apierrors.IsServerTimeout(err):
		return nil, fmt.Errorf("%s: %w: %w", pathOf(p.GroupVersionResource, p.Namespace, p.Name), ErrUnreachable, err)
	}
	return objs, err
}

func (l *live) fetch(p sim.Part) ([]*unstructured.Unstructured, error) {
	if p.Name == "" {
		return l.list(p)
	}
	at := pathOf(p.GroupVersionResource, p.Namespace, p.Name)
	l.count(func(c *Counts) *int { return &c.Gets }, 1)
	data, err := l.do(http.MethodGet, at, nil, asJSON, nil)
	if err != nil {
		return nil, err
	}
	m, err := plain.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s: the answer is no object: %w", at, err)
	}
	return []*unstructured.Unstructured{project(p.GroupVersionResource, m)}, nil
}

// list reads all pages of a list. While one is decoded, the server makes the next.
func (l *live) list(p sim.Part) (out []*unstructured.Unstructured, err error) {
	coming := l.page(p, "")
	defer func() {
		if coming != nil {
			<-coming
		}
	}()
	for first := true; coming != nil; first = false {
		got := <-coming
		coming = nil
		if apierrors.IsResourceExpired(got.err) && !first { // compacted meanwhile: from the beginning
			out, coming = nil, l.page(p, "")
			continue
		}
		if got.err != nil {
			return nil, got.err
		}
		next, early := continues(got.data)
		if next != "" {
			coming = l.page(p, next)
		}
		list, err := l.items(p, got.data, &out)
		if err != nil {
			return nil, err
		}
		if !early && list.GetContinue() != "" {
			coming = l.page(p, list.GetContinue())
		}
	}
	l.count(func(c *Counts) *int { return &c.Objects }, len(out))
	return out, nil
}

type page struct {
	data []byte
	err  error
}

// page asks for one page of a list.
func (l *live) page(p sim.Part, next string) <-chan page {
	q := url.Values{"limit": {strconv.Itoa(sizeOf(p.GroupVersionResource))}}
	if p.Labels != "" {
		q.Set("labelSelector", p.Labels)
	}
	if next != "" {
		q.Set("continue", next)
	}
	l.count(func(c *Counts) *int { return &c.Lists }, 1)
	out := make(chan page, 1)
	go func() {
		data, err := l.do(http.MethodGet, pathOf(p.GroupVersionResource, p.Namespace, ""), q, asJSON, nil)
		out <- page{data, err}
	}()
	return out
}

// items decodes a page and adds its objects to out.
func (l *live) items(p sim.Part, data []byte, out *[]*unstructured.Unstructured) (*unstructured.UnstructuredList, error) {
	at := pathOf(p.GroupVersionResource, p.Namespace, "")
	m, err := decode(p.GroupVersionResource, data)
	if err != nil {
		return nil, fmt.Errorf("%s: the answer is no list: %w", at, err)
	}
	list := &unstructured.UnstructuredList{Object: m}
	items, _ := m["items"].([]any)
	for _, item := range items {
		o, ok := item.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s: the answer is no list of objects", at)
		}
		if o["kind"] == nil {
			o["apiVersion"], o["kind"] = list.GetAPIVersion(), strings.TrimSuffix(list.GetKind(), "List")
		}
		*out = append(*out, project(p.GroupVersionResource, o))
	}
	return list, nil
}

// continues reads where the next page begins from the head of a list, which the
// server writes before the items of its own kinds. early is false where it is
// not there: of custom kinds it comes last.
func continues(list []byte) (next string, early bool) {
	d := json.NewDecoder(bytes.NewReader(list))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return "", false
	}
	for d.More() {
		name, err := d.Token()
		if err != nil || name == "items" {
			return "", false
		}
		if name != "metadata" {
			var skipped json.RawMessage
			if d.Decode(&skipped) != nil {
				return "", false
			}
			continue
		}
		var meta struct {
			Continue string `json:"continue"`
		}
		if d.Decode(&meta) != nil {
			return "", false
		}
		return meta.Continue, true
	}
	return "", false
}

// decode reads a list, and over what project drops of its items.
func decode(gvr schema.GroupVersionResource, data []byte) (map[string]any, error) {
	if sim.Unowned(gvr.GroupResource()) {
		return plain.DecodeLean(data)
	}
	return plain.Decode(data)
}

// project drops of an object what no rehearsal looks at.
func project(gvr schema.GroupVersionResource, m map[string]any) *unstructured.Unstructured {
	if md, ok := m["metadata"].(map[string]any); ok && sim.Unowned(gvr.GroupResource()) {
		delete(md, "managedFields")
	}
	return &unstructured.Unstructured{Object: m}
}
