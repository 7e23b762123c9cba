package interp

import (
	"context"
	"testing"
	"time"

	"go.starlark.net/starlark"
)

// The watcher looks at a thread whose script is at work, and the script's keys
// are being set meanwhile: a map of the thread that only its own goroutine may
// touch, or the process dies.
func TestTheWatcherLeavesTheThreadsKeysAlone(t *testing.T) {
	th, release := newThread(context.Background(), "busy", false, Limits{Memory: 64 << 30}.or(1<<40), nil)
	defer release()
	_, err := call(th, func() (starlark.Value, error) {
		for until := time.Now().Add(40 * look); time.Now().Before(until); {
			th.SetLocal("frame", 1)
		}
		return starlark.None, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
