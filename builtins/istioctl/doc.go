// Package istioctl declares the builtins that know Istio: versions, precheck,
// manifests, verification of an installation, analysis. With its folder lib it
// is the only package that links the Istio library; only main and tests import
// it.
//
// The library never writes: what istioctl itself would write (tags, uninstall)
// is planned here as effects, from the library's own objects and lists, and so
// goes through the gates and the journal.
package istioctl
