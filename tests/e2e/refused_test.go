//go:build e2e

package e2e

import (
	"context"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/tests/e2e/plane"
)

// says fails the test unless rutter's talk has all of some words.
func (r result) says(t *testing.T, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(r.errOut, w) {
			t.Errorf("it does not say %q:\n%s", w, r.errOut)
		}
	}
}

// A proxy that the target could not serve any more (1.29, which 1.30 still
// does): the precheck has an error, and the runbook ends there. One that goes
// on regardless is stopped by the host.
func refusedPrecheck(t *testing.T, p *plane.Plane) {
	const laggard = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: laggard, namespace: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: laggard}}
  template:
    metadata:
      labels: {app: laggard}
      annotations: {sidecar.istio.io/proxyImage: "docker.io/istio/proxyv2:1.29.9"}
    spec: {containers: [{name: app, image: registry.example/shop/laggard:1}]}
`
	apply(t, p, laggard)
	if err := p.AwaitRollouts(t.Context(), "shop", patience); err != nil {
		t.Fatal(err)
	}
	defer gone(t, p, "shop", "deployment", "laggard")

	unchanged(t, p, func() {
		r := upgrade(t, p, t.TempDir()).want(t, 1)
		r.says(t, "preflight found", "1 proxies would be out of skew", "1.29.9")
	})
	unchanged(t, p, func() {
		r := rutter(t, t.TempDir(), p.Kubeconfig(), "run", "tests/e2e/testdata/headlong.star", "--set", "to=1.31.0", "--yes").want(t, 3)
		r.says(t, "RUT004", "1 proxies would be out of skew")
	})
}

// gone deletes an object and waits until its pods (labelled app=NAME) are gone
// as well.
func gone(t *testing.T, p *plane.Plane, namespace, kind, name string) {
	t.Helper()
	kubectl(t, p, "-n", namespace, "delete", kind, name).want(t, 0)
	kubectl(t, p, "-n", namespace, "wait", "--for=delete", "pod", "-l", "app="+name, "--timeout=60s").want(t, 0)
}

// A policy of the cluster's owners refuses one object of the manifest, the new
// istiod: the dry-run of the host finds it before the first write.
func deniedApply(t *testing.T, p *plane.Plane) {
	const policy = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: signed-images}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
    - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}
  validations:
  - expression: object.spec.template.spec.containers.all(c, !c.image.endsWith("/pilot:1.31.0"))
    message: this image is not signed
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: signed-images}
spec: {policyName: signed-images, validationActions: [Deny]}
`
	apply(t, p, policy)
	defer func() {
		kubectl(t, p, "delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", "signed-images").want(t, 0)
		denies(t, p, false)
	}()
	denies(t, p, true)

	unchanged(t, p, func() {
		r := upgrade(t, p, t.TempDir()).want(t, 3)
		r.says(t, "RUT006", "deployment.apps/istiod", "this image is not signed")
	})
}

// denies waits until the API server does, or does not, hold requests to the
// policy: it learns of it a moment after it was made.
func denies(t *testing.T, p *plane.Plane, want bool) {
	t.Helper()
	const image = `{"spec":{"template":{"spec":{"containers":[{"name":"discovery","image":"docker.io/istio/pilot:1.31.0"}]}}}}`
	until(t, "the policy is in force or gone", func(ctx context.Context) (bool, error) {
		_, err := client(t, p).AppsV1().Deployments(mesh.SystemNamespace).Patch(ctx, "istiod",
			types.StrategicMergePatchType, []byte(image), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
		denied := err != nil && strings.Contains(err.Error(), "this image is not signed")
		if err != nil && !denied {
			return false, err
		}
		return denied == want, nil
	})
}

// Somebody else set a field that the manifest sets otherwise. rutter takes it
// from nobody whom the runbook does not name.
func foreignField(t *testing.T, p *plane.Plane) {
	const scaled = `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: istiod, namespace: istio-system}
spec:
  maxReplicas: 7
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: istiod}
`
	was := object(t, p, "autoscaling", "v2", "HorizontalPodAutoscaler", mesh.SystemNamespace, "istiod")
	hpa, err := plane.Parse([]byte(scaled))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(t.Context(), "gitops-team", hpa...); err != nil {
		t.Fatal(err)
	}
	defer func() {
		// What the installer set is the installer's again.
		back := &plane.Object{Object: map[string]any{
			"apiVersion": was.GetAPIVersion(), "kind": was.GetKind(), "spec": was.Object["spec"],
			"metadata": map[string]any{"name": was.GetName(), "namespace": was.GetNamespace(), "labels": was.Object["metadata"].(map[string]any)["labels"]},
		}}
		if err := p.Apply(t.Context(), mesh.InstallManager, back); err != nil {
			t.Error(err)
		}
	}()

	unchanged(t, p, func() {
		r := upgrade(t, p, t.TempDir()).want(t, 3)
		r.says(t, "RUT006", "horizontalpodautoscaler.autoscaling/istiod in istio-system: field .spec.maxReplicas is owned by gitops-team")
		if strings.Contains(r.errOut, "owned by "+mesh.InstallManager) {
			t.Errorf("it finds fault with fields that it was to adopt:\n%s", r.errOut)
		}
	})
}
