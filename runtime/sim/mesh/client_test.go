package mesh_test

import (
	"context"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"

	"rutter.dev/rutter/runtime/sim"
)

// client writes to a cluster over its HTTP interface, as any client would.
type client struct {
	t testing.TB
	d dynamic.Interface
	m meta.RESTMapper
}

func newClient(t testing.TB, c *sim.Cluster) client {
	t.Helper()
	disco, err := discovery.NewDiscoveryClientForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	groups, err := restmapper.GetAPIGroupResources(disco)
	if err != nil {
		t.Fatal(err)
	}
	d, err := dynamic.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	return client{t, d, restmapper.NewDiscoveryRESTMapper(groups)}
}

func (c client) resource(o *unstructured.Unstructured) dynamic.ResourceInterface {
	c.t.Helper()
	gvk := o.GroupVersionKind()
	mapping, err := c.m.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		c.t.Fatal(err)
	}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		return c.d.Resource(mapping.Resource).Namespace(o.GetNamespace())
	}
	return c.d.Resource(mapping.Resource)
}

// put replaces stored objects.
func put(t testing.TB, c *sim.Cluster, objects ...*unstructured.Unstructured) {
	t.Helper()
	cl := newClient(t, c)
	for _, o := range objects {
		if _, err := cl.resource(o).Update(context.Background(), o, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}
