package cli

import (
	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/cmd/modules"
	"rutter.dev/rutter/runtime/gate/crds"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/stdlib"
)

// assemble makes the host with every builtin there is. renderer is what
// renders manifests; tests share one so that each render is made once.
func (a *app) assemble(renderer *lib.Renderer) (*host.Host, error) {
	if err := lib.Setup(); err != nil {
		return nil, err
	}
	set, err := modules.Set(renderer)
	if err != nil {
		return nil, err
	}
	limits, err := a.limits()
	if err != nil {
		return nil, err
	}
	return &host.Host{Builtins: set, Decoders: modules.Decoders(), Stdlib: stdlib.FS, Version: version, Limits: limits, Cache: loader.NewCache(), Schemas: &crds.Compiled{}}, nil
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
