package sim

import (
	"fmt"
	"maps"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim/kinds"
)

// Unowned reports whether only controllers write a resource. A twin leaves out who
// owns its fields: no rehearsal looks at that, and in a large cluster it would be a
// third of each object and most of the work of writing it.
func Unowned(gr schema.GroupResource) bool {
	switch gr {
	case grPods, grReplicaSets, grEndpoints, grSlices, grHistory, grNodes:
		return true
	}
	return false
}

// unowned is whether managedFields of a resource are left out here.
func (c *Cluster) unowned(gr schema.GroupResource) bool { return c.st.backed != nil && Unowned(gr) }

// alikeMost bounds what is remembered of pods that are alike.
const alikeMost = 4096

// trackNew enters a creation in managedFields. The pods that a controller makes
// from one template have the same fields, so that the upstream field manager,
// which takes long, is asked about the first of them alone.
func (c *Cluster) trackNew(res *resource, obj *unstructured.Unstructured, o writeOptions) (*unstructured.Unstructured, error) {
	like := ""
	if o.controller && res.gr() == grPods {
		labels := obj.GetLabels()
		if owner := metav1.GetControllerOfNoCopy(obj); owner != nil {
			like = strings.Join([]string{string(owner.UID), labels["pod-template-hash"], labels["controller-revision-hash"], o.manager}, "/")
		}
	}
	if known := c.alike[like]; known != nil {
		entry := maps.Clone(known)
		entry["time"] = c.timestamp()
		setMeta(obj, "managedFields", []any{entry})
		return obj, nil
	}
	out, err := c.track(res, c.blank(res, o.version), obj, o)
	if err != nil || like == "" {
		return out, err
	}
	if list := managedFields(out); len(list) == 1 {
		if len(c.alike) >= alikeMost {
			clear(c.alike)
		}
		c.alike[like], _ = list[0].(map[string]any)
	}
	return out, nil
}

// trackStatus enters a controller's status write in next's managedFields, as
// one Update entry of the status subresource: the fields that the controller
// owned before and that are still there, and those that this write changes.
// Statuses are compared at their top level, field by field; the upstream field
// manager, which compares every field of the object, takes longer for the
// status writes of a rollout than everything else together.
func (c *Cluster) trackStatus(cur, next *unstructured.Unstructured, o writeOptions) {
	was, _ := cur.Object["status"].(map[string]any)
	is, _ := next.Object["status"].(map[string]any)
	if kinds.Equal(was, is) {
		return
	}
	meta := maps.Clone(next.Object["metadata"].(map[string]any))
	list, _ := meta["managedFields"].([]any)
	entry := map[string]any{
		"manager": o.manager, "operation": "Update", "apiVersion": next.GetAPIVersion(),
		"fieldsType": "FieldsV1", "subresource": "status", "time": c.timestamp(),
	}
	out, own := make([]any, 0, len(list)+1), map[string]any{}
	for _, e := range list {
		m, _ := e.(map[string]any)
		if m["manager"] == o.manager && m["operation"] == "Update" && m["apiVersion"] == entry["apiVersion"] && m["subresource"] == "status" {
			fields, _ := m["fieldsV1"].(map[string]any)
			own, _ = fields["f:status"].(map[string]any)
			continue
		}
		out = append(out, e)
	}
	mine := map[string]any{}
	for k, v := range is {
		if own["f:"+k] != nil || !kinds.Equal(was[k], v) {
			mine[k] = v
		}
	}
	fields := map[string]any{}
	for k, v := range mine {
		now := fieldsOf(next.GetKind(), k, v, was[k])
		if before, _ := own["f:"+k].(map[string]any); before["."] != nil && len(now) > 0 {
			now["."] = before["."] // made it once, and so owns the whole
		}
		fields["f:"+k] = now
	}
	entry["fieldsV1"] = map[string]any{"f:status": fields}
	meta["managedFields"] = append(out, entry)
	next.Object["metadata"] = meta
}

// fieldsOf is the set of the fields of v, the value at key, in the form of
// managedFields; was is the value before. Lists are owned whole, but for those
// that the schema keys: conditions by type (a Job's are not), pod IPs by ip.
func fieldsOf(kind, key string, v, was any) map[string]any {
	out := map[string]any{}
	switch x := v.(type) {
	case map[string]any:
		for k, e := range x {
			out["f:"+k] = fieldsOf(kind, k, e, nil)
		}
	case []any:
		by := ""
		switch {
		case key == "conditions" && kind != "Job":
			by = "type"
		case key == "podIPs":
			by = "ip"
		default:
			return out
		}
		if was == nil {
			out["."] = map[string]any{}
		}
		for _, e := range x {
			m, _ := e.(map[string]any)
			item := fieldsOf(kind, "", e, nil)
			item["."] = map[string]any{}
			out[fmt.Sprintf("k:{%q:%q}", by, m[by])] = item
		}
	}
	return out
}
