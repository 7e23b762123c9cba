// Package istioctl declares the builtins that know Istio: versions, precheck,
// manifests, verification of an installation, analysis. With its folder lib it
// is the only package that links the Istio library; only main and tests import
// it.
//
// It reads: what istioctl itself would write (install, tags, uninstall) goes
// through kube.apply and kube.delete, and so through the gates.
package istioctl
