package istioctl

import (
	"fmt"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/value"
)

// LinkedVersion is the Istio release whose library is linked.
const LinkedVersion = lib.LinkedVersion

// Setup prepares the linked library; call it once, from main or TestMain,
// before anything else of this package.
func Setup() error { return lib.Setup() }

// NewRenderer makes the renderer that Specs needs. dir is where results are
// cached; empty means in memory only.
func NewRenderer(dir string) *lib.Renderer { return lib.NewRenderer(dir) }

// Injector is Istio's own sidecar injection for the simulated cluster.
func Injector() sim.Injector { return lib.NewInjector() }

// Specs lists the builtins of the module istioctl. r renders manifests for all
// runs of the process.
func Specs(r *lib.Renderer) []*builtin.Spec {
	return []*builtin.Spec{
		versionSpec(), precheckSpec(), notesSpec(), analyzeSpec(), manifestSpec(r), verifySpec(),
		tagsSpec(), setTagSpec(), diffSetTagSpec(), removeTagSpec(), diffRemoveTagSpec(),
		installSpec(r), toolchainSpec(r), valuesSpec(), profilesSpec(), diffProfilesSpec(), diffAnalysesSpec(),
		proxyStatusSpec(), probeSpec(), rootsSpec(),
		revisionsSpec(), uninstallSpec(r), diffUninstallSpec(r),
	}
}

// Decoders rebuild the module's handles.
func Decoders() map[string]value.Decoder {
	return map[string]value.Decoder{manifest.Kind: manifest.Decode, manifest.ChangeKind: manifest.DecodeChange}
}

// configReader can give the Istio library, which insists on a client of its
// own, a connection that only reads.
func configReader(r cluster.Reader) (cluster.ConfigReader, error) {
	c, ok := r.(cluster.ConfigReader)
	if !ok {
		return nil, fmt.Errorf("cluster %s: its reader (%T) gives no connection to the Istio library", r.Context(), r)
	}
	return c, nil
}

// files names YAML texts by their place among the arguments, for errors.
func files(texts []string) []lib.File {
	var out []lib.File
	for i, t := range texts {
		out = append(out, lib.File{Name: fmt.Sprintf("files[%d]", i), Content: []byte(t)})
	}
	return out
}
