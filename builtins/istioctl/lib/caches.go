package lib

import (
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"istio.io/istio/pkg/kube/informerfactory"
	"istio.io/istio/pkg/kube/kubetypes"
)

// caches are a session's informers. The precheck command's goroutines hold them
// as long as the process lives, and with them every pod of the mesh; so they are
// emptied when the session is closed.
type caches struct {
	informerfactory.InformerFactory
	// lean gives an informer of its own for what need not be whole; nil for none.
	lean func(schema.GroupVersionResource, kubetypes.InformerOptions) *lean

	mu  sync.Mutex
	all []cache.SharedIndexInformer
}

// InformerFor implements informerfactory.InformerFactory and remembers what it made.
func (c *caches) InformerFor(r schema.GroupVersionResource, o kubetypes.InformerOptions, make informerfactory.NewInformerFunc) informerfactory.StartableInformer {
	if c.lean != nil {
		if l := c.lean(r, o); l != nil {
			make = l.informer
		}
	}
	return c.InformerFactory.InformerFor(r, o, func() cache.SharedIndexInformer {
		i := make()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.all = append(c.all, i)
		return i
	})
}

// empty waits for the informers, whose stop channel has to be closed, and drops
// what they hold.
func (c *caches) empty() {
	c.Shutdown()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range c.all {
		// It fails only where an index function does, and there is nothing to index.
		_ = i.GetStore().Replace(nil, "")
	}
}
