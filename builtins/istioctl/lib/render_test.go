package lib

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"istio.io/istio/manifests"
)

func mustRender(t testing.TB, r *Renderer, opts RenderOptions) *Rendered {
	t.Helper()
	got, err := r.Render(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func objectID(o *unstructured.Unstructured) string {
	return o.GroupVersionKind().String() + " " + o.GetNamespace() + "/" + o.GetName()
}

// TestRenderEqualsIstioctl holds the render against what a real istioctl
// 1.31.0 made, object by object.
func TestRenderEqualsIstioctl(t *testing.T) {
	r := NewRenderer("")
	for _, tc := range []struct {
		file string
		opts RenderOptions
	}{
		{"istio-1.31.0-default.yaml", RenderOptions{}},
		{"istio-1.31.0-ambient.yaml", RenderOptions{Profile: "ambient"}},
		{"istio-1.31.0-default-rev.yaml", RenderOptions{Revision: "1-31-0"}},
	} {
		t.Run(tc.file, func(t *testing.T) {
			want := map[string]*unstructured.Unstructured{}
			for _, o := range fixture(t, tc.file) {
				want[objectID(o)] = o
			}
			got := mustRender(t, r, tc.opts)
			if len(got.Objects) != len(want) {
				t.Errorf("%d objects, istioctl made %d", len(got.Objects), len(want))
			}
			for _, o := range got.Objects {
				w := want[objectID(o)]
				if w == nil {
					t.Errorf("%s: istioctl did not make it", objectID(o))
					continue
				}
				n, err := normalized(w)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(n.Object, o.Object); d != "" {
					t.Errorf("%s differs:\n%.2000s", objectID(o), d)
				}
			}
		})
	}
}

func TestRenderOrderAndContent(t *testing.T) {
	got := mustRender(t, NewRenderer(""), RenderOptions{
		Revision: "1-31-0",
		Set: map[string]any{
			"components.cni.enabled":            true,
			"hub":                               "registry.example.com/istio",
			"values.pilot.podAnnotations":       map[string]any{"example.com/team.name": "15"},
			"values.global.imagePullSecrets":    []any{"pull"},
			"meshConfig.accessLogFile":          "/dev/stdout",
			"components.egressGateways[0].name": "out",
		},
		SetFlags: []string{"components.egressGateways[0].enabled=true"},
		Files:    []File{{Name: "mesh.yaml", Content: []byte("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n  hub: ignored.example.com\n  meshConfig:\n    trustDomain: td.example.com\n")}},
	})
	if d := cmp.Diff([]string{"base", "pilot", "cni", "ingressGateways", "egressGateways"}, got.Components); d != "" {
		t.Error(d)
	}
	if k := got.Objects[0].GetKind(); k != "CustomResourceDefinition" {
		t.Errorf("first object is a %s; CRDs must come first", k)
	}
	at := map[string]int{}
	for i, o := range got.Objects {
		at[o.GetKind()+" "+o.GetName()] = i
	}
	istiod, cni, gw := at["Deployment istiod-1-31-0"], at["DaemonSet istio-cni-node"], at["Deployment istio-ingressgateway"]
	if istiod == 0 || cni < istiod || gw < cni {
		t.Errorf("order: istiod at %d, CNI at %d, gateway at %d", istiod, cni, gw)
	}
	text := string(got.YAML)
	for _, want := range []string{
		"image: registry.example.com/istio/pilot:1.31.0", "image: registry.example.com/istio/install-cni:1.31.0",
		`example.com/team.name: "15"`, "trustDomain: td.example.com", "accessLogFile: /dev/stdout", "name: pull",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("manifest lacks %q", want)
		}
	}
	if strings.Contains(text, "unknown\n") && strings.Contains(text, "operator.istio.io/version: unknown") {
		t.Error("the library's version is unknown")
	}
	again := mustRender(t, NewRenderer(""), RenderOptions{Revision: "1-31-0"})
	if again.Digest == got.Digest {
		t.Error("other input, same digest")
	}
}

func TestRenderPatchOfLinkedMinor(t *testing.T) {
	got := mustRender(t, NewRenderer(""), RenderOptions{Version: "1.31.4"})
	if !strings.Contains(string(got.YAML), "docker.io/istio/pilot:1.31.4") {
		t.Error("images are not of the version asked for")
	}
	if len(got.Warnings) == 0 || !strings.Contains(got.Warnings[0], "1.31.4") {
		t.Errorf("warnings: %q", got.Warnings)
	}
}

func TestRenderCaches(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	r := NewRenderer(dir)
	first := mustRender(t, r, RenderOptions{})
	if again := mustRender(t, r, RenderOptions{}); again != first {
		t.Error("rendered again within the process")
	}
	fromDisk := mustRender(t, NewRenderer(dir), RenderOptions{})
	if d := cmp.Diff(first, fromDisk); d != "" {
		t.Errorf("disk cache differs:\n%.1000s", d)
	}
	path := cachePath(dir, first.InputDigest)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-20] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	healed := mustRender(t, NewRenderer(dir), RenderOptions{})
	if healed.Digest != first.Digest || !strings.Contains(healed.CacheNote, "checksums differ") {
		t.Errorf("damaged cache: digest %s, note %q", healed.Digest, healed.CacheNote)
	}
	if next := mustRender(t, NewRenderer(dir), RenderOptions{}); next.CacheNote != "" {
		t.Errorf("cache was not repaired: %s", next.CacheNote)
	}
}

// TestRenderChartsFolder uses the linked charts, written out, as the folder of
// another release.
func TestRenderChartsFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "manifests"), manifests.FS); err != nil {
		t.Fatal(err)
	}
	got := mustRender(t, NewRenderer(""), RenderOptions{Version: "1.30.3", ChartsDir: dir})
	if !strings.Contains(string(got.YAML), "docker.io/istio/pilot:1.30.3") {
		t.Error("images are not of the version asked for")
	}
	chart := filepath.Join(dir, "manifests", "charts", "base", "Chart.yaml")
	if err := os.WriteFile(chart, []byte("apiVersion: v2\nname: base\nversion: 1.29.2\nappVersion: 1.29.2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := NewRenderer("").Render(context.Background(), RenderOptions{Version: "1.30.3", ChartsDir: dir})
	if err == nil || !strings.Contains(err.Error(), "holds Istio 1.29.2, asked for 1.30.3") {
		t.Errorf("error: %v", err)
	}
}

func TestRenderRefuses(t *testing.T) {
	iop := func(spec string) []File {
		return []File{{Name: "mesh.yaml", Content: []byte("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n" + spec)}}
	}
	for name, tc := range map[string]struct {
		opts RenderOptions
		want []string
	}{
		"profile":            {RenderOptions{Profile: "defualt"}, []string{`profile "defualt"`, "ambient, "}},
		"other minor":        {RenderOptions{Version: "1.30.3"}, []string{"1.30.3", "charts folder", "1.31.x"}},
		"no version":         {RenderOptions{Version: "latest"}, []string{`version "latest"`}},
		"charts not there":   {RenderOptions{ChartsDir: t.TempDir()}, []string{"profiles/default.yaml"}},
		"unknown path":       {RenderOptions{Set: map[string]any{"components.nosuch.enabled": true}}, []string{`set "components.nosuch.enabled"`, "unknown field"}},
		"unknown value":      {RenderOptions{Set: map[string]any{"values.global.proxy.securityContext": "x"}}, []string{`set "values.global.proxy.securityContext"`, "unknown field"}},
		"unknown in a file":  {RenderOptions{Files: iop("  values:\n    global:\n      nosuchfield: 1\n")}, []string{"mesh.yaml", "nosuchfield"}},
		"invalid value":      {RenderOptions{Set: map[string]any{"values.global.proxy.includeIPRanges": "10.0.0.0/99"}}, []string{"10.0.0.0/99"}},
		"invalid type":       {RenderOptions{Set: map[string]any{"components.pilot.enabled": "perhaps"}}, []string{`set "components.pilot.enabled"`, "istio 1.31.0 refuses", "of type bool"}},
		"scalar over a map":  {RenderOptions{Set: map[string]any{"values.global": 5}}, []string{"istio 1.31.0 refuses"}},
		"path into scalar":   {RenderOptions{SetFlags: []string{"hub=x", "hub.y=z"}}, []string{"istio 1.31.0 refuses"}},
		"set twice":          {RenderOptions{Set: map[string]any{"values.a": map[string]any{"b": 1}, "values.a.b": 2}}, []string{`set "values.a.b"`, "twice"}},
		"empty segment":      {RenderOptions{Set: map[string]any{"values..a": 1}}, []string{`"values..a"`, "empty"}},
		"odd type":           {RenderOptions{Set: map[string]any{"values.a": struct{}{}}}, []string{`"values.a"`, "struct {}"}},
		"other charts":       {RenderOptions{Set: map[string]any{"installPackagePath": "/"}}, []string{"installPackagePath"}},
		"other charts, file": {RenderOptions{Files: iop("  installPackagePath: /\n")}, []string{"mesh.yaml", "installPackagePath"}},
		"flag without value": {RenderOptions{SetFlags: []string{"hub"}}, []string{`"hub"`, "path=value"}},
		"file not there":     {RenderOptions{Files: []File{{Name: "nosuch.yaml"}}}, []string{"nosuch.yaml"}},
		"file of other kind": {RenderOptions{Files: []File{{Name: "pod.yaml", Content: []byte("kind: Pod\n")}}}, []string{"pod.yaml", `"Pod"`, "IstioOperator"}},
		"two documents":      {RenderOptions{Files: []File{{Name: "two.yaml", Content: []byte("kind: IstioOperator\n---\nkind: IstioOperator\n")}}}, []string{"two.yaml", "2 documents"}},
		"not YAML":           {RenderOptions{Files: []File{{Name: "bad.yaml", Content: []byte("a: [\n")}}}, []string{"bad.yaml"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewRenderer("").Render(context.Background(), tc.opts)
			if err == nil {
				t.Fatal("rendered")
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q lacks %q", err, w)
				}
			}
		})
	}
	_, err := NewRenderer("").Render(context.Background(), RenderOptions{Version: "1.30.3"})
	if !errors.Is(err, ErrNotLinked) {
		t.Errorf("%v is not ErrNotLinked", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := NewRenderer("").Render(ctx, RenderOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestSettingsKeepTypes(t *testing.T) {
	got, err := NewSettings(map[string]any{
		"tag":                    "1.31",
		"components.cni.enabled": true,
		"values.pilot.replicas":  3,
		"values.pilot.ratio":     1.5,
		"values.pilot.env":       map[string]any{"B": "true", "A": "x,y", "a.b/c": "d"},
		"values.list":            []any{"a", 1},
		"values.none":            nil,
		"values.blank":           "",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"components.cni.enabled=true", "tag=1.31", "values.pilot.env.A=x,y", `values.pilot.env.a\.b/c=d`,
		"values.pilot.ratio=1.5", "values.pilot.replicas=3",
	}
	if d := cmp.Diff(want, got.Flags); d != "" {
		t.Error(d)
	}
	for _, w := range []string{`B: "true"`, "list:", "none: null", `blank: ""`} {
		if !strings.Contains(string(got.Overlay), w) {
			t.Errorf("overlay lacks %q:\n%s", w, got.Overlay)
		}
	}
}

func BenchmarkRender(b *testing.B) {
	for b.Loop() {
		mustRender(b, NewRenderer(""), RenderOptions{})
	}
}

// BenchmarkRenderAgain renders what was rendered: by the same process, and by
// another one from the cache on disk.
func BenchmarkRenderAgain(b *testing.B) {
	dir := b.TempDir()
	r := NewRenderer(dir)
	mustRender(b, r, RenderOptions{})
	b.Run("memory", func(b *testing.B) {
		for b.Loop() {
			mustRender(b, r, RenderOptions{})
		}
	})
	b.Run("disk", func(b *testing.B) {
		for b.Loop() {
			mustRender(b, NewRenderer(dir), RenderOptions{})
		}
	})
}
