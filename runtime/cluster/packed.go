package cluster

import (
	"bufio"
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
// to write ten thousand pods as JSON takes the API server three times as long. And
// they are asked for whole, where the server gives that from its memory: it reads
// pages from its store, which takes it another five times as long.

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

// unpack decodes a page.
func (f *fetched) unpack(res Resource, s *plain.Shape) (*page, error) {
	if f.page != nil {
		return f.page, nil
	}
	defer f.drop()
	items, ok := s.Objects(f.packed)
	if !ok {
		return nil, plain.ErrShape
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

// wholeFrom is the minor version of Kubernetes from which lists that ask for no
// certain version, nor for pages, are answered from memory and object by object,
// without a way to switch it off (KEP-2340 ConsistentListFromCache and KEP-5116
// StreamingCollectionEncodingToProtobuf are stable in 1.34).
const wholeFrom = 34

// Whether the server is such a one.
const (
	notAsked int32 = iota
	givesWhole
	givesPages
)

// givesWhole asks the server, once, whether large lists are better taken whole.
func (c *Client) givesWhole(ctx context.Context) bool {
	if c.largest.Load() == notAsked {
		v, err := c.Version(ctx)
		switch {
		case err != nil:
			return false // the list goes on in pages, and says what is wrong
		case v.Major == 1 && v.Minor >= wholeFrom:
			c.largest.Store(givesWhole)
		default:
			c.largest.Store(givesPages)
		}
	}
	return c.largest.Load() == givesWhole
}

// errWhole asks for a list to be taken whole, whose first page showed that there is more.
var errWhole = errors.New("large")

// mayBeWhole reports whether the list could be taken whole, and was not tried to be.
func (l *lister) mayBeWhole() bool {
	return l.as.shape != nil && !l.tried && l.o.MaxItems == 0 && l.o.PageSize == 0
}

// whole takes the list in one answer and looks at each object as it comes. It is
// false where the list has to be gone through in pages after all, which then say
// what is wrong: the answer is not as the shape says, broke off, or none came. What
// was given is not given again.
func (l *lister) whole(ctx context.Context, each func(*Object) error) (done bool, stop error) {
	l.tried = true
	opts := metav1.ListOptions{LabelSelector: l.o.Labels, FieldSelector: l.o.Fields}
	version, kind := l.res.GVK.ToAPIVersionAndKind()
	failed := l.c.asking(ctx, l.res, l.o, func(ctx context.Context, ns string) error {
		body, err := l.c.rawGet(l.res, ns, "").VersionedParams(&opts, metav1.ParameterCodec).SetHeader("Accept", l.as.accept).Stream(ctx)
		if err != nil {
			return err
		}
		defer body.Close() //nolint:errcheck // it was read to its end, or the error is that of reading
		return l.as.shape.Stream(bufio.NewReaderSize(body, 64<<10), func(m map[string]any) error {
			m["apiVersion"], m["kind"] = version, kind
			done, stop = l.give(&page{items: []Object{{Object: m}}, next: "more"}, each)
			return stop
		})
	})
	return done || failed == nil, stop
}
