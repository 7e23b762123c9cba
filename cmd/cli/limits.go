package cli

import (
	"runtime/debug"

	"k8s.io/apimachinery/pkg/api/resource"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/interp"
)

// memoryVar bounds the memory of the process: "2Gi", "512Mi". A script that goes
// beyond is ended, with its journal sealed.
const memoryVar = "RUTTER_MEMORY"

// Without it a process may take 4 GiB, which the read of a mesh of 30,000 pods
// fits into, or 60 percent of the memory that there is.
const (
	defaultMemory = 4 << 30
	memoryShare   = 60
	leastMemory   = 256 << 20 // what rutter itself needs, with the Istio library
)

// limits are those of every thread of this process.
func (a *app) limits() (interp.Limits, error) {
	l := interp.Limits{Memory: defaultMemory}
	if there := env.Memory(); there > 0 {
		l.Memory = max(leastMemory, min(l.Memory, there/100*memoryShare))
	}
	text := a.env.Getenv(memoryVar)
	if text == "" {
		return l, nil
	}
	q, err := resource.ParseQuantity(text)
	if err != nil || q.Value() < leastMemory {
		return l, &diag.Error{Code: diag.Usage, Subject: memoryVar, Problem: "is " + text, Expect: "an amount of memory such as 2Gi, at least 256Mi", Changed: "nothing"}
	}
	l.Memory = uint64(q.Value()) // #nosec G115 -- it is positive
	return l, nil
}

// deepStacks lets a goroutine's stack grow until the watcher of memory sees it:
// at the runtime's own limit the process would die without a word.
func deepStacks() { debug.SetMaxStack(8 << 30) }
