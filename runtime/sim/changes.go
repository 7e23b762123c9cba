package sim

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Change is an object of a twin that is not as it came from its backing: Before
// is nil for one that is new, After for one that is gone. They are shared, and
// not to be changed.
type Change struct {
	GR            schema.GroupResource
	Before, After *unstructured.Unstructured
}

// Changes are the objects of a twin that are not as they came, in order of
// group, resource, namespace and name. Without a backing every object is new.
func (c *Cluster) Changes() []Change {
	c.mu.Lock()
	defer c.mu.Unlock()
	var origin map[objectKey]*entry
	if b := c.st.backed; b != nil {
		origin = b.origin
	}
	keys := c.allKeys()
	stored := map[objectKey]bool{}
	for _, k := range keys {
		stored[k] = true
	}
	for k := range origin {
		if !stored[k] {
			keys = append(keys, k)
		}
	}
	sortKeys(keys)
	var out []Change
	for _, k := range keys {
		was := origin[k]
		var now *entry
		if t := c.st.tables[k.gr]; t != nil { // else its kind is gone
			now = t.items[nsName{k.namespace, k.name}]
		}
		if now == was {
			continue
		}
		ch := Change{GR: k.gr}
		if was != nil {
			ch.Before = was.obj
		}
		if now != nil {
			ch.After = now.obj
		}
		out = append(out, ch)
	}
	return out
}

// Origins are the objects of a resource as they came from the backing of a
// twin, as far as somebody has looked for them, in order. They are shared, and
// not to be changed.
func (c *Cluster) Origins(gr schema.GroupResource) []*unstructured.Unstructured {
	c.mu.Lock()
	defer c.mu.Unlock()
	var keys []objectKey
	b := c.st.backed
	if b == nil {
		return nil
	}
	for k := range b.origin {
		if k.gr == gr {
			keys = append(keys, k)
		}
	}
	sortKeys(keys)
	out := make([]*unstructured.Unstructured, len(keys))
	for i, k := range keys {
		out[i] = b.origin[k].obj
	}
	return out
}
