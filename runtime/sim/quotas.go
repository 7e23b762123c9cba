package sim

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"rutter.dev/rutter/runtime/quota"
	"rutter.dev/rutter/runtime/sim/kinds"
)

var grQuotas = schema.GroupResource{Resource: "resourcequotas"}

// quotasOf are the quotas of a namespace, by name.
func (c *Cluster) quotasOf(ns string) []*corev1.ResourceQuota {
	t := c.st.read(grQuotas, ns)
	if ns == "" || t == nil || len(t.keys) == 0 {
		return nil
	}
	var out []*corev1.ResourceQuota
	for _, k := range t.span(ns) {
		var q corev1.ResourceQuota
		if runtime.DefaultUnstructuredConverter.FromUnstructured(t.items[k].obj.Object, &q) == nil {
			out = append(out, &q)
		}
	}
	return out
}

// withinQuotas refuses an object that a quota of its namespace has no room
// for. Updates count for the kinds whose use can change.
func (c *Cluster) withinQuotas(res *resource, old, obj *unstructured.Unstructured, o writeOptions) error {
	if o.subresource != "" || old != nil && res.gr() != grServices && res.plural != "persistentvolumeclaims" {
		return nil
	}
	for _, q := range c.quotasOf(obj.GetNamespace()) {
		if !quota.Applies(q, res.gr(), obj) {
			continue
		}
		if err := quota.Check(q, c.used(q), res.gr(), obj, old); err != nil {
			return apierrors.NewForbidden(res.gr(), obj.GetName(), err)
		}
	}
	return nil
}

// used is what the objects of its namespace use of what a quota limits.
func (c *Cluster) used(q *corev1.ResourceQuota) corev1.ResourceList {
	out, resources := corev1.ResourceList{}, map[schema.GroupResource]bool{}
	for name := range q.Spec.Hard {
		out[name] = quantity.MustParse("0")
		if gr, ok := quota.Resource(name); ok {
			resources[gr] = true
		}
	}
	for gr := range resources {
		t := c.st.read(gr, q.Namespace)
		if t == nil {
			continue
		}
		for _, k := range t.span(q.Namespace) {
			if !quota.Applies(q, gr, t.items[k].obj) {
				continue
			}
			for name, n := range quota.Usage(gr, t.items[k].obj) {
				if sum, limited := out[name]; limited {
					sum.Add(n)
					out[name] = sum
				}
			}
		}
	}
	return out
}

// quotaTouched remembers that the quotas of a namespace may have to be counted
// again.
func (c *Cluster) quotaTouched(ns string) {
	t := c.st.read(grQuotas, ns)
	if ns == "" || t == nil || len(t.keys) == 0 {
		return
	}
	if c.recount == nil {
		c.recount = map[string]bool{}
	}
	c.recount[ns] = true
}

// countQuotas writes the status of quotas, as the quota controller does.
func (c *Cluster) countQuotas() {
	for len(c.recount) > 0 {
		namespaces := slices.Sorted(maps.Keys(c.recount))
		c.recount = nil
		for _, ns := range namespaces {
			for _, q := range c.quotasOf(ns) {
				c.countQuota(q)
			}
		}
	}
}

func (c *Cluster) countQuota(q *corev1.ResourceQuota) {
	e := c.st.get(objectKey{grQuotas, q.Namespace, q.Name})
	status, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&corev1.ResourceQuotaStatus{Hard: q.Spec.Hard, Used: c.used(q)})
	if err != nil || e == nil || kinds.Equal(e.obj.Object["status"], status) {
		return
	}
	next := shallow(e.obj)
	next.Object["status"] = status
	w := &world{c: c, controller: "resourcequota-controller"}
	if err := w.UpdateStatus(next); err != nil {
		return // the log has failed: nothing is written any longer
	}
}

// quotaErrors judges a quota that is to be stored.
func quotaErrors(res *resource, obj *unstructured.Unstructured) field.ErrorList {
	if res.gr() != grQuotas {
		return nil
	}
	var q corev1.ResourceQuota
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &q); err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	return quota.Validate(&q)
}
