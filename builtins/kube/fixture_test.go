package kube

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/tests/workbench"
)

// rendered is a manifest that the real istioctl rendered.
func rendered(t *testing.T, name string) []*cluster.Object {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "fixtures", "manifests", name))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the rendered manifests of ../shared are not here")
	}
	if err != nil {
		t.Fatal(err)
	}
	objs, err := manifest.Parse(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return objs
}

// TestForecastOnRealManifests upgrades what istioctl 1.30.3 installed to what
// 1.31.0 renders, and compares every forecast with what came of it.
func TestForecastOnRealManifests(t *testing.T) {
	for _, profile := range []string{"default", "ambient"} {
		t.Run(profile, func(t *testing.T) {
			old, target := rendered(t, "istio-1.30.3-"+profile+".yaml"), rendered(t, "istio-1.31.0-"+profile+".yaml")
			b := installed(t, old)
			p, err := manifest.Plan(t.Context(), b.Client, target, manifest.Options{Adopt: []string{"istio-operator"}, Prune: true})
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range p.Notes {
				if strings.Contains(n, "assumed") {
					t.Errorf("the server was not asked: %s", n)
				}
			}
			for id, err := range p.Refused {
				t.Errorf("%s: %v", id, err)
			}
			text, err := manifest.New(target, manifest.Info{Version: "1.31.0"}, b.Blobs)
			if err != nil {
				t.Fatal(err)
			}
			b.Must("kube.apply", starlark.Tuple{text}, kw("prune", starlark.True), kw("adopt", starlark.NewList([]starlark.Value{str("istio-operator")})), kw("wait", str("0s")))
			forecast, wrong := 0, 0
			for i, e := range p.Effects {
				if e.Verb != effect.Apply || p.Stages[i] == manifest.Inventory {
					continue
				}
				forecast++
				live, err := b.Client.Get(t.Context(), e.Ref)
				if err != nil {
					t.Fatal(err)
				}
				want, err := cluster.Digest(e.After)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := cluster.Digest(live); err != nil || got != want {
					wrong++
					t.Errorf("%s is not what was forecast: %v", e.Ref, err)
				}
			}
			if forecast == 0 {
				t.Error("nothing changes between two versions")
			}
			t.Logf("%d of %d forecasts hold", forecast-wrong, forecast)
			again, err := manifest.Plan(t.Context(), b.Client, target, manifest.Options{Adopt: []string{"istio-operator"}, Prune: true})
			if err != nil || len(again.Effects) != 0 {
				t.Errorf("planned again: %d effects, %v; want none", len(again.Effects), err)
			}
		})
	}
}

// installed is a simulated cluster on which istioctl applied objs.
func installed(t *testing.T, objs []*cluster.Object) *bench {
	t.Helper()
	c, err := sim.New(sim.Options{Seed: 1, Controllers: controllers.All(), Injector: mesh.StubInjector{}})
	if err != nil {
		t.Fatal(err)
	}
	b := workbench.On(t, Specs(), c)
	if b.Get("Namespace", "", "", "istio-system") == nil {
		apply(b, "kubectl", "apiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system}\n")
	}
	// Its own order: CRDs, then the rest.
	for _, crds := range []bool{true, false} {
		for _, o := range objs {
			if (o.GetKind() == "CustomResourceDefinition") != crds {
				continue
			}
			if _, err := b.Client.Apply(t.Context(), o, cluster.ApplyOptions{Manager: "istio-operator", Force: true}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return b
}
