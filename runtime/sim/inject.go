package sim

import (
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// isInjector recognizes Istio's injection webhooks by name: rev.namespace.,
// rev.object., namespace. and object.sidecar-injector.istio.io.
func isInjector(name string) bool {
	return strings.HasSuffix(name, "sidecar-injector.istio.io") || strings.Contains(name, "sidecar-injector.")
}

// injectBy lets the injector answer for a control plane that is a simulated
// one: when its Service has a ready pod, and only for Istio's own webhooks.
func (c *Cluster) injectBy(h *webhook, v *review) error {
	if err := c.callable(h); err != nil {
		if h.failIgnore {
			return nil
		}
		return apierrors.NewInternalError(err)
	}
	if !isInjector(h.name) {
		return nil
	}
	in := c.injection(h, v.obj)
	if v.o.foresee {
		c.opts.Injector.(Preparer).Prepare(in)
		return nil
	}
	out, err := c.opts.Injector.Inject(in)
	switch {
	case err != nil && h.failIgnore, err == nil && out == nil:
		return nil
	case err != nil:
		return rejected(h.name, &metav1.Status{Message: err.Error()}) // istiod gives no code
	}
	return v.take(out)
}

// injection gathers what the control plane behind the webhook knows.
func (c *Cluster) injection(h *webhook, pod *unstructured.Unstructured) InjectionRequest {
	ns, svc, _, _, ok := h.service()
	if !ok {
		ns, svc, _ = serviceOfURL(h.url())
	}
	if ns == "" {
		ns = "istio-system"
	}
	rev := c.webhookRevision(h, svc)
	suffix := ""
	if rev != "default" {
		suffix = "-" + rev
	}
	in := InjectionRequest{
		Pod: pod, Revision: rev,
		InjectorConfig: c.configData(ns, "istio-sidecar-injector"+suffix),
		MeshConfig:     c.configData(ns, "istio"+suffix),
	}
	if e := c.st.get(objectKey{grNamespaces, "", pod.GetNamespace()}); e != nil {
		in.Namespace = e.obj
	}
	if e := c.st.get(objectKey{grDeployments, ns, "istiod" + suffix}); e != nil {
		in.IstiodImage = discoveryImage(e.obj)
	}
	return in
}

// webhookRevision is the revision of the control plane that answers. A tag's
// webhook carries the revision it points to in istio.io/rev, and its Service
// is that revision's; the Service's name decides when the label is missing.
func (c *Cluster) webhookRevision(h *webhook, svc string) string {
	if rev := h.config.GetLabels()["istio.io/rev"]; rev != "" {
		return rev
	}
	if rev, ok := strings.CutPrefix(svc, "istiod-"); ok {
		return rev
	}
	return "default"
}

func (c *Cluster) configData(ns, name string) map[string]string {
	e := c.st.get(objectKey{grConfigMaps, ns, name})
	if e == nil {
		return nil
	}
	data, _, _ := unstructured.NestedStringMap(e.obj.Object, "data")
	return data
}

// discoveryImage is the image of istiod's discovery container.
func discoveryImage(deploy *unstructured.Unstructured) string {
	list, _, _ := unstructured.NestedFieldNoCopy(deploy.Object, "spec", "template", "spec", "containers")
	containers, _ := list.([]any)
	image := ""
	for i, x := range containers {
		m, _ := x.(map[string]any)
		s, _ := m["image"].(string)
		if i == 0 || m["name"] == "discovery" {
			image = s
		}
	}
	return image
}
