package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
)

// fixtures is where real manifests of older versions lie beside a checkout.
const fixtures = "../shared/fixtures/manifests"

// simulate opens the simulated cluster at path, or makes it from spec when
// there is none yet. path "" keeps it in memory. The note says where the
// installed mesh's manifest came from; istiods are the cluster's own, and tune
// changes what the cluster is made of.
func (a *app) simulate(ctx context.Context, spec, path string, renderer *lib.Renderer, istiods *mesh.Istiods, tune ...func(*sim.Options)) (*sim.Cluster, string, error) {
	if err := lib.Setup(); err != nil { // or the injector would log to stdout
		return nil, "", err
	}
	opts := sim.Options{Controllers: append(controllers.All(), istiods.Controllers()...), Injector: lib.NewInjector(), Connector: mesh.NewAnswers(istiods, nil)}
	for _, f := range tune {
		f(&opts)
	}
	meshSpec := mesh.Default()
	isMesh := spec == "mesh" || strings.HasPrefix(spec, "mesh,")
	if isMesh {
		var err error
		if meshSpec, err = mesh.Parse(spec); err != nil {
			return nil, "", &diag.Error{Code: diag.Usage, Err: err, Next: "rutter run --help"}
		}
		opts.Seed, opts.InjectOnLoad = meshSpec.Seed, true
	}
	if path != "" {
		if _, err := os.Stat(path); err == nil {
			c, err := sim.Open(path, opts)
			if err != nil {
				return nil, "", &diag.Error{Code: diag.Usage, Err: err, Changed: "nothing by this command"}
			}
			return c, "", nil
		}
	}
	var objects []*unstructured.Unstructured
	note := spec
	if isMesh {
		manifest, from, err := a.startingManifest(ctx, meshSpec, filepath.Join(a.env.Workdir, fixtures), renderer)
		if err != nil {
			return nil, "", err
		}
		objects, note = mesh.Build(meshSpec, manifest), from
	} else {
		var err error
		if objects, err = readObjects(spec); err != nil {
			return nil, "", &diag.Error{
				Code: diag.Usage, Err: err, Expect: "mesh[,key=value…], or a file or folder of YAML objects", Changed: "nothing",
			}
		}
	}
	c, err := openSim(path, opts)
	if err != nil {
		return nil, "", err
	}
	load := c.Load
	if isMesh {
		load = func(objs []*unstructured.Unstructured) error { return mesh.Populate(c, objs) }
	}
	if err := load(objects); err != nil {
		return nil, "", &diag.Error{Code: diag.Usage, Subject: spec, Problem: "cannot be loaded into a simulated cluster", Err: err, Changed: "nothing"}
	}
	c.Advance(settleTime)
	return c, note, nil
}

// readObjects reads a file of YAML objects, or all those of a folder.
func readObjects(path string) ([]*unstructured.Unstructured, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	} else if err != nil {
		return nil, err
	}
	real, err := filepath.EvalSymlinks(path) // what the operator names may be a link; what lies in it leads nowhere else
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(filepath.Dir(real))
	if err != nil {
		return nil, err
	}
	objs, err := sim.ReadFiles(env.RootFS(root), filepath.Base(real))
	return objs, errors.Join(err, root.Close())
}

// settleTime is how long a new simulated mesh gets to become ready.
const settleTime = 2 * time.Minute

func openSim(path string, opts sim.Options) (*sim.Cluster, error) {
	if path == "" {
		return sim.New(opts)
	}
	return sim.Open(path, opts)
}

// startingManifest is the manifest of the version that a simulated mesh starts
// from: the real one where a checkout has it beside it, else the linked
// version's, re-tagged.
func (a *app) startingManifest(ctx context.Context, spec mesh.Spec, dir string, renderer *lib.Renderer) ([]*unstructured.Unstructured, string, error) {
	profile := "default"
	if spec.Ambient > 0 {
		profile = "ambient"
	}
	if dir != "" && spec.Revision == "" {
		name := fmt.Sprintf("istio-%s-%s.yaml", spec.Istio, profile)
		objects, err := readObjects(filepath.Join(dir, name))
		if err == nil {
			objects, err = mesh.Rendered(spec, objects)
			return objects, fmt.Sprintf("the manifest of Istio %s (%s/%s)", spec.Istio, fixtures, name), err
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, "", err
		}
	}
	if err := lib.Setup(); err != nil {
		return nil, "", err
	}
	r, err := renderer.Render(ctx, lib.RenderOptions{Profile: profile, Revision: spec.Revision})
	if err != nil {
		return nil, "", err
	}
	objects, err := mesh.Rendered(spec, r.Objects)
	if err != nil {
		return nil, "", err
	}
	if spec.Istio == lib.LinkedVersion {
		return objects, "the manifest of Istio " + lib.LinkedVersion, nil
	}
	return mesh.Retag(objects, lib.LinkedVersion, spec.Istio),
		fmt.Sprintf("the manifest of Istio %s re-tagged as %s", lib.LinkedVersion, spec.Istio), nil
}
