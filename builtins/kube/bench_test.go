package kube

import (
	"testing"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/tests/workbench"
)

type bench = workbench.Bench

func newBench(t *testing.T) *bench {
	t.Helper()
	return workbench.New(t, Specs())
}

func target(t *testing.T) []*cluster.Object {
	t.Helper()
	return workbench.Target(t)
}

func kw(name string, v starlark.Value) starlark.Tuple { return workbench.Kw(name, v) }
