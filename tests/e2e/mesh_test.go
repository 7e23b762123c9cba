//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/tests/e2e/plane"
)

// besides is where the ports of a plane begin that runs beside others: apart
// from theirs, which are all reserved before their processes take them.
func besides(n int) int { return 26000 + 100*n }

// bringMesh installs Istio 1.30.3 with some objects besides, as istioctl of
// that version would, and the workloads of a generated mesh around it. It returns
// what was installed.
func bringMesh(t *testing.T, p *plane.Plane, spec mesh.Spec, besides ...*plane.Object) []*plane.Object {
	t.Helper()
	spec.Istio = "1.30.3"
	profile := plane.DefaultProfile
	if spec.Ambient > 0 {
		profile = plane.AmbientProfile
	}
	old, err := p.IstioManifest(t.Context(), spec.Istio, profile)
	if err != nil {
		t.Fatal(err)
	}
	old = append(slices.Clone(old), besides...)
	if err := p.InstallIstio(t.Context(), spec.Istio, old); err != nil {
		t.Fatal(err)
	}
	if err := p.Populate(t.Context(), spec, old); err != nil {
		t.Fatal(err)
	}
	all := workloads(t, p)
	n := 0
	for _, w := range all {
		if w.sidecar() && !runs(w, oldProxy) {
			t.Fatalf("%s: its proxies are %v before anything was done", w, w.proxies())
		}
		if w.restartable() {
			n++
		}
	}
	if n != spec.Workloads {
		t.Fatalf("there are %d workloads, want %d", n, spec.Workloads)
	}
	return old
}

// runs tells whether a proxy is the only one that a workload has, whatever its
// image is built on: that of the ambient profile has no distribution in it.
func runs(w *workload, proxy string) bool {
	images := w.proxies()
	return len(images) == 1 && strings.TrimSuffix(images[0], "-distroless") == proxy
}

// upgrade runs the in-place runbook on the mesh.
func upgrade(t *testing.T, p *plane.Plane, state string, args ...string) result {
	t.Helper()
	return rutter(t, state, p.Kubeconfig(), inPlace(args...)...)
}

// inPlace is the command line of an in-place upgrade.
func inPlace(args ...string) []string {
	return append([]string{"run", "runbooks/istio/in-place.star", "--set", "to=1.31.0", "--set", "soak=1s", "--yes"}, args...)
}
