package plane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
)

// Object is any object of the API.
type Object = unstructured.Unstructured

// inFlight bounds the requests that Apply has out at once.
const inFlight = 8

// Parse reads the objects of a YAML stream.
func Parse(text []byte) ([]*Object, error) {
	var out []*Object
	for d := yaml.NewYAMLOrJSONDecoder(strings.NewReader(string(text)), 4096); ; {
		o := &Object{}
		err := d.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if len(o.Object) > 0 {
			out = append(out, o)
		}
	}
}

// Resources finds the resource of a kind, over everything that the API server
// serves when it is made.
type Resources struct {
	mapper meta.RESTMapper
	client dynamic.Interface
}

// Resources reads what kinds the API server serves now.
func (p *Plane) Resources() (*Resources, error) {
	d, err := discovery.NewDiscoveryClientForConfig(p.Config())
	if err != nil {
		return nil, err
	}
	client, err := dynamic.NewForConfig(p.Config())
	if err != nil {
		return nil, err
	}
	return &Resources{mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(d)), client: client}, nil
}

// Of is the client for objects of a kind in a namespace, which is ignored for
// kinds of the cluster.
func (r *Resources) Of(gvk schema.GroupVersionKind, namespace string) (dynamic.ResourceInterface, error) {
	m, err := r.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, err
	}
	if m.Scope.Name() == meta.RESTScopeNameRoot {
		return r.client.Resource(m.Resource), nil
	}
	return r.client.Resource(m.Resource).Namespace(namespace), nil
}

// Apply applies objects server-side, by force, as Admin and as the given field
// manager. They go kind by kind in the order in which their first one is given,
// those of a kind in parallel; kinds of CRDs among them are waited for.
func (p *Plane) Apply(ctx context.Context, manager string, objs ...*Object) error {
	var kinds []string
	by := map[string][]*Object{}
	for _, o := range objs {
		k := o.GroupVersionKind().String()
		if by[k] == nil {
			kinds = append(kinds, k)
		}
		by[k] = append(by[k], o)
	}
	r, err := p.Resources()
	if err != nil {
		return err
	}
	for _, k := range kinds {
		group, inner := errgroup.WithContext(ctx)
		group.SetLimit(inFlight)
		for _, o := range by[k] {
			group.Go(func() error { return r.apply(inner, manager, o) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
		if by[k][0].GetKind() == "CustomResourceDefinition" {
			if err := p.AwaitCRDs(ctx, by[k]...); err != nil {
				return err
			}
			if r, err = p.Resources(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *Resources) apply(ctx context.Context, manager string, o *Object) error {
	name := fmt.Sprintf("apply %s %s/%s", o.GetKind(), o.GetNamespace(), o.GetName())
	c, err := r.Of(o.GroupVersionKind(), o.GetNamespace())
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	body, err := json.Marshal(o.Object)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	force := true
	_, err = c.Patch(ctx, o.GetName(), types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: manager, Force: &force})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Get reads an object as Admin. The error for one that is not there is
// Kubernetes' own (apierrors.IsNotFound).
func (p *Plane) Get(ctx context.Context, gvk schema.GroupVersionKind, namespace, name string) (*Object, error) {
	r, err := p.Resources()
	if err != nil {
		return nil, err
	}
	c, err := r.Of(gvk, namespace)
	if err != nil {
		return nil, err
	}
	return c.Get(ctx, name, metav1.GetOptions{})
}

// AwaitCRDs waits until the CRDs among objects are established.
func (p *Plane) AwaitCRDs(ctx context.Context, objs ...*Object) error {
	r, err := p.Resources()
	if err != nil {
		return err
	}
	for _, o := range objs {
		if o.GetKind() != "CustomResourceDefinition" {
			continue
		}
		c, err := r.Of(o.GroupVersionKind(), "")
		if err != nil {
			return err
		}
		err = Until(ctx, upTimeout, func(ctx context.Context) (bool, error) {
			got, err := c.Get(ctx, o.GetName(), metav1.GetOptions{})
			if err != nil {
				return false, err
			}
			conditions, _, _ := unstructured.NestedSlice(got.Object, "status", "conditions")
			for _, c := range conditions {
				if m, ok := c.(map[string]any); ok && m["type"] == "Established" && m["status"] == "True" {
					return true, nil
				}
			}
			return false, nil
		})
		if err != nil {
			return fmt.Errorf("crd %s: waiting until it is established: %w", o.GetName(), err)
		}
	}
	return nil
}

// Until polls until holds says so. Errors of a server that is not there, or
// that knows no such object, are waited out; the last one is in the error when
// the time is over.
func Until(ctx context.Context, within time.Duration, holds func(context.Context) (bool, error)) error {
	return poll(ctx, pollEvery, within, holds)
}

// poll is Until for what is dearer to ask.
func poll(ctx context.Context, every, within time.Duration, holds func(context.Context) (bool, error)) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, every, within, true, func(ctx context.Context) (bool, error) {
		ok, err := holds(ctx)
		if err != nil && !transient(err) {
			return false, err
		}
		last = err
		return ok && err == nil, nil
	})
	if err != nil && last != nil {
		return fmt.Errorf("%w; last: %w", err, last)
	}
	return err
}

// transient tells errors that may be gone at the next try.
func transient(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true // no answer at all
	}
	code := status.Status().Code
	return code == 404 || code == 429 || code >= 500
}
