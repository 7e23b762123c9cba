package sim

import (
	"fmt"
	"slices"
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

// admit runs mutating and validating admission over a creation or update.
func (c *Cluster) admit(res *resource, old, obj *unstructured.Unstructured, o writeOptions, op string) (*unstructured.Unstructured, error) {
	if o.subresource == "" && op == "CREATE" && res.gr() == grPods {
		serviceAccount(obj)
		if c.opts.Injector != nil && (!o.load || c.opts.InjectOnLoad) {
			var err error
			if obj, err = c.injectPod(res, obj, o); err != nil {
				return nil, err
			}
		}
	}
	if o.load || o.controller && op == "UPDATE" {
		return obj, nil
	}
	if o.subresource == "" {
		if err := c.validatingWebhooks(res, old, obj, op); err != nil {
			return nil, err
		}
	}
	return obj, c.runHooks(Admission{op, res.group, res.plural, obj.GetNamespace(), obj.GetName(), o.dryRun, obj, old})
}

func (c *Cluster) admitDelete(res *resource, obj *unstructured.Unstructured, dryRun bool) error {
	if err := c.validatingWebhooks(res, obj, nil, "DELETE"); err != nil {
		return err
	}
	return c.runHooks(Admission{"DELETE", res.group, res.plural, obj.GetNamespace(), obj.GetName(), dryRun, nil, obj})
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

// webhook is what mutating and validating configurations have in common.
type webhook struct {
	config        *unstructured.Unstructured
	name          string
	failIgnore    bool
	serviceNS     string
	serviceName   string
	path          string
	url           string
	namespaceSel  labels.Selector
	objectSel     labels.Selector
	rules         []any
	timeoutSecond int64
}

// webhooksOf reads all webhooks of a kind of configuration, in the order in
// which the server calls them: by configuration name.
func (c *Cluster) webhooksOf(w *world, mutating bool) []webhook {
	gr := grValidating
	if mutating {
		gr = grMutating
	}
	if known, ok := c.webhooks[gr]; ok {
		return known
	}
	var out []webhook
	for _, cfg := range w.List(gr, "") {
		list, _ := cfg.Object["webhooks"].([]any)
		for _, x := range list {
			m, _ := x.(map[string]any)
			h := webhook{config: cfg, namespaceSel: selectorOf(m["namespaceSelector"]), objectSel: selectorOf(m["objectSelector"])}
			h.name, _ = m["name"].(string)
			h.failIgnore = m["failurePolicy"] == "Ignore"
			h.rules, _ = m["rules"].([]any)
			h.timeoutSecond, _ = m["timeoutSeconds"].(int64)
			h.url, _, _ = unstructured.NestedString(m, "clientConfig", "url")
			h.serviceNS, _, _ = unstructured.NestedString(m, "clientConfig", "service", "namespace")
			h.serviceName, _, _ = unstructured.NestedString(m, "clientConfig", "service", "name")
			h.path, _, _ = unstructured.NestedString(m, "clientConfig", "service", "path")
			out = append(out, h)
		}
	}
	c.webhooks[gr] = out
	return out
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

// applies reports whether the server would call the webhook (admission
// webhook predicates: rules, then namespaceSelector, then objectSelector).
func (h webhook) applies(c *Cluster, res *resource, obj, old *unstructured.Unstructured, op string) bool {
	if res.gr() == grMutating || res.gr() == grValidating {
		return false // webhooks are never called about webhook configurations
	}
	if !slices.ContainsFunc(h.rules, func(r any) bool { return ruleMatches(r, res, op) }) {
		return false
	}
	some := obj
	if some == nil {
		some = old
	}
	if res.namespaced || res.gr() == grNamespaces {
		nsLabels := map[string]string{}
		if res.gr() == grNamespaces {
			nsLabels = some.GetLabels()
		} else if ns := c.st.get(objectKey{grNamespaces, "", some.GetNamespace()}); ns != nil {
			nsLabels = ns.obj.GetLabels()
		}
		if !h.namespaceSel.Matches(labels.Set(nsLabels)) {
			return false
		}
	}
	return (obj != nil && h.objectSel.Matches(labels.Set(obj.GetLabels()))) ||
		(old != nil && h.objectSel.Matches(labels.Set(old.GetLabels())))
}

func ruleMatches(rule any, res *resource, op string) bool {
	m, _ := rule.(map[string]any)
	has := func(field string, wants ...string) bool {
		list, _ := m[field].([]any)
		for _, x := range list {
			s, _ := x.(string)
			if s == "*" || slices.Contains(wants, s) {
				return true
			}
		}
		return false
	}
	scope, _ := m["scope"].(string)
	if scope == "Namespaced" && !res.namespaced || scope == "Cluster" && res.namespaced {
		return false
	}
	return has("operations", op) && has("apiGroups", res.group) && has("apiVersions", res.versions...) && has("resources", res.plural, "*/*")
}

// callable reports whether the webhook's backend would answer: a ready pod
// behind its Service. A URL is taken to answer when it names no Service.
func (c *Cluster) callable(h webhook) error {
	ns, name := h.serviceNS, h.serviceName
	if name == "" {
		var ok bool
		if ns, name, ok = serviceOfURL(h.url); !ok {
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
	t := c.st.table(grPods)
	for _, k := range t.span(ns) {
		pod := t.items[k].obj
		if labels.SelectorFromSet(sel).Matches(labels.Set(pod.GetLabels())) && podReady(pod) {
			return nil
		}
	}
	return call(fmt.Sprintf("no endpoints available for service %q", name))
}

func (h webhook) address(ns, name string) string {
	if h.url != "" {
		return h.url
	}
	t := h.timeoutSecond
	if t == 0 {
		t = 10
	}
	return fmt.Sprintf("https://%s.%s.svc:443%s?timeout=%ds", name, ns, h.path, t)
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
	conds, _, _ := unstructured.NestedSlice(pod.Object, "status", "conditions")
	for _, x := range conds {
		if m, ok := x.(map[string]any); ok && m["type"] == "Ready" {
			return m["status"] == "True"
		}
	}
	return false
}

// validatingWebhooks fails a request whose webhook cannot be called. What a
// webhook that answers would say about the object is not simulated.
func (c *Cluster) validatingWebhooks(res *resource, old, obj *unstructured.Unstructured, op string) error {
	if t := c.st.tables[grValidating]; t == nil || len(t.keys) == 0 {
		return nil
	}
	for _, h := range c.webhooksOf(&world{c: c}, false) {
		if h.failIgnore || !h.applies(c, res, obj, old, op) {
			continue
		}
		if err := c.callable(h); err != nil {
			return apierrors.NewInternalError(err)
		}
	}
	return nil
}
