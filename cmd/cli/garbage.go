package cli

import (
	"runtime"
	"runtime/debug"
)

// A twin holds a whole cluster: much garbage is let come together while there is
// memory for it, and less from then on, so that ten thousand pods fit into 1.5 GiB
// and the collector does not take half of the time before that. A larger twin
// takes what it needs, and longer. Most plans are of a few objects and end before
// they have used what is let pass uncollected at the start.
const (
	twinGarbage = 200               // percent of what is in use
	twinMemory  = int64(1320 << 20) // bytes; a soft limit, which what is no heap comes on top of
	uncollected = int64(160 << 20)  // bytes that the process takes before garbage is collected at all
)

// collectLate sets the collector up for a command that makes a twin, where the environment does not.
func (a *app) collectLate() {
	if a.env.Getenv("GOGC") != "" || a.env.Getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(uncollected)
	afterCollection(func() {
		debug.SetGCPercent(twinGarbage)
		debug.SetMemoryLimit(twinMemory)
	})
}

// afterCollection calls f once, when the collector has run the next time.
func afterCollection(f func()) {
	type marker struct{ _ *marker } // not so small that it would share its memory with others
	runtime.SetFinalizer(&marker{}, func(*marker) { f() })
}
