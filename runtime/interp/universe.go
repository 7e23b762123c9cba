package interp

import (
	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/diag"
)

// maxRange bounds range(): the one compact value that stands for endless
// memory once sorted, listed or spread. Everything else is as large as what the
// script has already built.
const maxRange = 1_000_000

// Universe is what this package puts in front of Starlark's own universe.
func Universe() starlark.StringDict {
	return starlark.StringDict{"range": starlark.NewBuiltin("range", boundedRange)}
}

func boundedRange(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	inner := starlark.Universe["range"].(*starlark.Builtin)
	v, err := inner.CallInternal(t, args, kwargs)
	if err != nil {
		return nil, err
	}
	if n := starlark.Len(v); n > maxRange || n < 0 {
		return nil, diag.Usagef("range", "got %d elements, want at most %d", n, maxRange)
	}
	return v, nil
}
