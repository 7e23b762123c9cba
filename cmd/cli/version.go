package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/interp"
)

func (a *app) versionCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of rutter, of the linked Istio library and of the Kubernetes client",
		Args:  exactly(0, 0, "no argument"),
		RunE: func(*cobra.Command, []string) error {
			v := map[string]any{
				"rutter": version, "api": interp.API, "istio": lib.LinkedVersion, "kubernetesClient": module("k8s.io/client-go"),
				"starlark": module("go.starlark.net"), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
			}
			switch output {
			case "json":
				return writeJSON(a.env.Stdout, v)
			case "":
				_, err := fmt.Fprintf(a.env.Stdout, "rutter %s\nIstio library %s\nKubernetes client %s\nlanguage level %d\n%s %s/%s\n",
					version, lib.LinkedVersion, v["kubernetesClient"], interp.API, runtime.Version(), runtime.GOOS, runtime.GOARCH)
				return err
			}
			return unknownFormat(output, "json")
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	return cmd
}

// module is the version of a module that this binary was built with.
func module(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, d := range info.Deps {
		if d.Path == path {
			return d.Version
		}
	}
	return "unknown"
}
