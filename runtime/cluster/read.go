package cluster

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"golang.org/x/sync/errgroup"

	"rutter.dev/rutter/runtime/plain"
)

const defaultPage = 500

// Get implements Reader.
func (c *Client) Get(ctx context.Context, ref Ref) (*Object, error) {
	if ref.Name == "" {
		return nil, &RequestError{Subject: ref.String(), Kind: ErrInvalid, Message: "a name is needed to read one object"}
	}
	_, res, err := c.resourceOf(ctx, ref)
	if err != nil {
		return nil, err
	}
	ns := ref.Namespace
	if !res.Namespaced {
		ns = ""
	}
	if err := segments(ns, ref.Name); err != nil {
		return nil, &RequestError{Subject: ref.String(), Kind: ErrInvalid, Message: err.Error()}
	}
	if o := c.peek(res, ns, ref.Name); o != nil && ctx.Err() == nil {
		return o, nil
	}
	rctx, x, cancel := c.begin(ctx)
	defer cancel()
	o, err := c.readObject(rctx, res, ns, ref.Name)
	if err != nil {
		return nil, c.request(ctx, ref.String(), ref, x).mapError(err)
	}
	return o, nil
}

// page is one answer to a list request.
type page struct {
	items []Object
	next  string
	rv    string
}

// List implements Reader. A continue token that expired during the listing is
// replaced by the server's newer one: objects that changed in between may then
// be of two moments, but none is given twice.
func (c *Client) List(ctx context.Context, res Resource, o ListOptions, each func(*Object) error) error {
	if done, err := c.look(ctx, res, o, each); done {
		return err
	}
	as, err := packingOf(res, o)
	if err != nil {
		return err
	}
	l := lister{c: c, res: res, o: o, as: as, seen: map[string]bool{}}
	return l.run(ctx, each)
}

type lister struct {
	c    *Client
	res  Resource
	o    ListOptions
	as   packing
	seen map[string]bool // given already; kept only once there is a second page
	n    int

	tried bool // to take the list whole
}

func (l *lister) run(ctx context.Context, each func(*Object) error) error {
	opts := metav1.ListOptions{LabelSelector: l.o.Labels, FieldSelector: l.o.Fields, Limit: l.o.PageSize}
	if opts.Limit <= 0 {
		opts.Limit = defaultPage
	}
	if l.o.MaxItems > 0 {
		opts.Limit = min(opts.Limit, int64(l.o.MaxItems))
	}
	if l.mayBeWhole() && l.c.largest.Load() == givesWhole {
		if done, err := l.whole(ctx, each); done {
			return err
		}
	}
	var next *awaited
	defer func() { next.drop() }()
	for restarts := 0; ; {
		p, err := l.page(ctx, opts, &next)
		if errors.Is(err, errWhole) {
			if done, err := l.whole(ctx, each); done {
				return err
			}
			continue
		}
		if token, expired := expiredToken(err); expired && restarts < 3 {
			restarts++
			opts.Continue = token // "" begins again; what was given is skipped
			continue
		}
		if err != nil {
			return err
		}
		if done, err := l.give(p, each); done || err != nil {
			return err
		}
		if p.next == "" {
			return nil
		}
		opts.Continue = p.next
	}
}

// page gives the page that is asked for in next, or asks for it; and asks for the
// one after it before it decodes, where it can tell which that is.
func (l *lister) page(ctx context.Context, opts metav1.ListOptions, next **awaited) (*page, error) {
	now := *next
	*next = nil
	if l.as.shape == nil {
		return l.c.listPage(ctx, l.res, l.o, opts)
	}
	var f *fetched
	var err error
	if now != nil {
		f, err = now.get()
	} else {
		f, err = l.c.fetchPage(ctx, l.res, l.o, opts, l.as.accept)
	}
	if err != nil {
		return nil, err
	}
	if f.packed.Continue != "" && l.mayBeWhole() && l.c.givesWhole(ctx) {
		f.drop()
		return nil, errWhole
	}
	if f.packed.Continue != "" && l.o.MaxItems == 0 {
		after := opts
		after.Continue = f.packed.Continue
		*next = l.ahead(ctx, after)
	}
	p, err := f.unpack(l.res, l.as.shape)
	if errors.Is(err, plain.ErrShape) {
		(*next).drop()
		*next, l.as = nil, packing{}
		return l.c.listPage(ctx, l.res, l.o, opts)
	}
	return p, err
}

// give calls each for a page's objects. It reports whether MaxItems is reached.
func (l *lister) give(p *page, each func(*Object) error) (bool, error) {
	track := p.next != "" || len(l.seen) > 0
	for i := range p.items {
		o := &p.items[i]
		if track {
			key := o.GetNamespace() + "/" + o.GetName()
			if l.seen[key] {
				continue
			}
			l.seen[key] = true
		}
		if err := each(o); err != nil {
			return true, err
		}
		if l.n++; l.o.MaxItems > 0 && l.n >= l.o.MaxItems {
			return true, nil
		}
	}
	return false, nil
}

// expiredToken recognises 410 Expired in the middle of a list, with the token
// by which the server lets it go on (k8s.io/apimachinery api/errors
// NewResourceExpired; apiserver sets ListMeta.Continue).
func expiredToken(err error) (string, bool) {
	if err == nil || !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
		return "", false
	}
	var st apierrors.APIStatus
	if errors.As(err, &st) {
		return st.Status().Continue, true
	}
	return "", true
}

// listPage reads one page as JSON, or metadata only.
func (c *Client) listPage(ctx context.Context, res Resource, o ListOptions, opts metav1.ListOptions) (*page, error) {
	if !o.MetadataOnly {
		f, err := c.fetchPage(ctx, res, o, opts, "")
		if err != nil {
			return nil, err
		}
		return f.page, nil
	}
	var p *page
	err := c.asking(ctx, res, o, func(ctx context.Context, ns string) (err error) {
		p, err = c.metadataPage(ctx, res, ns, opts)
		return err
	})
	return p, err
}

// fetchPage asks for one page.
func (c *Client) fetchPage(ctx context.Context, res Resource, o ListOptions, opts metav1.ListOptions, accept string) (*fetched, error) {
	var f *fetched
	err := c.asking(ctx, res, o, func(ctx context.Context, ns string) (err error) {
		f, err = c.fetch(ctx, res, ns, o, opts, accept)
		return err
	})
	return f, err
}

// asking makes one request of a list, with its time limit, and says what its error
// means.
func (c *Client) asking(ctx context.Context, res Resource, o ListOptions, ask func(ctx context.Context, ns string) error) error {
	ns := o.Namespace
	if !res.Namespaced {
		ns = ""
	}
	if err := segments(ns); err != nil {
		return &RequestError{Subject: res.String(), Kind: ErrInvalid, Message: err.Error()}
	}
	rctx, x, cancel := c.begin(ctx)
	defer cancel()
	err := ask(rctx, ns)
	if err == nil {
		return nil
	}
	subject := res.String()
	if ns != "" {
		subject += " in " + ns
	}
	return c.request(ctx, subject, res.ResourceRef(ns, ""), x).mapError(err)
}

func (c *Client) metadataPage(ctx context.Context, res Resource, ns string, opts metav1.ListOptions) (*page, error) {
	l, err := c.meta.Resource(res.GVR).Namespace(ns).List(ctx, opts)
	if err != nil {
		return nil, err
	}
	p := &page{items: make([]Object, 0, len(l.Items)), next: l.Continue, rv: l.ResourceVersion}
	for i := range l.Items {
		m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&l.Items[i])
		if err != nil {
			return nil, err
		}
		u := Object{Object: m}
		u.SetGroupVersionKind(res.GVK)
		p.items = append(p.items, u)
	}
	return p, nil
}

// CanI implements Reader. The questions are asked in parallel.
func (c *Client) CanI(ctx context.Context, q ...Access) ([]bool, error) {
	out := make([]bool, len(q))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(defaultMaxInFlight)
	for i := range q {
		g.Go(func() error {
			ok, err := c.canOne(gctx, q[i])
			out[i] = ok
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return out, nil
}

func (c *Client) canOne(ctx context.Context, q Access) (bool, error) {
	attrs := map[string]any{}
	for k, v := range map[string]string{
		"verb": q.Verb, "group": q.Group, "resource": q.Resource,
		"subresource": q.Subresource, "namespace": q.Namespace, "name": q.Name,
	} {
		if v != "" {
			attrs[k] = v
		}
	}
	review := &Object{Object: map[string]any{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
		"metadata": map[string]any{},
		"spec":     map[string]any{"resourceAttributes": attrs},
	}}
	rctx, x, cancel := c.begin(ctx)
	defer cancel()
	gvr := schema.GroupVersionResource{Group: "authorization.k8s.io", Version: "v1", Resource: "selfsubjectaccessreviews"}
	ans, err := c.dyn.Resource(gvr).Create(rctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, c.request(ctx, "access review of "+q.String(), Ref{}, x).mapError(err)
	}
	allowed, _, err := nestedBool(ans, "status", "allowed")
	return allowed, err
}

// String is the question in words: "patch deployments.apps in shop".
func (q Access) String() string {
	s := q.Verb + " " + schema.GroupResource{Group: q.Group, Resource: q.Resource}.String()
	if q.Subresource != "" {
		s += "/" + q.Subresource
	}
	if q.Name != "" {
		s += " " + q.Name
	}
	if q.Namespace != "" {
		s += " in " + q.Namespace
	}
	return s
}

// Logs implements Reader. A tail of zero or less means everything.
func (c *Client) Logs(ctx context.Context, namespace, pod, container string, tail int64, previous bool) (string, error) {
	ref := Ref{Version: "v1", Kind: "Pod", Namespace: namespace, Name: pod}
	if err := segments(namespace, pod); err != nil {
		return "", &RequestError{Subject: "logs of " + ref.String(), Kind: ErrInvalid, Message: err.Error()}
	}
	rctx, x, cancel := c.begin(ctx)
	defer cancel()
	r := c.disc.RESTClient().Get().AbsPath("/api/v1/namespaces", namespace, "pods", pod, "log")
	if container != "" {
		r = r.Param("container", container)
	}
	if tail > 0 {
		r = r.Param("tailLines", strconv.FormatInt(tail, 10))
	}
	if previous {
		r = r.Param("previous", "true")
	}
	raw, err := bodyOf(rctx, r)
	if err != nil {
		return "", c.request(ctx, fmt.Sprintf("logs of %s", ref), ref, x).mapError(err)
	}
	return string(raw), nil
}
