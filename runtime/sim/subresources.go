package sim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// scale answers the scale subresource: a view of spec.replicas.
func (c *Cluster) scale(r *http.Request, q *query, body []byte, warnings *[]string) (reply, error) {
	if !q.res.scale && q.res.crd != nil {
		return reply{}, apierrors.NewNotFound(q.res.gr(), q.name)
	}
	if !q.res.scale {
		if q.res.crd != nil {
			return reply{}, apierrors.NewNotFound(q.res.gr(), q.name)
		}
		return reply{}, errNotServed()
	}
	e := c.st.get(objectKey{q.res.gr(), q.namespace, q.name})
	if e == nil {
		return reply{}, apierrors.NewNotFound(q.res.gr(), q.name)
	}
	cur := scaleOf(e.obj)
	if q.verb == "get" {
		return jsonReply(http.StatusOK, cur.Object)
	}
	o, err := q.writeOptions(warnings)
	if err != nil {
		return reply{}, err
	}
	var next *unstructured.Unstructured
	switch q.verb {
	case "update":
		next, err = decodeJSON(body)
	case "patch":
		pt := types.PatchType(mediaType(r.Header.Get("Content-Type")))
		if pt == types.ApplyYAMLPatchType {
			return reply{}, unsupportedPatch(q.res)
		}
		if pt == types.StrategicMergePatchType {
			pt = types.MergePatchType // the scale has no lists to merge
		}
		next, err = patched(q.res, cur, pt, body, o)
	default:
		return reply{}, errMethod()
	}
	if err != nil {
		return reply{}, err
	}
	replicas, _, err := unstructured.NestedInt64(next.Object, "spec", "replicas")
	if err != nil {
		return reply{}, apierrors.NewBadRequest(err.Error())
	}
	if replicas < 0 {
		return reply{}, invalidScale(q.name, replicas)
	}
	o.subresource = "scale"
	obj, err := c.update(q.res.gr(), q.namespace, q.name, o, func(cur *unstructured.Unstructured) (*unstructured.Unstructured, error) {
		out := cur.DeepCopy()
		if rv := next.GetResourceVersion(); rv != "" {
			out.SetResourceVersion(rv)
		}
		return out, unstructured.SetNestedField(out.Object, replicas, "spec", "replicas")
	})
	if err != nil {
		return reply{}, err
	}
	return jsonReply(http.StatusOK, scaleOf(obj).Object)
}

func invalidScale(name string, replicas int64) error {
	return apierrors.NewInvalid(schema.GroupKind{Group: "autoscaling", Kind: "Scale"}, name, field.ErrorList{
		field.Invalid(field.NewPath("spec", "replicas"), replicas, "must be greater than or equal to 0").WithOrigin("minimum"),
	})
}

func scaleOf(obj *unstructured.Unstructured) *unstructured.Unstructured {
	replicas, _, _ := unstructured.NestedInt64(obj.Object, "spec", "replicas")
	now, _, _ := unstructured.NestedInt64(obj.Object, "status", "replicas")
	status := map[string]any{"replicas": now}
	if sel := selectorOf(mustMap(obj.Object, "spec", "selector")); sel != nil && !sel.Empty() {
		status["selector"] = sel.String()
	}
	spec := map[string]any{}
	if replicas != 0 { // the type leaves none out
		spec["replicas"] = replicas
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"kind": "Scale", "apiVersion": "autoscaling/v1",
		"metadata": map[string]any{
			"name": obj.GetName(), "namespace": obj.GetNamespace(), "uid": string(obj.GetUID()),
			"resourceVersion": obj.GetResourceVersion(), "creationTimestamp": obj.GetCreationTimestamp().UTC().Format("2006-01-02T15:04:05Z"),
		},
		"spec": spec, "status": status,
	}}
}

func mustMap(obj map[string]any, path ...string) any {
	v, _, _ := unstructured.NestedMap(obj, path...)
	return v
}

// evict deletes a pod unless its PodDisruptionBudget forbids it. Source: the
// pod eviction REST storage of the API server (documented under "API-initiated
// eviction"): pods that are not running are not protected.
func (c *Cluster) evict(r *http.Request, q *query, body []byte) (reply, error) {
	e := c.st.get(objectKey{grPods, q.namespace, q.name})
	if e == nil {
		return reply{}, apierrors.NewNotFound(grPods, q.name)
	}
	var in struct {
		Metadata      struct{ Name string } `json:"metadata"`
		DeleteOptions json.RawMessage       `json:"deleteOptions"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return reply{}, apierrors.NewBadRequest(err.Error())
	}
	if in.Metadata.Name != "" && in.Metadata.Name != q.name {
		return reply{}, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	raw := []byte(in.DeleteOptions)
	if string(raw) == "null" {
		raw = nil
	}
	o, err := readDeleteOptions(r, q, raw)
	if err != nil {
		return reply{}, err
	}
	if err := c.spendBudget(e.obj, o.dryRun); err != nil {
		return reply{}, err
	}
	if _, err := c.delete(grPods, q.namespace, q.name, o); err != nil {
		return reply{}, err
	}
	return jsonReply(http.StatusCreated, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess, Code: http.StatusCreated})
}

// spendBudget takes one disruption from the pod's budget.
func (c *Cluster) spendBudget(pod *unstructured.Unstructured, dryRun bool) error {
	phase, _, _ := unstructured.NestedString(pod.Object, "status", "phase")
	if phase != "Running" {
		return nil
	}
	var budgets []*unstructured.Unstructured
	for _, pdb := range (&world{c: c}).List(grPDBs, pod.GetNamespace()) {
		raw := mustMap(pdb.Object, "spec", "selector")
		if m, _ := raw.(map[string]any); m != nil && selectorOf(raw).Matches(labels.Set(pod.GetLabels())) {
			budgets = append(budgets, pdb)
		}
	}
	if len(budgets) == 0 {
		return nil
	}
	if len(budgets) > 1 {
		return &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusInternalServerError,
			Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
		}}
	}
	pdb := budgets[0]
	allowed, _, _ := unstructured.NestedInt64(pdb.Object, "status", "disruptionsAllowed")
	if allowed < 1 {
		err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
		desired, _, _ := unstructured.NestedInt64(pdb.Object, "status", "desiredHealthy")
		healthy, _, _ := unstructured.NestedInt64(pdb.Object, "status", "currentHealthy")
		err.ErrStatus.Details.Causes = []metav1.StatusCause{{
			Type:    "DisruptionBudget",
			Message: fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", pdb.GetName(), desired, healthy),
		}}
		return err
	}
	if dryRun {
		return nil
	}
	next := pdb.DeepCopy()
	if err := unstructured.SetNestedField(next.Object, allowed-1, "status", "disruptionsAllowed"); err != nil {
		return apierrors.NewInternalError(err)
	}
	c.commit(objectKey{grPDBs, pdb.GetNamespace(), pdb.GetName()}, next)
	return nil
}

// bind sets a pod's node.
func (c *Cluster) bind(r *http.Request, q *query, body []byte) (reply, error) {
	var in struct {
		Target struct{ Name string } `json:"target"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return reply{}, apierrors.NewBadRequest(err.Error())
	}
	_, err := c.update(grPods, q.namespace, q.name, writeOptions{untracked: true, controller: true}, func(cur *unstructured.Unstructured) (*unstructured.Unstructured, error) {
		if node, _, _ := unstructured.NestedString(cur.Object, "spec", "nodeName"); node != "" {
			return nil, apierrors.NewConflict(schema.GroupResource{Resource: "pods/binding"}, q.name, fmt.Errorf("pod %s is already assigned to node %q", q.name, node))
		}
		out := cur.DeepCopy()
		return out, unstructured.SetNestedField(out.Object, in.Target.Name, "spec", "nodeName")
	})
	if err != nil {
		return reply{}, err
	}
	return jsonReply(http.StatusCreated, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess, Code: http.StatusCreated})
}

// podLog answers a short log that follows from the pod's state alone.
func (c *Cluster) podLog(q *query) (reply, error) {
	e := c.st.get(objectKey{grPods, q.namespace, q.name})
	if e == nil {
		return reply{}, apierrors.NewNotFound(grPods, q.name)
	}
	names := containerNames(e.obj)
	name := q.values.Get("container")
	if name == "" {
		if len(names) == 0 {
			return reply{}, apierrors.NewBadRequest("the pod has no containers")
		}
		name = names[0]
		if d := e.obj.GetAnnotations()["kubectl.kubernetes.io/default-container"]; d != "" {
			name = d
		}
	}
	found := false
	for _, n := range names {
		found = found || n == name
	}
	if !found {
		return reply{}, apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, q.name))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s/%s: started\n", name, q.namespace, q.name)
	statuses, _, _ := unstructured.NestedSlice(e.obj.Object, "status", "containerStatuses")
	for _, s := range statuses {
		m, _ := s.(map[string]any)
		reason, _, _ := unstructured.NestedString(m, "state", "waiting", "reason")
		if m["name"] == name && reason == "CrashLoopBackOff" {
			fmt.Fprintf(&b, "%s: fatal: simulated crash, exit code 1\n", name)
		}
	}
	return reply{http.StatusOK, "text/plain", []byte(b.String())}, nil
}

func containerNames(pod *unstructured.Unstructured) []string {
	var out []string
	for _, f := range []string{"containers", "initContainers"} {
		list, _, _ := unstructured.NestedSlice(pod.Object, "spec", f)
		for _, x := range list {
			if m, ok := x.(map[string]any); ok {
				if n, _ := m["name"].(string); n != "" {
					out = append(out, n)
				}
			}
		}
	}
	return out
}
