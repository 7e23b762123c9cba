// Package kinds knows the built-in Kubernetes kinds: their Go types, the
// defaults that the API server gives them, and what it refuses. The defaults
// and checks are written from the behaviour documented in the API reference
// and in the comments of k8s.io/api, because the server's own are not
// importable.
package kinds

import (
	"sync"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
)

// Scheme holds all built-in kinds and CustomResourceDefinition. It is never
// changed after it was built.
var Scheme = sync.OnceValue(func() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientscheme.AddToScheme, apiextensionsv1.AddToScheme} {
		if err := add(s); err != nil {
			panic("kinds: the built-in kinds cannot be registered: " + err.Error())
		}
	}
	return s
})

// Empty is the JSON form of the kind's empty Go value, nil for a kind that the
// scheme does not know.
func Empty(gvk schema.GroupVersionKind) map[string]any {
	t, err := Scheme().New(gvk)
	if err != nil {
		return nil
	}
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(t)
	if err != nil {
		return nil
	}
	return m
}

// EmptyStatus is the JSON form of the kind's empty status, nil when it has none.
func EmptyStatus(gvk schema.GroupVersionKind) any { return Empty(gvk)["status"] }
