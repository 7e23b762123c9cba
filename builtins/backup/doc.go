// Package backup is the runbook module of the same name: the mesh as it was,
// stored, proven readable, and brought back.
package backup

import (
	"rutter.dev/rutter/runtime/archive"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/value"
)

// Specs lists the module's builtins.
func Specs() []*builtin.Spec {
	return []*builtin.Spec{meshSpec(), createSpec(), verifySpec(), listSpec(), restoreSpec()}
}

// Decoders lists the decoders of the module's handles.
func Decoders() map[string]value.Decoder {
	return map[string]value.Decoder{archive.Kind: archive.Decode, scopeKind: decodeScope}
}
