//go:build e2e

package e2e

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/tests/e2e/plane"
)

// A mesh in ambient mode: istiod by revision, CNI and ztunnel node by node, the
// waypoints that the real istiod keeps by tag.
func TestAmbient(t *testing.T) {
	parallel(t, 90*time.Second)
	p := startPlane(t, plane.Options{AuditLevel: "Request", FirstPort: besides(26)})
	if err := p.InstallGatewayAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	bringMesh(t, p, mesh.Spec{Workloads: 6, Namespaces: 4, Ambient: 3, Seed: 1})
	flat := labelled(t, p, "istio.io/dataplane-mode=ambient")
	for _, ns := range flat[:2] {
		apply(t, p, strings.ReplaceAll(waypoint, "NAMESPACE", ns))
	}
	waypoints(t, p, flat[:2], oldProxy)
	before := workloads(t, p)

	rutter(t, t.TempDir(), p.Kubeconfig(), "run", "runbooks/istio/ambient.star",
		"--set", "to=1.31.0", "--set", "soak=1s", "--set", "final_soak=1s", "--yes").want(t, 0)

	waypoints(t, p, flat[:2], newProxy)
	for _, agent := range []string{"istio-cni-node", "ztunnel"} {
		r := kubectl(t, p, "-n", mesh.SystemNamespace, "get", "pods", "-o", "jsonpath={.items[?(@.metadata.ownerReferences[0].name=='"+agent+"')].spec.containers[0].image}").want(t, 0)
		images := strings.Fields(r.out)
		if len(images) != 3 || slices.ContainsFunc(images, func(i string) bool { return !strings.Contains(i, ":1.31.0") }) {
			t.Errorf("%s runs %v on 3 nodes", agent, images)
		}
	}
	onlyRevision(t, p, "1-31-0")
	after := workloads(t, p)
	for name, w := range before {
		if slices.Contains(flat, w.namespace) && w.name != "waypoint" {
			untouched(t, w, after[name])
		}
	}
}

const waypoint = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: NAMESPACE}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
`

// waypoints waits until the waypoints of namespaces run a proxy.
func waypoints(t *testing.T, p *plane.Plane, namespaces []string, image string) {
	t.Helper()
	until(t, "waypoints run "+image, func(context.Context) (bool, error) {
		all := workloads(t, p)
		for _, ns := range namespaces {
			w := all["Deployment "+ns+"/waypoint"]
			if w == nil || w.ready == 0 || !runs(w, image) {
				return false, nil
			}
		}
		return true, nil
	})
}
