// Package value is what flows between Go and Starlark: cluster objects as
// attribute-style frozen values, plain data, and handles (a builtin's own
// values, with a declared encoding so that they survive a resume).
package value

import (
	"encoding/json"

	"go.starlark.net/starlark"
)

// Handle is a builtin's own value: a manifest, a backup, a diff, a wave
// report. It is immutable.
type Handle interface {
	starlark.Value
	// HandleKind names the encoding, "backup/1". Decoders are found by it.
	HandleKind() string
	// EncodeHandle is the value as JSON; what is large should be in Blobs and
	// named by digest here.
	EncodeHandle() (json.RawMessage, error)
}

// Decoder rebuilds a handle from its encoding.
type Decoder func(json.RawMessage) (starlark.Value, error)
