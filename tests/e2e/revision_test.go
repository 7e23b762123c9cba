//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/tests/e2e/plane"
)

// A second istiod is installed beside the first, namespaces, gateway and tags
// move to it, the first goes. Both are real, and so are the webhooks that decide
// which of them a new pod gets. Before that, the mesh serves plans by users who
// may not do all that a plan asks for, which leave it as it is.
func TestRevisionCanary(t *testing.T) {
	parallel(t, 95*time.Second)
	p := startPlane(t, plane.Options{AuditLevel: "Request", FirstPort: besides(24)})
	old := bringMesh(t, p, mesh.Spec{Workloads: 10, Namespaces: 4, Seed: 1, NoSidecar: 1})
	planWithout(t, p)
	before, mark := workloads(t, p), auditMark(t, p)
	follow := labelled(t, p, "istio-injection=enabled")

	r := rutter(t, t.TempDir(), p.Kubeconfig(), "run", "runbooks/istio/revision-canary.star",
		"--set", "to=1.31.0", "--set", "soak=1s", "--set", "final_soak=1s", "--yes").want(t, 0)
	r.says(t, "replaced by 1-31-0 (1.31.0)")

	after := workloads(t, p)
	for name, w := range before {
		if w.sidecar() {
			restartedOnce(t, w, after[name])
		} else {
			untouched(t, w, after[name])
		}
	}
	if got := slices.Compact(slices.Sorted(slices.Values(proxies(t, p)))); !slices.Equal(got, []string{newProxy}) {
		t.Errorf("the proxies of the mesh, its gateway's among them, are %v", got)
	}
	if got := labelled(t, p, "istio.io/rev=stable"); !slices.Equal(got, follow) {
		t.Errorf("%v follow the stable tag; %v were injected before", got, follow)
	}
	if got := labelled(t, p, "istio-injection"); len(got) > 0 {
		t.Errorf("%v have the label still that would win over the tag", got)
	}
	onlyRevision(t, p, "1-31-0")
	injectedByTag(t, p, follow[0])
	probed(t, p)
	var ofOld []string
	for _, o := range old {
		ofOld = append(ofOld, o.GetName())
	}
	removed := 0
	for _, c := range changes(t, p, mark) {
		if c.verb != "delete" {
			continue
		}
		removed++
		if !slices.Contains(ofOld, c.name) && !strings.HasSuffix(c.name, "-revision-tag-canary") {
			t.Errorf("%s: it was not the old control plane's", c.what())
		}
	}
	if removed == 0 {
		t.Error("nothing of the old control plane was removed")
	}
}

// labelled are the namespaces that a selector picks, as kubectl lists them.
func labelled(t *testing.T, p *plane.Plane, selector string) []string {
	t.Helper()
	out := kubectl(t, p, "get", "namespaces", "-l", selector, "-o", "name").want(t, 0).out
	return slices.Sorted(strings.FieldsSeq(strings.ReplaceAll(out, "namespace/", "")))
}

// onlyRevision fails the test unless a revision's control plane is the only one,
// and is what all webhooks ask.
func onlyRevision(t *testing.T, p *plane.Plane, revision string) {
	t.Helper()
	c, own := client(t, p), "istiod-"+revision
	planes, err := c.AppsV1().Deployments("").List(t.Context(), metav1.ListOptions{LabelSelector: "app=istiod"})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range planes.Items {
		if d.Name != own || d.Status.ReadyReplicas == 0 {
			t.Errorf("control plane %s, %d replicas ready; want %s alone", d.Name, d.Status.ReadyReplicas, own)
		}
	}
	injectors, err := c.AdmissionregistrationV1().MutatingWebhookConfigurations().List(t.Context(), metav1.ListOptions{LabelSelector: "app=sidecar-injector"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, w := range injectors.Items {
		names = append(names, w.Name)
		for _, h := range w.Webhooks {
			if h.ClientConfig.Service.Name != own || len(h.ClientConfig.CABundle) == 0 {
				t.Errorf("webhook %s of %s asks %s, with %d bytes of its authority's certificate", h.Name, w.Name, h.ClientConfig.Service.Name, len(h.ClientConfig.CABundle))
			}
		}
	}
	if want := []string{"istio-revision-tag-default", "istio-revision-tag-stable", "istio-sidecar-injector-" + revision}; !slices.Equal(names, want) {
		t.Errorf("the injection webhooks are %v, want %v", names, want)
	}
	validators, err := c.AdmissionregistrationV1().ValidatingWebhookConfigurations().List(t.Context(), metav1.ListOptions{LabelSelector: "app=istiod"})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range validators.Items {
		for _, h := range w.Webhooks {
			if h.ClientConfig.Service.Name != own {
				t.Errorf("validation by %s of %s asks %s", h.Name, w.Name, h.ClientConfig.Service.Name)
			}
		}
	}
	if len(planes.Items) != 1 || len(validators.Items) == 0 {
		t.Errorf("%d control planes, %d validation webhooks", len(planes.Items), len(validators.Items))
	}
}

// injectedByTag makes a pod anew, which the API server has the webhook of the tag
// look at, without keeping it.
func injectedByTag(t *testing.T, p *plane.Plane, namespace string) {
	t.Helper()
	image := kubectl(t, p, "-n", namespace, "run", "probe", "--image=registry.example/probe:1", "--dry-run=server",
		"-o", `jsonpath={.spec.initContainers[?(@.name=="istio-proxy")].image}{.spec.containers[?(@.name=="istio-proxy")].image}`).want(t, 0).out
	if image != newProxy {
		t.Errorf("a new pod in %s gets the proxy %q, want %s", namespace, image, newProxy)
	}
}

// askIstiod asks the istiods what they report, and a gateway in which nothing
// listens, both by way of the API server.
const askIstiod = `
load("@stdlib//telemetry.star", "control_plane_reports")

runbook(name = "ask", version = "1.0.0", api = 1)

def run(p):
    found = step("control plane", control_plane_reports, to = "1.31.0", over = "1s")
    log("%d istiods, connected %s" % (found["istiods"], found["connected"] > 0))
    for path in ("/version", "/nowhere"):
        got = kube.probe("svc/istiod-1-31-0", namespace = "istio-system", port = 15014, path = path, expect = [200])
        log("%s: %d %s" % (path, got.status, got.problem))
    got = kube.probe("svc/istio-ingressgateway", namespace = "istio-system", port = 80, host = "shop.example")
    log("gateway: %d %s" % (got.status, got.problem[:15]))
`

// probed is what a runbook's probes find: answers of the real istiod.
func probed(t *testing.T, p *plane.Plane) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ask.star")
	if err := os.WriteFile(file, []byte(askIstiod), 0o600); err != nil {
		t.Fatal(err)
	}
	r := rutter(t, t.TempDir(), p.Kubeconfig(), "run", file, "--yes").want(t, 0)
	for _, line := range []string{"1 istiods, connected True", "/version: 200\n", "/nowhere: 404 HTTP 404, want 200", "gateway: 0 nobody answers:"} {
		r.says(t, line)
	}
}
