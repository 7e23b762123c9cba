package conformance

import (
	"os"
	"runtime/debug"
	"testing"
)

// TestMain collects garbage less often: the runs make much of it, and few at
// a time.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}
