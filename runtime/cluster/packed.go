package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/plain"
)

// Lean lists of the kinds of which a large mesh has many are asked for in protobuf:
// to write ten thousand pods as JSON takes the API server three times as long.

// shaped are those kinds, each with its shape.
var shaped = map[schema.GroupVersionKind]func() (*plain.Shape, error){
	{Version: "v1", Kind: "Pod"}:                        shapeOf[corev1.Pod](),
	{Version: "v1", Kind: "Service"}:                    shapeOf[corev1.Service](),
	{Version: "v1", Kind: "ConfigMap"}:                  shapeOf[corev1.ConfigMap](),
	{Group: "apps", Version: "v1", Kind: "Deployment"}:  shapeOf[appsv1.Deployment](),
	{Group: "apps", Version: "v1", Kind: "DaemonSet"}:   shapeOf[appsv1.DaemonSet](),
	{Group: "apps", Version: "v1", Kind: "StatefulSet"}: shapeOf[appsv1.StatefulSet](),
}

var shapeOfMetadata = shapeOf[metav1.PartialObjectMetadata]()

func shapeOf[T any]() func() (*plain.Shape, error) {
	return sync.OnceValues(func() (*plain.Shape, error) { return plain.ShapeOf(reflect.TypeFor[T]()) })
}

const (
	jsonType     = "application/json"
	protobufType = "application/vnd.kubernetes.protobuf"
	asMetadata   = ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
)

// packing is how the pages of a list are asked for.
type packing struct {
	shape  *plain.Shape // nil for JSON
	accept string
}

// packingOf is JSON for what is not lean, or of a kind without a shape.
func packingOf(res Resource, o ListOptions) (packing, error) {
	of, as := shaped[res.GVK], ""
	if o.MetadataOnly {
		of, as = shapeOfMetadata, asMetadata
	}
	if !o.Lean || of == nil {
		return packing{}, nil
	}
	s, err := of()
	if err != nil {
		return packing{}, fmt.Errorf("%s: %w", res, err)
	}
	return packing{s, protobufType + as + "," + jsonType + as}, nil
}

// fetched is a page as it came. What is in protobuf is not decoded yet; its bytes
// are gone once it is, or dropped.
type fetched struct {
	packed plain.PackedList
	raw    *bytes.Buffer // nil if it was JSON
	page   *page         // of JSON
}

func (f *fetched) drop() {
	if f != nil && f.raw != nil {
		keep(f.raw)
		f.raw = nil
	}
}

// fetch asks for a page and reads it.
func (c *Client) fetch(ctx context.Context, res Resource, ns string, o ListOptions, opts metav1.ListOptions, accept string) (*fetched, error) {
	r := c.rawGet(res, ns, "").VersionedParams(&opts, metav1.ParameterCodec)
	if accept != "" {
		r.SetHeader("Accept", accept)
	}
	b, err := bufferOf(ctx, r)
	if err != nil {
		return nil, err
	}
	f := &fetched{}
	switch packed, ok := plain.Unpack(b.Bytes()); {
	case ok:
		f.packed, f.raw = packed, b
		return f, nil
	case plain.IsProtobuf(b.Bytes()):
		err = errors.New("the answer is no list")
	default:
		f.page, err = decodePage(b.Bytes(), res, o)
	}
	keep(b)
	return f, err
}

// errNewer is the answer of a server that has fields which are not known here.
var errNewer = errors.New("not as its shape says")

// unpack decodes a page.
func (f *fetched) unpack(res Resource, s *plain.Shape) (*page, error) {
	if f.page != nil {
		return f.page, nil
	}
	defer f.drop()
	items, ok := s.Objects(f.packed)
	if !ok {
		return nil, errNewer
	}
	p := &page{items: make([]Object, len(items)), next: f.packed.Continue, rv: f.packed.ResourceVersion}
	version, kind := res.GVK.ToAPIVersionAndKind()
	for i, m := range items {
		m["apiVersion"], m["kind"] = version, kind
		p.items[i].Object = m
	}
	return p, nil
}

// awaited is a page that is being fetched, while the one before it is looked at.
type awaited struct {
	cancel context.CancelFunc
	done   chan struct{}
	page   *fetched
	err    error
}

func (l *lister) ahead(ctx context.Context, opts metav1.ListOptions) *awaited {
	ctx, cancel := context.WithCancel(ctx)
	a := &awaited{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.page, a.err = l.c.fetchPage(ctx, l.res, l.o, opts, l.as.accept)
	}()
	return a
}

// get waits for the page.
func (a *awaited) get() (*fetched, error) {
	<-a.done
	a.cancel()
	return a.page, a.err
}

// drop ends the request of a page that nobody looks at.
func (a *awaited) drop() {
	if a == nil {
		return
	}
	a.cancel()
	<-a.done
	a.page.drop()
}
