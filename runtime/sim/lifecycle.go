package sim

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// afterCreate does what other components do at once when an object appears.
func (c *Cluster) afterCreate(k objectKey) {
	if k.gr == grCRDs {
		c.establish(k)
	}
}

func (c *Cluster) afterUpdate(k objectKey, _ *entry) {
	if k.gr == grCRDs {
		c.establish(k)
	}
	c.continueDeletion(k)
}

// establish accepts a CustomResourceDefinition's names and serves it, which
// takes the real server a moment and this one none.
func (c *Cluster) establish(k objectKey) {
	e := c.st.get(k)
	if e == nil || e.obj.GetDeletionTimestamp() != nil {
		return
	}
	next := e.obj.DeepCopy()
	spec, _ := next.Object["spec"].(map[string]any)
	status, _ := next.Object["status"].(map[string]any)
	if status == nil {
		status = map[string]any{}
	}
	stored, _ := status["storedVersions"].([]any)
	versions, _ := spec["versions"].([]any)
	for _, v := range versions {
		m, _ := v.(map[string]any)
		if s, _ := m["storage"].(bool); s && !slices.Contains(stored, m["name"]) {
			stored = append(stored, m["name"])
		}
	}
	status["storedVersions"] = stored
	status["acceptedNames"] = spec["names"]
	conds, _ := status["conditions"].([]any)
	conds = c.condition(conds, "NamesAccepted", "NoConflicts", "no conflicts found")
	status["conditions"] = c.condition(conds, "Established", "InitialNamesAccepted", "the initial names have been accepted")
	next.Object["status"] = status
	if !same(e.obj, next) {
		c.commit(k, next.DeepCopy())
	}
}

// condition sets a condition to True unless it is.
func (c *Cluster) condition(list []any, typ, reason, message string) []any {
	for _, x := range list {
		if m, ok := x.(map[string]any); ok && m["type"] == typ && m["status"] == "True" {
			return list
		}
	}
	list = slices.DeleteFunc(slices.Clone(list), func(x any) bool {
		m, _ := x.(map[string]any)
		return m["type"] == typ
	})
	return append(list, map[string]any{
		"type": typ, "status": "True", "reason": reason, "message": message, "lastTransitionTime": c.timestamp(),
	})
}

// crdChanged keeps the served resources in step with the stored definitions.
func (c *Cluster) crdChanged(ch change) {
	old := c.definedBy(ch.key)
	if ch.removed {
		if old != nil {
			c.reg.drop(old)
			c.forget(old.gk())
			delete(c.st.tables, old.gr())
		}
		c.docs.invalidate()
		return
	}
	if !established(ch.next.obj) {
		return
	}
	if ch.prev != nil && old != nil && !specChanged(c.reg.byName[grCRDs], ch.prev.obj, ch.next.obj) {
		return
	}
	r, err := ch.next.definition(c.defs)
	if err != nil {
		return // validation has refused what cannot be decoded
	}
	c.forget(r.gk())
	c.reg.add(r)
	c.docs.invalidate()
}

// definedBy is the served resource of a stored CustomResourceDefinition.
func (c *Cluster) definedBy(k objectKey) *resource {
	for _, r := range c.reg.order {
		if r.crd != nil && r.plural+"."+r.group == k.name {
			return r
		}
	}
	return nil
}

func established(obj *unstructured.Unstructured) bool {
	conds, _, _ := unstructured.NestedSlice(obj.Object, "status", "conditions")
	for _, x := range conds {
		if m, ok := x.(map[string]any); ok && m["type"] == "Established" && m["status"] == "True" {
			return true
		}
	}
	return false
}

func reverseDomain(group string) string {
	p := strings.Split(group, ".")
	slices.Reverse(p)
	return strings.Join(p, ".")
}

func requiredManager() field.ErrorList {
	return field.ErrorList{field.Required(field.NewPath("fieldManager"), "is required for apply patch")}
}
