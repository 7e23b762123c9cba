package mesh_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// realManifest is what the real istioctl 1.30.3 rendered; it is not part of
// the repository.
const realManifest = "../../../../shared/fixtures/manifests/istio-1.30.3-default.yaml"

func manifest(t testing.TB, path string) []*unstructured.Unstructured {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []*unstructured.Unstructured
	for _, doc := range strings.Split("\n"+string(data), "\n---") {
		raw, err := yaml.ToJSON([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		if string(raw) == "null" {
			continue
		}
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(raw); err != nil {
			t.Fatal(err)
		}
		out = append(out, u)
	}
	return out
}

func small(t testing.TB) []*unstructured.Unstructured {
	return mesh.Retag(manifest(t, filepath.Join("testdata", "small-1.31.0.yaml")), "1.31.0", "1.30.3")
}

func cluster(t testing.TB, spec mesh.Spec, rendered []*unstructured.Unstructured) *sim.Cluster {
	t.Helper()
	c, err := sim.New(sim.Options{Seed: spec.Seed, Controllers: controllers.All(), Injector: mesh.StubInjector{}, InjectOnLoad: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := mesh.Populate(c, mesh.Build(spec, rendered)); err != nil {
		t.Fatal(err)
	}
	return c
}

// unready lists what is not as a healthy mesh should be.
func unready(c *sim.Cluster) []string {
	var out []string
	pods := 0
	for _, o := range c.Objects() {
		num := func(path ...string) int64 {
			n, _, _ := unstructured.NestedInt64(o.Object, path...)
			return n
		}
		name := o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
		switch o.GetKind() {
		case "Deployment":
			if w := num("spec", "replicas"); w == 0 || num("status", "availableReplicas") != w || num("status", "updatedReplicas") != w {
				out = append(out, name)
			}
		case "StatefulSet":
			if w := num("spec", "replicas"); num("status", "readyReplicas") != w || num("status", "updatedReplicas") != w {
				out = append(out, name)
			}
		case "DaemonSet":
			if w := num("status", "desiredNumberScheduled"); w == 0 || num("status", "numberAvailable") != w {
				out = append(out, name)
			}
		case "Pod":
			pods++
			if conditionStatus(o, "Ready") != "True" {
				out = append(out, name)
			}
		case "PodDisruptionBudget":
			if num("status", "disruptionsAllowed") < 1 {
				out = append(out, name)
			}
		case "Event":
			if k, _, _ := unstructured.NestedString(o.Object, "type"); k == "Warning" {
				reason, _, _ := unstructured.NestedString(o.Object, "reason")
				message, _, _ := unstructured.NestedString(o.Object, "message")
				if reason != "FailedCreate" { // while istiod starts, its webhook fails
					out = append(out, name+" "+message)
				}
			}
		}
	}
	if pods == 0 {
		out = append(out, "no pods at all")
	}
	return out
}

func conditionStatus(o *unstructured.Unstructured, kind string) string {
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range list {
		if m := c.(map[string]any); m["type"] == kind {
			s, _ := m["status"].(string)
			return s
		}
	}
	return ""
}

// proxies counts the images of sidecars.
func proxies(c *sim.Cluster) map[string]int {
	n := map[string]int{}
	for _, o := range c.Objects() {
		if o.GetKind() != "Pod" || o.GetNamespace() == mesh.SystemNamespace {
			continue
		}
		list, _, _ := unstructured.NestedSlice(o.Object, "spec", "initContainers")
		image := "none"
		for _, x := range list {
			if m := x.(map[string]any); m["name"] == mesh.ProxyContainer {
				image, _ = m["image"].(string)
			}
		}
		n[image]++
	}
	return n
}

func TestHealthyMeshBecomesReady(t *testing.T) {
	spec := mesh.Default()
	spec.BarePods = 2
	c := cluster(t, spec, small(t))
	c.Advance(time.Minute)
	if bad := unready(c); len(bad) > 0 {
		t.Errorf("not ready after a minute:\n%s", strings.Join(bad, "\n"))
	}
	n := proxies(c)
	if n["docker.io/istio/proxyv2:1.30.3"] < 100 || n["none"] == 0 || len(n) != 2 {
		t.Errorf("proxies %v", n)
	}
}

func TestHealthyMeshOfTheRealManifest(t *testing.T) {
	if _, err := os.Stat(realManifest); err != nil {
		t.Skipf("the manifest of the real istioctl is not at hand: %v", err)
	}
	c := cluster(t, mesh.Default(), manifest(t, realManifest))
	c.Advance(time.Minute)
	if bad := unready(c); len(bad) > 0 {
		t.Errorf("not ready after a minute:\n%s", strings.Join(bad, "\n"))
	}
	if n := proxies(c); n["docker.io/istio/proxyv2:1.30.3"] < 100 || len(n) != 2 {
		t.Errorf("proxies %v", n)
	}
}

func TestInstalledFieldsBelongToTheInstaller(t *testing.T) {
	c := cluster(t, mesh.Default(), small(t))
	managers := map[string]string{}
	for _, o := range c.Objects() {
		for _, m := range o.GetManagedFields() {
			if m.Operation == "Apply" {
				managers[o.GetKind()+"/"+o.GetName()] = m.Manager
			}
		}
	}
	for _, name := range []string{"Deployment/istiod", "ConfigMap/istio", "CustomResourceDefinition/destinationrules.networking.istio.io", "MutatingWebhookConfiguration/istio-sidecar-injector"} {
		if managers[name] != mesh.InstallManager {
			t.Errorf("%s is applied by %q", name, managers[name])
		}
	}
	if m := managers["Deployment/web"]; m != "" {
		t.Errorf("a workload is applied by %q", m)
	}
}

func TestRestartTakesTheNewProxy(t *testing.T) {
	spec := mesh.Default()
	spec.Workloads, spec.Namespaces, spec.NoSidecar = 6, 2, 0
	c := cluster(t, spec, small(t))
	c.Advance(time.Minute)
	var changed []*unstructured.Unstructured
	for _, o := range c.Objects() {
		switch {
		case o.GetKind() == "ConfigMap" && o.GetName() == "istio-sidecar-injector":
			values, _, _ := unstructured.NestedString(o.Object, "data", "values")
			o.Object["data"].(map[string]any)["values"] = strings.ReplaceAll(values, "1.30.3", "1.31.0")
			changed = append(changed, o)
		case o.GetNamespace() != mesh.SystemNamespace && (o.GetKind() == "Deployment" || o.GetKind() == "StatefulSet" || o.GetKind() == "DaemonSet"):
			if err := unstructured.SetNestedField(o.Object, "2026-01-01T00:01:00Z", "spec", "template", "metadata", "annotations", "kubectl.kubernetes.io/restartedAt"); err != nil {
				t.Fatal(err)
			}
			changed = append(changed, o)
		}
	}
	put(t, c, changed...)
	c.Advance(5 * time.Minute)
	if bad := unready(c); len(bad) > 0 {
		t.Errorf("not ready after the restarts:\n%s", strings.Join(bad, "\n"))
	}
	if n := proxies(c); len(n) != 1 || n["docker.io/istio/proxyv2:1.31.0"] == 0 {
		t.Errorf("proxies %v", n)
	}
}

func TestTwoClustersAreIdentical(t *testing.T) {
	run := func() string {
		spec := mesh.Default()
		spec.Workloads, spec.Namespaces = 20, 4
		c := cluster(t, spec, small(t))
		c.Advance(time.Minute)
		data, err := json.Marshal(c.Objects())
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	first, second := run(), run()
	if first != second {
		t.Error("two runs of one mesh differ")
	}
}

func BenchmarkMesh60(b *testing.B) {
	rendered := small(b)
	for b.Loop() {
		c := cluster(b, mesh.Default(), rendered)
		c.Advance(time.Minute)
		if bad := unready(c); len(bad) > 0 {
			b.Fatal(bad)
		}
	}
}

// TestStandInAgainstTheRealManifest compares the re-tagged render with what it
// stands for: nothing but versions and what Retag says may differ in the
// control plane.
func TestStandInAgainstTheRealManifest(t *testing.T) {
	newer := strings.ReplaceAll(realManifest, "1.30.3", "1.31.0")
	for _, path := range []string{realManifest, newer} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("the manifests of the real istioctl are not at hand: %v", err)
		}
	}
	key := func(o *unstructured.Unstructured) string {
		return o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
	}
	missing := map[string]bool{}
	for _, o := range manifest(t, realManifest) {
		missing[key(o)] = true
	}
	standIn := mesh.Retag(manifest(t, newer), "1.31.0", "1.30.3")
	for _, o := range standIn {
		if !missing[key(o)] {
			t.Errorf("%s is not in the real manifest", key(o))
		}
		delete(missing, key(o))
	}
	if len(missing) != 1 || !missing["HorizontalPodAutoscaler istio-system/istio-ingressgateway"] {
		t.Errorf("the real manifest has besides: %v", missing)
	}
	data, err := json.Marshal(standIn)
	if err != nil {
		t.Fatal(err)
	}
	for _, newPart := range []string{"1.31.0", "zoneAwareLbSetting"} {
		if strings.Contains(string(data), newPart) {
			t.Errorf("the stand-in still has %s", newPart)
		}
	}
}

// TestReopenedClusterGoesOn stops a cluster in the middle of its first rollout,
// and then of a failing one.
func TestReopenedClusterGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cluster")
	options := sim.Options{Seed: 1, Controllers: controllers.All(), Injector: mesh.StubInjector{}, InjectOnLoad: true}
	c, err := sim.Open(path, options)
	if err != nil {
		t.Fatal(err)
	}
	spec := mesh.Default()
	spec.Workloads, spec.Namespaces = 12, 3
	if err := mesh.Populate(c, mesh.Build(spec, small(t))); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		c.Advance(time.Second)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if c, err = sim.Open(path, options); err != nil {
			t.Fatal(err)
		}
	}
	if bad := unready(c); len(bad) > 0 {
		t.Errorf("not ready, reopened every second:\n%s", strings.Join(bad, "\n"))
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestMeshOfARevision(t *testing.T) {
	path := strings.ReplaceAll(realManifest, "-default", "-default-rev")
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the manifest of the real istioctl is not at hand: %v", err)
	}
	spec := mesh.Default()
	rendered := manifest(t, path)
	for _, o := range rendered {
		if o.GetKind() == "MutatingWebhookConfiguration" {
			spec.Revision = o.GetLabels()["istio.io/rev"]
		}
	}
	c := cluster(t, spec, rendered)
	c.Advance(time.Minute)
	if bad := unready(c); len(bad) > 0 {
		t.Errorf("not ready after a minute:\n%s", strings.Join(bad, "\n"))
	}
	if n := proxies(c); n["docker.io/istio/proxyv2:1.30.3"] < 100 {
		t.Errorf("proxies %v", n)
	}
}
