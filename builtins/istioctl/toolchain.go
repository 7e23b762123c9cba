package istioctl

import (
	"errors"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/toolchain"
	"rutter.dev/rutter/runtime/value"
)

type toolchainArgs struct {
	Version value.Version `star:"version,positional" doc:"Istio version"`
}

// toolFound is the value of istioctl.toolchain.
type toolFound struct {
	Found   bool   `json:"found"`
	Version string `json:"version"`
	Source  string `json:"source"` // "cache", "folder" or "path"
	Charts  bool   `json:"charts"` // the charts of the release are here too
	Why     string `json:"why"`    // where was looked, if not found
}

func toolchainSpec(r *lib.Renderer) *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[toolchainArgs]{
		Name: "istioctl.toolchain", Returns: "struct(found, version, source, charts, why)",
		Doc: `Whether the istioctl of a version is on this machine, so that its manifests can be rendered.
It is looked for in the cache, in the folders of RUTTER_TOOLCHAIN and on PATH. A runbook fetches none:
rutter toolchain fetch does, before it.`,
		Example: `istioctl.toolchain("1.30.3").found`,
		Do: func(c *builtin.Call, a *toolchainArgs) (any, error) {
			out := &toolFound{Version: a.Version.String()}
			tool, err := r.Tool(c.Ctx, out.Version)
			switch {
			case errors.Is(err, toolchain.ErrNotFound), diag.ExitCode(err) == diag.Usage:
				out.Why = err.Error()
			case err != nil:
				return nil, err
			default:
				out.Found, out.Source, out.Charts = true, tool.Source, tool.Charts != ""
			}
			return out, nil
		},
	})
}
