//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"testing"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/tests/e2e/plane"
)

// proxies are the images of all proxies that run, as kubectl lists them.
func proxies(t *testing.T, p *plane.Plane) []string {
	t.Helper()
	const path = `{range .items[?(@.status.phase=="Running")]}{range .spec.initContainers[?(@.name=="istio-proxy")]}{.image}{"\n"}{end}{range .spec.containers[?(@.name=="istio-proxy")]}{.image}{"\n"}{end}{end}`
	return strings.Fields(kubectl(t, p, "get", "pods", "-A", "-o", "jsonpath="+path).want(t, 0).out)
}

// The in-place runbook upgrades a mesh that was installed by istioctl: every
// sidecar is injected anew by the real webhook, and the API server's own record
// says that nobody else was asked to change anything.
func TestInPlaceUpgrade(t *testing.T) {
	p := startPlane(t, plane.Options{})
	old, err := p.IstioManifest(t.Context(), "1.30.3")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.InstallIstio(t.Context(), "1.30.3", old); err != nil {
		t.Fatal(err)
	}
	spec := mesh.Spec{Istio: "1.30.3", Workloads: 12, Namespaces: 3, Seed: 1, NoSidecar: 1}
	if err := p.Populate(t.Context(), spec, old); err != nil {
		t.Fatal(err)
	}
	before := proxies(t, p)
	if i := slices.IndexFunc(before, func(image string) bool { return image != "docker.io/istio/proxyv2:1.30.3" }); i >= 0 || len(before) < spec.Workloads {
		t.Fatalf("before the upgrade: %d proxies, one of them %v", len(before), before)
	}
	mark, err := p.AuditMark()
	if err != nil {
		t.Fatal(err)
	}

	state := t.TempDir()
	rutter(t, state, p.Kubeconfig(), "run", "runbooks/istio/in-place.star", "--set", "to=1.31.0", "--set", "soak=1s", "--yes").want(t, 0)

	after := proxies(t, p)
	if i := slices.IndexFunc(after, func(image string) bool { return image != "docker.io/istio/proxyv2:1.31.0" }); i >= 0 || len(after) != len(before) {
		t.Errorf("after the upgrade: %d proxies, before it %d; one of them %v", len(after), len(before), after)
	}
	image := kubectl(t, p, "-n", "istio-system", "get", "deployment", "istiod", "-o", "jsonpath={.spec.template.spec.containers[0].image}").want(t, 0).out
	if image != "docker.io/istio/pilot:1.31.0" {
		t.Errorf("istiod is %s", image)
	}
	writes, err := p.AuditSince(mark, plane.WritesBy(plane.Operator))
	if err != nil {
		t.Fatal(err)
	}
	if len(writes) == 0 {
		t.Error("the audit log knows of no change")
	}
	if i := slices.IndexFunc(writes, func(e auditv1.Event) bool { return !strings.HasPrefix(e.UserAgent, "rutter") }); i >= 0 {
		t.Errorf("a change by %s", writes[i].UserAgent)
	}
	versions, err := p.Istioctl(t.Context(), "version", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(versions, "1.30.3") {
		t.Errorf("istioctl still sees the old version:\n%s", versions)
	}
}
