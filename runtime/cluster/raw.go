package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"rutter.dev/rutter/runtime/plain"
)

// Reads and patches go past the dynamic client's decoder, which scans every answer five
// times on its way to a map: for the kind, for whether it is a list, and item
// by item again. A census of a large mesh spends most of its time there.

// readObject reads one object.
func (c *Client) readObject(ctx context.Context, res Resource, ns, name string) (*Object, error) {
	var o *Object
	err := read(ctx, c.rawGet(res, ns, name), func(raw []byte) (err error) {
		o, err = decodeObject(raw)
		return err
	})
	return o, err
}

func decodeObject(raw []byte) (*Object, error) {
	m, err := plain.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("the answer is no JSON object: %w", err)
	}
	return &Object{Object: m}, nil
}

// DecodeObject decodes an object's JSON: what its UnmarshalJSON does, several
// times quicker. It refuses what has no kind.
func DecodeObject(raw []byte) (*Object, error) {
	m, err := plain.Decode(raw)
	if err != nil {
		return nil, err
	}
	o := &Object{Object: m}
	if o.GetKind() == "" {
		return nil, errors.New("an object without a kind")
	}
	return o, nil
}

// patchObject sends a patch, once, and gives the object as it is after it.
func (c *Client) patchObject(ctx context.Context, ref Ref, pt types.PatchType, patch []byte, opts metav1.PatchOptions, sub string) (*Object, error) {
	_, res, err := c.resourceOf(ctx, ref)
	if err != nil {
		return nil, err
	}
	ns := ref.Namespace
	if !res.Namespaced {
		ns = ""
	}
	if ref.Name == "" {
		return nil, errors.New("name is required")
	}
	if err := segments(ns, ref.Name); err != nil {
		return nil, err
	}
	r := onPath(c.disc.RESTClient().Patch(pt), res, ns, ref.Name, subresource(sub)...).Body(patch)
	raw, err := bodyOf(ctx, r.VersionedParams(&opts, metav1.ParameterCodec))
	if err != nil {
		return nil, err
	}
	return decodeObject(raw)
}

// decodePage decodes one page of a list in JSON.
func decodePage(raw []byte, res Resource, o ListOptions) (*page, error) {
	decode := plain.Decode
	if o.Lean {
		decode = plain.DecodeLean
	}
	list, err := decode(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: the answer is no list: %w", res, err)
	}
	items, ok := list["items"].([]any)
	if !ok && list["items"] != nil {
		return nil, fmt.Errorf("%s: the answer is no list: its items are none", res)
	}
	md := (&unstructured.UnstructuredList{Object: list})
	p := &page{items: make([]Object, len(items)), next: md.GetContinue(), rv: md.GetResourceVersion()}
	version, kind := md.GetAPIVersion(), strings.TrimSuffix(md.GetKind(), "List")
	for i, item := range items {
		m, ok := item.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s: the answer is no list of objects: item %d is %T", res, i, item)
		}
		p.items[i].Object = m
		// Items of built-in kinds do not repeat what the list says of them all.
		if m["kind"] == nil {
			m["apiVersion"], m["kind"] = version, kind
		}
		if o.MetadataOnly { // they say what they are of, not how much of it
			m["apiVersion"], m["kind"] = res.GVK.ToAPIVersionAndKind()
		}
	}
	return p, nil
}

// buffers hold answers while they are decoded: a page of pods is some megabytes,
// and what is decoded keeps none of its bytes.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// mostKept is the size from which a buffer is not kept.
const mostKept = 8 << 20

// read sends a read and gives decode the body, which is gone after it. An error
// keeps what the server said.
func read(ctx context.Context, r *rest.Request, decode func(raw []byte) error) error {
	b, err := bufferOf(ctx, r)
	if err != nil {
		return err
	}
	defer keep(b)
	return decode(b.Bytes())
}

// bufferOf sends a read and gives the body, for keep to be called when it is done with.
func bufferOf(ctx context.Context, r *rest.Request) (*bytes.Buffer, error) {
	body, err := r.Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close() //nolint:errcheck // it was read to its end, or the error is that of reading
	b, _ := buffers.Get().(*bytes.Buffer)
	b.Reset()
	if _, err := b.ReadFrom(body); err != nil {
		keep(b)
		return nil, err
	}
	return b, nil
}

// keep puts a buffer by for the next answer.
func keep(b *bytes.Buffer) {
	if b.Cap() <= mostKept {
		buffers.Put(b)
	}
}

// bodyOf sends a request and gives the body; an error keeps what the server said.
func bodyOf(ctx context.Context, r *rest.Request) ([]byte, error) {
	res := r.Do(ctx)
	if err := res.Error(); err != nil {
		return nil, err
	}
	return res.Raw()
}

func (c *Client) rawGet(res Resource, ns, name string) *rest.Request {
	return onPath(c.disc.RESTClient().Get(), res, ns, name)
}

func onPath(r *rest.Request, res Resource, ns, name string, sub ...string) *rest.Request {
	path := root(res.GVR.GroupVersion())
	if ns != "" {
		path = append(path, "namespaces", ns)
	}
	path = append(path, res.GVR.Resource)
	if name != "" {
		path = append(path, name)
	}
	return r.AbsPath(append(path, sub...)...)
}

func root(gv schema.GroupVersion) []string {
	if gv.Group == "" {
		return []string{"/api", gv.Version}
	}
	return []string{"/apis", gv.Group, gv.Version}
}

// segments refuses names that would lead to another path of the API.
func segments(names ...string) error {
	for _, n := range names {
		if msgs := rest.IsValidPathSegmentName(n); len(msgs) > 0 {
			return fmt.Errorf("%q is no name of an object or namespace: it %s", n, strings.Join(msgs, ", "))
		}
	}
	return nil
}
