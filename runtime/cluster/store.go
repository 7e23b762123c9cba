package cluster

import (
	"context"
	"math"
	"strconv"

	"k8s.io/apimachinery/pkg/fields"
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

// peek is a copy of one object of a cluster that lives in this process; nil where
// a request has to be made, which also says what is wrong.
func (c *Client) peek(res Resource, namespace, name string) *Object {
	if c.store == nil {
		return nil
	}
	objs, ok := c.store.Look(res.GVR, namespace, "", "metadata.name="+fields.EscapeValue(name))
	if !ok || len(objs) != 1 {
		return nil
	}
	return &Object{Object: received(objs[0].Object).(map[string]any)}
}

// received is a copy of v as a client would have it that read it from an answer:
// a whole number is an int64, however the cluster holds it.
func received(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = received(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = received(e)
		}
		return out
	case float64:
		if v == math.Trunc(v) { // above 2^53 the digits that are written are not all of the number's
			if n, err := strconv.ParseInt(strconv.FormatFloat(v, 'f', -1, 64), 10, 64); err == nil {
				return n
			}
		}
	}
	return v
}

// Distant reports whether dry-runs are answered by a server elsewhere although the
// cluster lives in this process.
func (c *Client) Distant() bool { return c.distant }
