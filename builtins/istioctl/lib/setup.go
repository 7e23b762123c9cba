// Package lib is the thin adapter over the Istio library that is linked into
// rutter: manifests, sidecar injection, precheck and analysis as plain Go
// functions. It and builtins/istioctl are the only packages that import
// istio.io/istio; everything above speaks in the types declared here.
//
// Call Setup once, before anything else of the package.
package lib

import (
	"fmt"

	"istio.io/istio/istioctl/pkg/install/k8sversion"
	"istio.io/istio/pilot/pkg/features"
	istiolog "istio.io/istio/pkg/log"
	"istio.io/istio/pkg/version"
)

const (
	// LinkedVersion is the Istio release that the linked library stands for:
	// its charts, profiles, injection and analysis are those of this release.
	// The module is a commit of the 1.31 line and carries no release number of
	// its own, because istioctl gets it from the linker.
	LinkedVersion = "1.31.0"
	// LinkedMinor is the minor line that Render covers without a charts folder.
	LinkedMinor = "1.31"
	// DefaultHub is the image registry of an official release's istioctl.
	DefaultHub = "docker.io/istio"
)

// Setup prepares the linked library for use inside another program. Its
// settings are the process's, so call it once, from main (or TestMain), before
// any other function of this package and before any goroutine uses Istio.
//
//   - Istio logs at INFO to stdout and routes klog the same way; rutter's stdout
//     carries data. Both are switched off: what a caller should know comes back
//     as warnings, messages and errors of the functions here.
//   - The library's own version, hub and tag say "unknown" unless they are set,
//     and would end up in the output.
//   - Native sidecars: istiod decides "auto" from the kubelets of the cluster
//     (Kubernetes 1.33 and newer). The injector here sees no nodes, and every
//     Kubernetes that LinkedVersion supports beyond its minimum has them, so
//     they are on. The sidecar.istio.io/nativeSidecar annotation still decides
//     for a pod.
func Setup() error {
	o := istiolog.DefaultOptions()
	o.OutputPaths = []string{"stderr"}
	o.SetDefaultOutputLevel(istiolog.OverrideScopeName, istiolog.NoneLevel)
	if err := istiolog.Configure(o); err != nil {
		return fmt.Errorf("istio library: setting up its logging: %w", err)
	}
	version.Info.Version = LinkedVersion
	version.Info.GitTag = LinkedVersion
	version.Info.BuildStatus = "Clean"
	version.DockerInfo.Hub = DefaultHub
	version.DockerInfo.Tag = LinkedVersion
	features.EnableNativeSidecars = features.NativeSidecarModeEnabled
	return nil
}

// K8sSupport tells the oldest Kubernetes minor version ("1.32") that the
// linked Istio runs on, as its installer and precheck have it. The library
// knows no newest one.
func K8sSupport() string { return fmt.Sprintf("1.%d", k8sversion.MinK8SVersion) }
