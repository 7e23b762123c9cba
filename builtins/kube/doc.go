// Package kube is the runbook module of the same name: reading and changing
// any object of the cluster. Every change goes through the gates.
package kube

import (
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/value"
)

// Specs lists the module's builtins.
func Specs() []*builtin.Spec {
	return []*builtin.Spec{
		getSpec(), listSpec(), existsSpec(), versionSpec(), canISpec(), logsSpec(), eventsSpec(), describeSpec(), waitSpec(), probeSpec(),
		applySpec(), patchSpec(), labelSpec(), diffLabelSpec(), deleteSpec(), evictSpec(),
	}
}

// Decoders lists the decoders of the handles that the module takes or gives.
func Decoders() map[string]value.Decoder {
	return map[string]value.Decoder{manifest.Kind: manifest.Decode, manifest.ChangeKind: manifest.DecodeChange}
}
