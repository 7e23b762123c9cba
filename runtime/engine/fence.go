package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/lock"
	"rutter.dev/rutter/runtime/mesh"
)

// Where the Lease is: with the mesh's root, or where every cluster has a
// namespace as long as there is none.
const (
	rootNamespace = "istio-system"
	noRoot        = "kube-system"
)

// lock takes the mesh for this run, once it is known to be the right one and
// before anything is written. release lets it go; held is for the journal.
func (e *Engine) lock() (release func(), held *journal.Lock, err error) {
	if e.o.Lock == nil {
		return func() {}, nil, nil
	}
	o := *e.o.Lock
	o.Cluster, o.Clock, o.Run = e.o.Cluster, e.o.Env.Clock, e.run.ID
	if o.Namespace, err = LockNamespace(e.soft, e.view); err != nil {
		return nil, nil, fmt.Errorf("run %s: %w", e.run.ID, err)
	}
	o.Waiting = func(i lock.Info, d time.Duration) {
		e.emit("", &event.Log{Level: "warn", Message: fmt.Sprintf(
			"the lock on the mesh was left by %s; taking it over if it is not renewed within %s", i, d)})
	}
	l, err := lock.Acquire(e.soft, o)
	switch {
	case err != nil && e.soft.Err() != nil:
		return nil, nil, &diag.Error{
			Code: diag.Interrupted, Subject: "run " + e.run.ID, Problem: "interrupted before it had the lock on the mesh",
			Changed: "nothing by this command", Next: e.next(ErrInterrupted),
		}
	case err != nil:
		refusal := gate.Held(o.Namespace, err)
		var held *lock.HeldError
		if errors.As(err, &held) && held.Info.Run == e.run.ID {
			refusal.Findings[0].Problem = "this very run is still alive: " + held.Info.String()
		}
		return nil, nil, &diag.Error{Code: diag.Blocked, Subject: "run " + e.run.ID, Err: refusal, Changed: "nothing by this command"}
	}
	e.run.Fence = l
	soft, end := l.Context(e.soft)
	e.soft = soft
	release = func() {
		end()
		// Told to stop at once, it lets the lock run out: a resume takes it back.
		ctx, cancel := context.WithTimeout(e.hard, releaseTimeout)
		defer cancel()
		_ = l.Release(ctx)
	}
	return release, &journal.Lock{Namespace: o.Namespace, Nonce: l.Nonce(), Holder: o.Holder, Host: o.Host}, nil
}

// releaseTimeout bounds how long a run that is over waits for a cluster that
// does not answer. The lock runs out by itself.
const releaseTimeout = 10 * time.Second

// LockNamespace is where the Lease of the cluster's mesh is: the namespace of
// its root, istio-system where there is one, and kube-system where there is
// not. A run that is making its mesh's namespace keeps its Lease where it took
// it: until it lets go, that is the place for all.
func LockNamespace(ctx context.Context, r cluster.Reader) (string, error) {
	namespace, found, err := MeshNamespace(ctx, r)
	if err != nil {
		return "", err
	}
	if !found {
		return noRoot, nil
	}
	held, err := lock.Look(ctx, r, noRoot)
	switch {
	case errors.Is(err, cluster.ErrDenied): // it could not have been taken there by this user either
		return namespace, nil
	case err != nil:
		return "", err
	case held != nil:
		return noRoot, nil
	}
	return namespace, nil
}

// MeshNamespace is the namespace of the root of the cluster's mesh: that of its
// control plane, istio-system where there is none; found tells whether it is
// there.
func MeshNamespace(ctx context.Context, r cluster.Reader) (namespace string, found bool, err error) {
	planes, err := mesh.ControlPlanes(ctx, r)
	if err != nil {
		return "", false, fmt.Errorf("control planes: %w", err)
	}
	if len(planes) > 0 && !slices.ContainsFunc(planes, func(p mesh.ControlPlane) bool { return p.Namespace == rootNamespace }) {
		return planes[0].Namespace, true, nil
	}
	_, err = r.Get(ctx, cluster.Ref{Version: "v1", Kind: "Namespace", Name: rootNamespace})
	if errors.Is(err, cluster.ErrNotFound) {
		return rootNamespace, false, nil
	}
	return rootNamespace, err == nil, err
}

// fenced is the loss of the lock, as far as is known.
func (e *Engine) fenced() error {
	if e.run.Fence == nil {
		return nil
	}
	return e.run.Fence.Lost()
}

// check is what comes right before a request that changes something.
func (e *Engine) check() error {
	if e.run.Fence == nil {
		return nil
	}
	return e.run.Fence.Check(e.hard)
}

// unlocked makes a run that was stopped by the loss of its lock say so,
// whatever it was doing.
func (e *Engine) unlocked(err error) error {
	lost := e.fenced()
	var refusal *gate.Refusal
	stopped := errors.Is(err, lock.ErrLost) || errors.Is(err, ErrInterrupted) || errors.Is(err, context.Canceled) || errors.As(err, &refusal)
	if lost == nil || !stopped {
		return err
	}
	return &diag.Error{
		Code: diag.InDoubt, Subject: "run " + e.run.ID, Problem: "stopped", Err: lost,
		Expect: "a mesh that this run has locked", Next: "rutter resume " + e.run.ID + ", once no other run holds the mesh",
	}
}
