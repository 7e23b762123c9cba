package mesh_test

import (
	"context"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"

	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// validator is Istio's validation webhook as it is once istiod is ready: until
// then it is installed with failurePolicy Ignore, and istiod makes it Fail.
const validator = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: istio-validator-istio-system}
webhooks:
- name: rev.validation.istio.io
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  clientConfig: {service: {name: istiod, namespace: istio-system, path: /validate}}
  rules:
  - {apiGroups: [security.istio.io, networking.istio.io, telemetry.istio.io, extensions.istio.io], apiVersions: ["*"], operations: [CREATE, UPDATE], resources: ["*"]}
`

const rule = `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: cold}
spec: {host: web}
`

func decode(t testing.TB, doc string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

// frozen is a mesh whose injected namespace cold is ready to be written to,
// and a function that sets how many istiods there are.
func frozen(t *testing.T) (*sim.Cluster, client, func(replicas string)) {
	t.Helper()
	spec := mesh.Default()
	spec.Workloads, spec.Namespaces, spec.NoSidecar = 2, 1, 0
	c := cluster(t, spec, small(t))
	c.Advance(time.Minute)
	cl := newClient(t, c)
	for _, o := range []*unstructured.Unstructured{
		decode(t, "{apiVersion: v1, kind: Namespace, metadata: {name: cold, labels: {istio-injection: enabled}}}"),
		decode(t, "{apiVersion: v1, kind: Namespace, metadata: {name: plain}}"),
		decode(t, validator),
	} {
		if _, err := cl.resource(o).Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	scale := func(replicas string) {
		t.Helper()
		d := cl.d.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}).Namespace(mesh.SystemNamespace)
		if _, err := d.Patch(t.Context(), "istiod", types.MergePatchType, []byte(`{"spec":{"replicas":`+replicas+`}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return c, cl, scale
}

// TestValidationWithoutIstiodFreezesConfiguration is the first of the failures
// seen in real upgrades: a validation webhook whose istiod is gone.
func TestValidationWithoutIstiodFreezesConfiguration(t *testing.T) {
	c, cl, scale := frozen(t)
	ctx := context.Background()
	dr := decode(t, rule)
	if _, err := cl.resource(dr).Create(ctx, dr, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	scale("0")
	const text = `Internal error occurred: failed calling webhook "rev.validation.istio.io": failed to call webhook: ` +
		`Post "https://istiod.istio-system.svc:443/validate?timeout=10s": no endpoints available for service "istiod"`
	refused := func(what string, err error) {
		t.Helper()
		if !apierrors.IsInternalError(err) || err.Error() != text {
			t.Errorf("%s: %v, expected %s", what, err, text)
		}
	}
	other := dr.DeepCopy()
	other.SetName("other")
	_, err := cl.resource(other).Create(ctx, other, metav1.CreateOptions{})
	refused("create", err)
	_, err = cl.resource(other).Create(ctx, other, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	refused("dry-run create", err)
	_, err = cl.resource(dr).Patch(ctx, "web", types.MergePatchType, []byte(`{"spec":{"host":"other"}}`), metav1.PatchOptions{})
	refused("patch", err)
	_, err = cl.resource(dr).Apply(ctx, "web", dr, metav1.ApplyOptions{FieldManager: "test", Force: true})
	refused("apply", err)
	cm := decode(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: free, namespace: cold}}")
	if _, err := cl.resource(cm).Create(ctx, cm, metav1.CreateOptions{}); err != nil {
		t.Errorf("what is no configuration of Istio: %v", err)
	}
	svc := decode(t, "{apiVersion: v1, kind: Service, metadata: {name: istiod, namespace: istio-system}}")
	if err := cl.resource(svc).Delete(ctx, "istiod", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err = cl.resource(other).Create(ctx, other, metav1.CreateOptions{}); err == nil || !strings.HasSuffix(err.Error(), `service "istiod" not found`) {
		t.Errorf("without the Service: %v", err)
	}
	if err := cl.resource(dr).Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Errorf("the webhook is not asked about deletions: %v", err)
	}
	// The way out of the real trap: the configuration itself is never guarded.
	hook := decode(t, validator)
	if err := cl.resource(hook).Delete(ctx, hook.GetName(), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.resource(other).Create(ctx, other, metav1.CreateOptions{}); err != nil {
		t.Errorf("without the webhook: %v", err)
	}
	c.Advance(time.Minute)
}

func TestIgnoredValidationFreezesNothing(t *testing.T) {
	_, cl, scale := frozen(t)
	hook := decode(t, validator)
	if _, err := cl.resource(hook).Patch(t.Context(), hook.GetName(), types.JSONPatchType,
		[]byte(`[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Ignore"}]`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	scale("0")
	dr := decode(t, rule)
	if _, err := cl.resource(dr).Create(t.Context(), dr, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
}

// TestInjectionWithoutIstiodRefusesPods holds that neither clients nor
// controllers get a pod into an injected namespace, and that the controllers
// go on by themselves when istiod is back.
func TestInjectionWithoutIstiodRefusesPods(t *testing.T) {
	c, cl, scale := frozen(t)
	scale("0")
	const text = `Internal error occurred: failed calling webhook "namespace.sidecar-injector.istio.io": failed to call webhook: ` +
		`Post "https://istiod.istio-system.svc:443/inject?timeout=10s": no endpoints available for service "istiod"`
	pod := decode(t, "{apiVersion: v1, kind: Pod, metadata: {name: probe, namespace: cold}, spec: {containers: [{name: app, image: 'web:1'}]}}")
	for _, o := range []metav1.CreateOptions{{}, {DryRun: []string{metav1.DryRunAll}}} {
		if _, err := cl.resource(pod).Create(t.Context(), pod, o); !apierrors.IsInternalError(err) || err.Error() != text {
			t.Errorf("%v, expected %s", err, text)
		}
	}
	elsewhere := pod.DeepCopy()
	elsewhere.SetNamespace("plain")
	if _, err := cl.resource(elsewhere).Create(t.Context(), elsewhere, metav1.CreateOptions{}); err != nil {
		t.Errorf("in a namespace without injection: %v", err)
	}
	web := decode(t, `{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: cold}, spec: {
		selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: app, image: 'web:1'}]}}}}`)
	if _, err := cl.resource(web).Create(t.Context(), web, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.Advance(10 * time.Second)
	var told bool
	for _, o := range c.Objects() {
		if o.GetKind() == "Pod" && o.GetNamespace() == "cold" {
			t.Errorf("a pod got in: %s", o.GetName())
		}
		if message, _, _ := unstructured.NestedString(o.Object, "message"); o.GetKind() == "Event" && message == "Error creating: "+text {
			told = true
		}
	}
	if !told {
		t.Error("no FailedCreate event tells why")
	}
	scale("1")
	c.Advance(2 * time.Minute)
	if _, err := cl.resource(pod).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Errorf("with istiod back: %v", err)
	}
	got, err := cl.resource(web).Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n, _, _ := unstructured.NestedInt64(got.Object, "status", "availableReplicas"); n != 1 {
		t.Errorf("the Deployment has not recovered: %v", got.Object["status"])
	}
}
