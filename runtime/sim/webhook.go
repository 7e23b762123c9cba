package sim

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"

	"rutter.dev/rutter/runtime/sim/policy"
)

// webhook is one webhook of a mutating or validating configuration, read.
type webhook struct {
	config       *unstructured.Unstructured
	def          admissionregistrationv1.MutatingWebhook // a validating one has a part of its fields
	name         string
	failIgnore   bool
	namespaceSel labels.Selector
	objectSel    labels.Selector
	conditions   *policy.Conditions // nil without match conditions
}

// webhooksOf reads all webhooks of a kind of configuration, in the order in
// which the server calls them: by configuration name.
func (c *Cluster) webhooksOf(mutating bool) []*webhook {
	gr, kind := grValidating, "validating"
	if mutating {
		gr, kind = grMutating, "admit"
	}
	if known, ok := c.webhooks[gr]; ok {
		return known
	}
	var out []*webhook
	for _, cfg := range (&world{c: c}).List(gr, "") {
		list, _ := cfg.Object["webhooks"].([]any)
		for _, x := range list {
			m, _ := x.(map[string]any)
			h := &webhook{config: cfg, namespaceSel: selectorOf(m["namespaceSelector"]), objectSel: selectorOf(m["objectSelector"])}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(m, &h.def); err != nil {
				continue // the server would not have stored it
			}
			h.name = h.def.Name
			failure := admissionregistrationv1.Fail
			if f := h.def.FailurePolicy; f != nil {
				failure = *f
			}
			h.failIgnore = failure == admissionregistrationv1.Ignore
			if len(h.def.MatchConditions) > 0 {
				h.conditions = policy.CompileConditions(h.def.MatchConditions, failure, kind, h.name)
			}
			out = append(out, h)
		}
	}
	c.webhooks[gr] = out
	return out
}

// service is the Service that the webhook names, if it names one.
func (h *webhook) service() (ns, name, path string, port int32, ok bool) {
	s := h.def.ClientConfig.Service
	if s == nil {
		return "", "", "", 0, false
	}
	port = 443
	if s.Port != nil {
		port = *s.Port
	}
	if s.Path != nil {
		path = *s.Path
	}
	return s.Namespace, s.Name, path, port, true
}

func (h *webhook) url() string {
	if h.def.ClientConfig.URL == nil {
		return ""
	}
	return *h.def.ClientConfig.URL
}

// timeout is how many seconds the webhook gets, ten when it says nothing.
func (h *webhook) timeout() int32 {
	if h.def.TimeoutSeconds != nil {
		return *h.def.TimeoutSeconds
	}
	return 10
}

// endpoint is what is called: host with port, and path.
func (h *webhook) endpoint() (host, path string, err error) {
	if ns, name, path, port, ok := h.service(); ok {
		return net.JoinHostPort(name+"."+ns+".svc", strconv.Itoa(int(port))), path, nil
	}
	u, err := url.Parse(h.url())
	if err != nil {
		return "", "", fmt.Errorf("unparsable webhook URL: %w", err)
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "443"), u.Path, nil
	}
	return u.Host, u.Path, nil
}

// review is one request on its way through admission.
type review struct {
	c        *Cluster
	res      *resource
	old, obj *unstructured.Unstructured
	o        writeOptions
	op       string
	attrs    *admission.VersionedAttributes // made when first needed
}

// some is the new object, or the old one when there is none.
func (v *review) some() *unstructured.Unstructured {
	if v.obj != nil {
		return v.obj
	}
	return v.old
}

func (v *review) user() *User {
	switch {
	case v.o.user != nil:
		return v.o.user
	case v.o.controller:
		return controllerUser
	}
	return administrator
}

func (v *review) version() string {
	if v.o.version != "" {
		return v.o.version
	}
	return v.res.storage
}

// attributes are what rules and expressions are asked about.
func (v *review) attributes() *admission.VersionedAttributes {
	if v.attrs != nil {
		return v.attrs
	}
	var obj, old runtime.Object
	if v.obj != nil {
		obj = v.obj
	}
	if v.old != nil {
		old = v.old
	}
	kind := v.res.gvk(v.version())
	gvr := schema.GroupVersionResource{Group: v.res.group, Version: v.version(), Resource: v.res.plural}
	ns := v.some().GetNamespace()
	if v.res.gr() == grNamespaces {
		ns = v.some().GetName()
	}
	a := admission.NewAttributesRecord(obj, old, kind, ns, v.some().GetName(), gvr, v.o.subresource, admission.Operation(v.op), v.options(), v.o.dryRun, v.user())
	v.attrs = &admission.VersionedAttributes{Attributes: a, VersionedObject: obj, VersionedOldObject: old, VersionedKind: kind}
	return v.attrs
}

// changed puts another object into the review.
func (v *review) changed(obj *unstructured.Unstructured) { v.obj, v.attrs = obj, nil }

func (v *review) options() runtime.Object {
	meta := func(kind string) metav1.TypeMeta { return metav1.TypeMeta{Kind: kind, APIVersion: "meta.k8s.io/v1"} }
	var dry []string
	if v.o.dryRun {
		dry = []string{metav1.DryRunAll}
	}
	switch v.op {
	case "CREATE":
		return &metav1.CreateOptions{TypeMeta: meta("CreateOptions"), DryRun: dry, FieldManager: v.o.askedManager, FieldValidation: v.o.askedValidation}
	case "DELETE":
		return &metav1.DeleteOptions{TypeMeta: meta("DeleteOptions"), DryRun: dry}
	}
	return &metav1.UpdateOptions{TypeMeta: meta("UpdateOptions"), DryRun: dry, FieldManager: v.o.askedManager, FieldValidation: v.o.askedValidation}
}

// request is the review as expressions see it. The lock is held.
func (v *review) request() (policy.Request, error) {
	p, err := v.c.rbac()
	if err != nil {
		return policy.Request{}, err
	}
	return policy.Request{Attributes: v.attributes(), Namespace: v.namespace(), Authorizer: p}, nil
}

// namespace is that of a namespaced object.
func (v *review) namespace() *corev1.Namespace {
	e := v.c.st.get(objectKey{grNamespaces, "", v.some().GetNamespace()})
	var ns corev1.Namespace
	if e == nil || runtime.DefaultUnstructuredConverter.FromUnstructured(e.obj.Object, &ns) != nil {
		return nil
	}
	return &ns
}

// namespaceLabels are those that a namespaceSelector is held against; false
// for an object that such a selector does not concern.
func (v *review) namespaceLabels() (labels.Set, bool) {
	switch {
	case v.res.gr() == grNamespaces:
		return v.some().GetLabels(), true
	case !v.res.namespaced:
		return nil, false
	}
	if ns := v.c.st.get(objectKey{grNamespaces, "", v.some().GetNamespace()}); ns != nil {
		return ns.obj.GetLabels(), true
	}
	return nil, true
}

func (v *review) selected(namespaces, objects labels.Selector) bool {
	if set, ok := v.namespaceLabels(); ok && !namespaces.Matches(set) {
		return false
	}
	return v.obj != nil && objects.Matches(labels.Set(v.obj.GetLabels())) || v.old != nil && objects.Matches(labels.Set(v.old.GetLabels()))
}

// byVersion are the attributes under each version of the resource that rules
// may name instead of the request's, its own first.
func (v *review) byVersion(match *admissionregistrationv1.MatchPolicyType) []admission.Attributes {
	own := v.attributes()
	out := []admission.Attributes{own.Attributes}
	if match != nil && *match == admissionregistrationv1.Exact {
		return out
	}
	for _, version := range v.res.versions {
		if version != v.version() {
			gvr := own.GetResource()
			gvr.Version = version
			out = append(out, atVersion{own.Attributes, gvr})
		}
	}
	return out
}

// atVersion is a request as if it had named another version.
type atVersion struct {
	admission.Attributes
	gvr schema.GroupVersionResource
}

// GetResource implements admission.Attributes.
func (a atVersion) GetResource() schema.GroupVersionResource { return a.gvr }

// applies reports whether the server would call the webhook: rules,
// namespaceSelector, objectSelector, then match conditions. The error is the
// server's refusal when a condition could not be evaluated.
func (h *webhook) applies(v *review) (bool, error) {
	if v.res.group == grMutating.Group && (v.res.gr() == grMutating || v.res.gr() == grValidating) {
		return false, nil // webhooks are never called about webhook configurations
	}
	attrs := v.byVersion(h.def.MatchPolicy)
	if !slices.ContainsFunc(h.def.Rules, func(r admissionregistrationv1.RuleWithOperations) bool {
		return slices.ContainsFunc(attrs, func(a admission.Attributes) bool { return policy.RuleMatches(r, a) })
	}) {
		return false, nil
	}
	if !v.selected(h.namespaceSel, h.objectSel) || h.conditions == nil {
		return h.conditions == nil && v.selected(h.namespaceSel, h.objectSel), nil
	}
	r, err := v.request()
	if err != nil {
		return false, apierrors.NewInternalError(err)
	}
	ok, err := h.conditions.Match(context.Background(), r)
	if err != nil {
		return false, apierrors.NewForbidden(v.res.gr(), v.some().GetName(), err)
	}
	return ok, nil
}

// mutatingWebhooks calls the mutating webhooks that apply, and those again
// that want to see what others changed after them. inject lets the injector
// answer for a control plane that nobody answers for.
func (c *Cluster) mutatingWebhooks(v *review, inject bool) (*unstructured.Unstructured, error) {
	hooks := c.webhooksOf(true)
	changedBy := -1 // the last webhook that changed the object
	called := make([]bool, len(hooks))
	for round := range 2 {
		last := changedBy
		for i, h := range hooks {
			again := h.def.ReinvocationPolicy != nil && *h.def.ReinvocationPolicy == admissionregistrationv1.IfNeededReinvocationPolicy
			if round == 1 && (!called[i] || !again || i >= last) {
				continue
			}
			ok, err := h.applies(v)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			before := v.obj
			if err := c.mutatingWebhook(h, v, inject && round == 0); err != nil {
				return nil, err
			}
			called[i] = true
			if v.obj != before {
				changedBy = i
				if round == 1 {
					last = max(last, i)
				}
			}
		}
	}
	return v.obj, nil
}

// mutatingWebhook calls one mutating webhook and takes over what it changes.
func (c *Cluster) mutatingWebhook(h *webhook, v *review, inject bool) error {
	b, err := c.webhookBackend(h)
	if b == nil && err == nil {
		if inject {
			return c.injectBy(h, v)
		}
		return nil
	}
	if err != nil {
		return h.failed(err)
	}
	answer, err := c.callWebhook(b, h, v)
	if err != nil {
		return h.failed(err)
	}
	if !answer.Allowed {
		return rejected(h.name, answer.Result)
	}
	if len(answer.Patch) == 0 || v.obj == nil {
		return nil
	}
	next, err := patchedBy(v.obj, answer.Patch)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	return v.take(next)
}

// take makes the object that a webhook returned the review's: decoded and
// defaulted, with the status that the server had given it.
func (v *review) take(next *unstructured.Unstructured) error {
	if same(next, v.obj) {
		return nil
	}
	o := v.o
	o.untracked = true
	out, err := v.c.normalize(v.res, next, o)
	if err != nil {
		return err
	}
	if status, ok := v.obj.Object["status"]; ok {
		out.Object["status"] = status
	}
	v.changed(out)
	return nil
}

// validatingWebhooks calls the validating webhooks that apply. The first
// refusal is the answer. One that nobody answers for fails the request when
// its Service has no ready pod.
func (c *Cluster) validatingWebhooks(v *review) error {
	if t := c.st.read(grValidating, ""); t == nil || len(t.keys) == 0 {
		return nil
	}
	for _, h := range c.webhooksOf(false) {
		ok, err := h.applies(v)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := c.validatingWebhook(h, v); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) validatingWebhook(h *webhook, v *review) error {
	b, err := c.webhookBackend(h)
	if b == nil && err == nil {
		if v.o.subresource != "" || h.failIgnore {
			return nil
		}
		if err := c.callable(h); err != nil {
			return apierrors.NewInternalError(err)
		}
		return nil
	}
	if err != nil {
		return h.failed(err)
	}
	answer, err := c.callWebhook(b, h, v)
	if err != nil {
		return h.failed(err)
	}
	if !answer.Allowed {
		return rejected(h.name, answer.Result)
	}
	return nil
}
