package backup

import (
	"testing"

	"rutter.dev/rutter/tests/workbench"
)

// bench is a workbench with what backups need besides.
type bench struct{ *workbench.Bench }

func newBench(t *testing.T) *bench {
	t.Helper()
	return &bench{workbench.New(t, Specs())}
}
