package cli

import (
	"maps"

	"rutter.dev/rutter/builtins/backup"
	"rutter.dev/rutter/builtins/core"
	"rutter.dev/rutter/builtins/core/lang"
	"rutter.dev/rutter/builtins/diff"
	"rutter.dev/rutter/builtins/istioctl"
	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/builtins/kube"
	"rutter.dev/rutter/builtins/restart"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/gate/crds"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/value"
	"rutter.dev/rutter/stdlib"
)

// assemble makes the host with every builtin there is. renderer is what
// renders manifests; tests share one so that each render is made once.
func (a *app) assemble(renderer *lib.Renderer) (*host.Host, error) {
	if err := lib.Setup(); err != nil {
		return nil, err
	}
	var specs []*builtin.Spec
	for _, s := range [][]*builtin.Spec{
		interp.Builtins(), lang.Builtins(), core.Specs(), kube.Specs(), istioctl.Specs(renderer),
		backup.Specs(), diff.Specs(), restart.Specs(),
	} {
		specs = append(specs, s...)
	}
	set, err := builtin.NewSet(specs...)
	if err != nil {
		return nil, err
	}
	if set, err = lang.AddTo(set); err != nil {
		return nil, err
	}
	decoders := map[string]value.Decoder{manifest.Kind: manifest.Decode}
	for _, d := range []map[string]value.Decoder{kube.Decoders(), istioctl.Decoders(), backup.Decoders(), diff.Decoders(), restart.Decoders()} {
		maps.Copy(decoders, d)
	}
	limits, err := a.limits()
	if err != nil {
		return nil, err
	}
	return &host.Host{Builtins: set, Decoders: decoders, Stdlib: stdlib.FS, Version: version, Limits: limits, Cache: loader.NewCache(), Schemas: &crds.Compiled{}}, nil
}

// renderer caches renders below the user's cache folder, where there is one,
// and renders other minors by the istioctls that the toolchain finds.
func (a *app) renderer() *lib.Renderer {
	r := lib.NewRenderer(a.cacheFolder("renders"))
	if tc, err := a.toolchain(&toolchainFlags{}); err == nil { // without a cache folder there are none
		r.UseTools(tc)
	}
	return r
}
