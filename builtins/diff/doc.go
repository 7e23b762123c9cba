// Package diff is the runbook module of the same name: what would change,
// shown so that a person can judge it, and bound to the digests that the gate
// on reviews compares later.
package diff

import (
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/value"
)

// Specs lists the module's builtins.
func Specs() []*builtin.Spec {
	return []*builtin.Spec{liveSpec(), manifestsSpec(), backupSpec()}
}

// Decoders lists the decoders of the module's handles.
func Decoders() map[string]value.Decoder {
	return map[string]value.Decoder{Kind: Decode}
}
