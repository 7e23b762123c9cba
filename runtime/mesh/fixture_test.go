package mesh_test

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/mesh"
	"rutter.dev/rutter/runtime/sim"
)

// TestRenderedMesh reads a mesh rendered by the real istioctl 1.30.3.
func TestRenderedMesh(t *testing.T) {
	for rev, file := range map[string]string{"default": "istio-1.30.3-default.yaml", "1-30-3": "istio-1.30.3-default-rev.yaml"} {
		raw, err := os.ReadFile("../../../shared/fixtures/manifests/" + file)
		if errors.Is(err, fs.ErrNotExist) {
			t.Skip("the rendered manifests of ../shared are not here")
		}
		if err != nil {
			t.Fatal(err)
		}
		r := loaded(t, string(raw))
		planes, err := mesh.ControlPlanes(t.Context(), r)
		if err != nil || len(planes) != 1 || planes[0].Version != "1.30.3" || planes[0].Revision != rev || planes[0].Ready {
			t.Fatalf("%s: control planes %+v, %v", file, planes, err)
		}
		images, err := mesh.ProxyImages(t.Context(), r, planes)
		if err != nil || images[rev] != "docker.io/istio/proxyv2:1.30.3" {
			t.Errorf("%s: images %v, %v", file, images, err)
		}
		ins, err := mesh.Injectors(t.Context(), r)
		if err != nil || len(ins) == 0 {
			t.Fatalf("%s: injectors %v, %v", file, ins, err)
		}
		for _, tc := range []struct {
			ns, pod map[string]string
			want    bool
		}{
			{map[string]string{"istio-injection": "enabled"}, nil, rev == "default"},
			{map[string]string{"istio.io/rev": rev}, nil, true},
			{map[string]string{"istio.io/rev": rev}, map[string]string{"sidecar.istio.io/inject": "false"}, false},
			{nil, nil, false},
		} {
			got, ok := mesh.InjectingRevision(ins, tc.ns, tc.pod)
			if ok != tc.want || ok && got != rev {
				t.Errorf("%s: namespace %v, pod %v: injected by %q %v, want %v", file, tc.ns, tc.pod, got, ok, tc.want)
			}
		}
		if out, err := mesh.Outdated(t.Context(), r); err != nil || len(out) != 0 {
			t.Errorf("%s: outdated %v, %v", file, out, err)
		}
	}
}

// loaded is a simulated cluster (no controllers) that holds a manifest without its CRDs.
func loaded(t *testing.T, manifest string) cluster.Reader {
	t.Helper()
	s, err := sim.New(sim.Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.New(s.Config(), "sim", s.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ns := &cluster.Object{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "istio-system"},
	}}
	if _, err := c.Create(t.Context(), ns, cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, doc := range strings.Split(manifest, "\n---\n") {
		raw, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		if string(raw) == "null" {
			continue
		}
		o := &cluster.Object{}
		if err := o.UnmarshalJSON(raw); err != nil {
			t.Fatal(err)
		}
		switch o.GetKind() {
		case "Deployment", "ConfigMap", "MutatingWebhookConfiguration":
			if _, err := c.Create(t.Context(), o, cluster.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return c
}
