// Package lock keeps two runs from changing one mesh at a time: a Lease
// (coordination.k8s.io) in the namespace of the mesh's root, which a run takes
// before its first change, renews while it works and lets go at its end. Where
// there is no control plane that is istio-system, and kube-system where that does
// not exist (engine.LockNamespace).
//
// The Lease is a deadline, not a fence: a holder that was asleep, or that a
// cut network kept from renewing, may wake up after somebody else has taken it.
// What keeps its writes out are the UID and resourceVersion preconditions that
// every mutation carries. What the lock adds is that a run which knows, or must
// fear, that it lost the mesh sends nothing more.
//
// Time. No machine's clock is believed about another's. A holder measures the
// time since its last renewal as the longer of what its wall clock and its
// monotonic clock say: the former stands still when it is set back, the latter
// while a laptop sleeps. Past the deadline it renews before it changes
// anything; that the Lease still is what it wrote last (resourceVersion)
// proves that nobody held the mesh in between. Somebody who finds a Lease that
// looks expired watches it for as long as it runs, on a clock of its own: only
// one that is not renewed meanwhile is taken over.
package lock

import "time"

// Name is the name of the Lease.
const Name = "rutter"

// How long a Lease runs, and how often it is renewed. A minute rides out the
// fail-over of an API server, and is what a crashed run keeps others waiting.
const (
	Duration = time.Minute
	Interval = 15 * time.Second
	// margin is taken off the holder's own deadline: a request that is sent
	// right before it must be over when the Lease is.
	margin = 10 * time.Second
)

// The annotations of the Lease.
const (
	annotationRun   = "rutter.dev/run"
	annotationHost  = "rutter.dev/host"
	annotationNonce = "rutter.dev/nonce-sha256" // the nonce itself is for the holder to tell
)
