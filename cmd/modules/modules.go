// Package modules names everything that a runbook can call, once: whoever makes
// a host, the command line or a test, takes it from here.
package modules

import (
	"maps"
	"slices"

	"rutter.dev/rutter/builtins/backup"
	"rutter.dev/rutter/builtins/core"
	"rutter.dev/rutter/builtins/core/lang"
	"rutter.dev/rutter/builtins/diff"
	"rutter.dev/rutter/builtins/istioctl"
	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/builtins/kube"
	"rutter.dev/rutter/builtins/restart"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/value"
)

// Specs are the declarations of all builtins. r is what renders manifests.
func Specs(r *lib.Renderer) []*builtin.Spec {
	return slices.Concat(
		interp.Builtins(), lang.Builtins(), core.Specs(), kube.Specs(), istioctl.Specs(r),
		backup.Specs(), diff.Specs(), restart.Specs(),
	)
}

// Set is what a runbook finds predeclared: the builtins, and the modules of the
// language (json, yaml, …).
func Set(r *lib.Renderer) (*builtin.Set, error) {
	set, err := builtin.NewSet(Specs(r)...)
	if err != nil {
		return nil, err
	}
	return lang.AddTo(set)
}

// Decoders read the handles that builtins return from a journal.
func Decoders() map[string]value.Decoder {
	out := map[string]value.Decoder{manifest.Kind: manifest.Decode}
	for _, d := range []map[string]value.Decoder{kube.Decoders(), istioctl.Decoders(), backup.Decoders(), diff.Decoders(), restart.Decoders()} {
		maps.Copy(out, d)
	}
	return out
}
