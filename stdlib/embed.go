// Package stdlib is the library that runbooks load as @stdlib//name.star.
package stdlib

import "embed"

// FS holds the library's modules by name. They are listed one by one, so that
// their tests, which stand beside them, are nothing that a runbook can load.
//
//go:embed ambient.star canary.star gateway_canary.star gateways.star helm.star multicluster.star nodes.star preflight.star probes.star served.star settings.star telemetry.star validate.star waves.star
var FS embed.FS
