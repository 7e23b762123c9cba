package gate

import (
	"context"
	"errors"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/lock"
)

// Fence tells whether the mesh is still this run's; *lock.Lock is one.
type Fence interface {
	// Check is asked before each mutation, and may renew the lock. Its error
	// matches lock.ErrLost.
	Check(ctx context.Context) error
	// Lost is what is known already, without a request.
	Lost() error
}

var lockHeld = &Gate{
	Code: LockHeld, Name: "lock",
	Rationale: "Two runs that change one mesh undo each other's preconditions. A run that has lost its lock, or must fear that it has, changes nothing more.",
	Source:    "DESIGN §8 ruling 9: the Lease is a deadline, UID and resourceVersion preconditions are the fence",
	Before: func(ctx context.Context, _ cluster.Reader, run *Run, _ *effect.Effect) ([]Finding, error) {
		if run.Fence == nil {
			return nil, nil // a cluster that nobody else can reach
		}
		if err := run.Fence.Check(ctx); err != nil {
			return block(err.Error(), "a mesh that this run has locked", "rutter resume "+run.ID), nil
		}
		return nil, nil
	},
}

// Held is the refusal of a run whose mesh another run holds, or whose lock
// can't be taken: before anything is done.
func Held(namespace string, err error) *Refusal {
	f := Finding{
		Code: LockHeld, Verdict: Block, Problem: err.Error(), Expect: "a mesh that no other run changes",
		Ref:  cluster.Ref{Group: "coordination.k8s.io", Version: "v1", Kind: "Lease", Namespace: namespace, Name: lock.Name},
		Next: "grant get, create, update and delete of leases in " + namespace + ": " + cluster.RightsAdvice,
	}
	if right := cluster.MissingRight(err); right != "" {
		f.Expect = "the right to " + right
	}
	var held *lock.HeldError
	switch {
	case errors.As(err, &held):
		f.Problem = held.Error()
		f.Next = "wait until that run is over; if it is dead or gone astray: rutter unlock NONCE, with the nonce that it was given (rutter show " + held.Info.Run + " on its host)"
	case !errors.Is(err, cluster.ErrDenied):
		f.Next = "mend what keeps the cluster from answering, and try again"
	}
	return &Refusal{Findings: []Finding{f}, Forecast: true}
}
