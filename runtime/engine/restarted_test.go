package engine_test

import (
	"fmt"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/event"
)

// A server that is restarted within half a minute ends no run, whenever it goes
// away, and nothing is done twice.
func TestARestartedServerIsWaitedFor(t *testing.T) {
	const script = header + `
def run(p):
    step("first", put, "a", "1")
    step("second", put, "b", "2")
`
	whole := newWorld(t, script)
	if err := whole.run(); err != nil {
		t.Fatal(err)
	}
	for at := range whole.events {
		t.Run(fmt.Sprintf("at event %d", at), func(t *testing.T) {
			w := newWorld(t, script)
			seen := 0
			w.onEvent = func(event.Event) {
				if seen == at {
					w.sim.Restart(20 * time.Second)
				}
				seen++
			}
			if err := w.run(); err != nil {
				t.Fatal(err)
			}
			w.sim.Advance(20 * time.Second) // it may have gone away at the end
			if w.data("a") != "1" || w.data("b") != "2" || w.writes() != 2 {
				t.Errorf("a=%s b=%s, %d writes", w.data("a"), w.data("b"), w.writes())
			}
		})
	}
}
