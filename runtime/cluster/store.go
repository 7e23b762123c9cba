package cluster

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Store is a cluster that lives in this process, and may be read without writing
// objects out and in again: a twin, whose ten thousand pods are listed again and
// again.
type Store interface {
	// Look gives the objects that match, as a list request would, shared and not to
	// be changed. ok is false where a request has to be made instead: it is not as
	// simple, or would be refused.
	Look(gvr schema.GroupVersionResource, namespace, labels, fields string) (objs []*Object, ok bool)
}

// look is List of what is only read, where the cluster lives in this process.
func (c *Client) look(ctx context.Context, res Resource, o ListOptions, each func(*Object) error) (done bool, err error) {
	if c.store == nil || !o.Lean && !o.MetadataOnly {
		return false, nil
	}
	ns := o.Namespace
	if !res.Namespaced {
		ns = ""
	}
	objs, ok := c.store.Look(res.GVR, ns, o.Labels, o.Fields)
	if !ok {
		return false, nil
	}
	for i, obj := range objs {
		if o.MaxItems > 0 && i == o.MaxItems {
			break
		}
		if err := ctx.Err(); err != nil {
			return true, err
		}
		if err := each(obj); err != nil {
			return true, err
		}
	}
	return true, nil
}
