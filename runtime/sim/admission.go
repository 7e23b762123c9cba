package sim

import (
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// Admission is one request as admission sees it.
type Admission struct {
	Operation string // CREATE, UPDATE or DELETE
	Group     string
	Resource  string
	Namespace string
	Name      string
	DryRun    bool
	Object    *unstructured.Unstructured // shared: not to be changed; nil for DELETE
	Old       *unstructured.Unstructured // nil for CREATE
}

// AdmissionHook judges a request; an error refuses it. It runs under the
// cluster's lock and must not call the cluster.
type AdmissionHook func(Admission) error

// OnAdmission adds a hook that stands for a validating webhook or policy. A
// plain error is answered as that of a webhook that denied the request (403);
// an API error is answered as it is.
func (c *Cluster) OnAdmission(h AdmissionHook) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hooks = append(c.hooks, h)
}

// mutate runs mutating admission over a creation or update.
func (c *Cluster) mutate(res *resource, old, obj *unstructured.Unstructured, o writeOptions, op string) (*unstructured.Unstructured, error) {
	inject := false
	if o.subresource == "" && op == "CREATE" && res.gr() == grPods {
		serviceAccount(obj)
		inject = c.opts.Injector != nil && (!o.load || c.opts.InjectOnLoad)
	}
	if t := c.st.read(grMutating, ""); t == nil || len(t.keys) == 0 || !inject && exempt(o, op) {
		return obj, nil
	}
	return c.mutatingWebhooks(&review{c: c, res: res, old: old, obj: obj, o: o, op: op}, inject)
}

// validating runs validating admission over a creation or update: policies, then
// webhooks, hooks, and quotas last.
func (c *Cluster) validating(res *resource, old, obj *unstructured.Unstructured, o writeOptions, op string) error {
	if exempt(o, op) {
		return nil
	}
	v := &review{c: c, res: res, old: old, obj: obj, o: o, op: op}
	if err := c.admissionPolicies(v); err != nil {
		return err
	}
	if err := c.validatingWebhooks(v); err != nil {
		return err
	}
	if err := c.runHooks(Admission{op, res.group, res.plural, obj.GetNamespace(), obj.GetName(), o.dryRun, obj, old}); err != nil {
		return err
	}
	return c.withinQuotas(res, old, obj, o)
}

// exempt reports whether a write passes admission unasked: what is loaded, and
// what controllers change.
func exempt(o writeOptions, op string) bool { return o.load || o.controller && op == "UPDATE" }

func (c *Cluster) admitDelete(res *resource, obj *unstructured.Unstructured, o writeOptions) error {
	v := &review{c: c, res: res, old: obj, o: o, op: "DELETE"}
	if t := c.st.read(grMutating, ""); t != nil && len(t.keys) > 0 && !o.controller {
		if _, err := c.mutatingWebhooks(v, false); err != nil {
			return err
		}
	}
	if err := c.admissionPolicies(v); err != nil {
		return err
	}
	if err := c.validatingWebhooks(v); err != nil {
		return err
	}
	return c.runHooks(Admission{"DELETE", res.group, res.plural, obj.GetNamespace(), obj.GetName(), o.dryRun, nil, obj})
}

func (c *Cluster) runHooks(a Admission) error {
	for _, h := range c.hooks {
		err := h(a)
		if err == nil {
			continue
		}
		if _, ok := err.(apierrors.APIStatus); ok { //nolint:errorlint // the hook's own answer, not a wrapped one
			return err
		}
		return denied("simulated", err.Error())
	}
	return nil
}

// denied is the answer of the API server when a webhook refuses.
func denied(webhook, message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: 403, Reason: metav1.StatusReasonForbidden,
		Message: fmt.Sprintf("admission webhook %q denied the request: %s", webhook, message),
	}}
}

// serviceAccount is the ServiceAccount admission plugin without its token
// volume, which nothing simulated reads.
func serviceAccount(pod *unstructured.Unstructured) {
	spec, ok := pod.Object["spec"].(map[string]any)
	if !ok {
		return
	}
	if s, _ := spec["serviceAccountName"].(string); s == "" {
		spec["serviceAccountName"], spec["serviceAccount"] = "default", "default"
	}
}

// selectorOf reads a label selector; an unreadable one matches nothing.
func selectorOf(v any) labels.Selector {
	m, _ := v.(map[string]any)
	if len(m) == 0 {
		return labels.Everything()
	}
	var ls metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(m, &ls); err != nil {
		return labels.Nothing()
	}
	s, err := metav1.LabelSelectorAsSelector(&ls)
	if err != nil {
		return labels.Nothing()
	}
	return s
}

// callable reports whether the webhook's backend would answer: a ready pod
// behind its Service. A URL is taken to answer when it names no Service.
func (c *Cluster) callable(h *webhook) error {
	ns, name, _, _, ok := h.service()
	if !ok {
		if ns, name, ok = serviceOfURL(h.url()); !ok {
			return nil
		}
	}
	call := func(why string) error {
		return fmt.Errorf("failed calling webhook %q: failed to call webhook: Post %q: %s", h.name, h.address(ns, name), why)
	}
	svc := c.st.get(objectKey{grServices, ns, name})
	if svc == nil {
		return call(fmt.Sprintf("service %q not found", name))
	}
	sel, _, _ := unstructured.NestedStringMap(svc.obj.Object, "spec", "selector")
	if len(sel) == 0 {
		return nil // endpoints kept by somebody else
	}
	t := c.st.read(grPods, ns)
	if t == nil {
		t = &table{}
	}
	for _, k := range t.span(ns) {
		pod := t.items[k].obj
		if labels.SelectorFromSet(sel).Matches(labels.Set(pod.GetLabels())) && podReady(pod) {
			return nil
		}
	}
	return call(fmt.Sprintf("no endpoints available for service %q", name))
}

// address is the URL that the server posts to, as its errors show it.
func (h *webhook) address(ns, name string) string {
	if h.url() != "" {
		return h.url()
	}
	_, _, path, port, _ := h.service()
	if path == "" {
		path = "/"
	}
	return fmt.Sprintf("https://%s.%s.svc:%d%s?timeout=%ds", name, ns, port, path, h.timeout())
}

// serviceOfURL reads https://NAME.NAMESPACE.svc[:PORT]/… .
func serviceOfURL(url string) (ns, name string, ok bool) {
	host := strings.TrimPrefix(url, "https://")
	host, _, _ = strings.Cut(host, "/")
	host, _, _ = strings.Cut(host, ":")
	p := strings.Split(host, ".")
	if len(p) >= 3 && p[2] == "svc" {
		return p[1], p[0], true
	}
	return "", "", false
}

func podReady(pod *unstructured.Unstructured) bool {
	if pod.GetDeletionTimestamp() != nil {
		return false
	}
	conds, _, _ := unstructured.NestedFieldNoCopy(pod.Object, "status", "conditions")
	list, _ := conds.([]any)
	for _, x := range list {
		if m, ok := x.(map[string]any); ok && m["type"] == "Ready" {
			return m["status"] == "True"
		}
	}
	return false
}
