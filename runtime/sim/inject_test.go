package sim_test

import (
	"errors"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

func parseGV(s string) (schema.GroupVersion, error) { return schema.ParseGroupVersion(s) }

// sidecar is an injector that adds a container named after the revision.
type sidecar struct{ last *sim.InjectionRequest }

func (s *sidecar) Inject(in sim.InjectionRequest) (*unstructured.Unstructured, error) {
	s.last = &in
	out := in.Pod.DeepCopy()
	list, _, err := unstructured.NestedSlice(out.Object, "spec", "containers")
	if err != nil {
		return nil, err
	}
	list = append(list, object{"name": "istio-proxy", "image": in.InjectorConfig["image"]})
	return out, unstructured.SetNestedSlice(out.Object, list, "spec", "containers")
}

func TestInjectionFollowsWebhooks(t *testing.T) {
	ctx := t.Context()
	inj := &sidecar{}
	c, d := newCluster(t, sim.Options{Injector: inj})
	webhook := func(policy string) *unstructured.Unstructured {
		w := obj("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "", "istio-sidecar-injector-"+strings.ToLower(policy), object{"webhooks": []any{object{
			"name": "rev.namespace.sidecar-injector.istio.io", "sideEffects": "None", "admissionReviewVersions": []any{"v1"}, "failurePolicy": policy,
			"clientConfig":      object{"service": object{"name": "istiod-1-30", "namespace": "istio-system", "path": "/inject"}},
			"namespaceSelector": object{"matchLabels": object{"istio.io/rev": "1-30"}},
			"rules":             []any{object{"operations": []any{"CREATE"}, "apiGroups": []any{""}, "apiVersions": []any{"v1"}, "resources": []any{"pods"}}},
		}}})
		w.SetLabels(map[string]string{"istio.io/rev": "1-30"})
		return w
	}
	istiod := obj("v1", "Pod", "istio-system", "istiod", object{
		"spec":   object{"containers": []any{object{"name": "discovery", "image": "istio/pilot:1.30.3"}}},
		"status": object{"phase": "Running", "conditions": []any{object{"type": "Ready", "status": "True"}}},
	})
	istiod.SetLabels(map[string]string{"app": "istiod"})
	shop := obj("v1", "Namespace", "", "shop", nil)
	shop.SetLabels(map[string]string{"istio.io/rev": "1-30"})
	if err := c.Load([]*unstructured.Unstructured{
		obj("v1", "Namespace", "", "istio-system", nil), shop, webhook("Fail"), istiod,
		obj("v1", "Service", "istio-system", "istiod-1-30", object{"spec": object{"selector": object{"app": "istiod"}, "ports": []any{object{"port": int64(443)}}}}),
		obj("v1", "ConfigMap", "istio-system", "istio-sidecar-injector-1-30", object{"data": object{"image": "proxy:1.30.3"}}),
	}); err != nil {
		t.Fatal(err)
	}
	pod := func(name string) *unstructured.Unstructured {
		return obj("v1", "Pod", "shop", name, object{"spec": object{"containers": []any{object{"name": "app", "image": "web:1"}}}})
	}
	pi := d.Resource(pods).Namespace("shop")
	p := must(t)(pi.Create(ctx, pod("a"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}))
	list, _ := at(p, "spec", "containers").([]any)
	if len(list) != 2 || list[1].(object)["image"] != "proxy:1.30.3" || inj.last.Revision != "1-30" {
		t.Fatalf("%v", p.Object["spec"])
	}
	if err := d.Resource(pods).Namespace("istio-system").Delete(ctx, "istiod", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := pi.Create(ctx, pod("b"), metav1.CreateOptions{})
	if !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), `failed calling webhook "rev.namespace.sidecar-injector.istio.io"`) || !strings.Contains(err.Error(), "no endpoints available") {
		t.Errorf("%v", err)
	}
	hooks := schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"}
	if err := d.Resource(hooks).Delete(ctx, "istio-sidecar-injector-fail", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	must(t)(d.Resource(hooks).Create(ctx, webhook("Ignore"), metav1.CreateOptions{}))
	p = must(t)(pi.Create(ctx, pod("c"), metav1.CreateOptions{}))
	if list, _ := at(p, "spec", "containers").([]any); len(list) != 1 {
		t.Errorf("injected without a control plane: %v", list)
	}
}

func TestAdmissionHookAndAccessReview(t *testing.T) {
	ctx := t.Context()
	c, d := newCluster(t, sim.Options{})
	c.OnAdmission(func(a sim.Admission) error {
		if a.Resource == "configmaps" && a.Operation == "DELETE" {
			return errors.New("config maps stay")
		}
		return nil
	})
	cm := d.Resource(configMaps).Namespace("shop")
	must(t)(cm.Create(ctx, configMap("a", nil), metav1.CreateOptions{}))
	if err := cm.Delete(ctx, "a", metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "config maps stay") {
		t.Errorf("%v", err)
	}
	c.Deny(sim.DenyRule{Verb: "delete", Resource: "secrets", Reason: "not yours"})
	reviews := schema.GroupVersionResource{Group: "authorization.k8s.io", Version: "v1", Resource: "selfsubjectaccessreviews"}
	ask := func(verb string) any {
		r := must(t)(d.Resource(reviews).Create(ctx, obj("authorization.k8s.io/v1", "SelfSubjectAccessReview", "", "", object{"spec": object{"resourceAttributes": object{"verb": verb, "resource": "secrets"}}}), metav1.CreateOptions{}))
		return at(r, "status", "allowed")
	}
	if ask("get") != true || ask("delete") != false {
		t.Error("access reviews do not follow the deny rule")
	}
}
