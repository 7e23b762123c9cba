package diff

import (
	"testing"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/tests/workbench"
)

type bench = workbench.Bench

func newBench(t *testing.T) *bench {
	t.Helper()
	return workbench.New(t, Specs())
}

func kw(name string, v starlark.Value) starlark.Tuple { return workbench.Kw(name, v) }
