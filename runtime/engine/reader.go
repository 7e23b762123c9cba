package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/env"
)

// envOf is the run's environment with waits that end at the step's deadline.
func (e *Engine) envOf(f *frame) *env.Env {
	if f.deadline.IsZero() {
		return e.o.Env
	}
	cp := *e.o.Env
	cp.Clock = &limitedClock{Clock: cp.Clock, until: f.deadline}
	return &cp
}

// limitedClock lets no sleep go past a deadline.
type limitedClock struct {
	env.Clock
	until time.Time
}

// Sleep implements env.Clock.
func (c *limitedClock) Sleep(ctx context.Context, d time.Duration) error {
	left := c.until.Sub(c.Now())
	if d <= left {
		return c.Clock.Sleep(ctx, d)
	}
	if err := c.Clock.Sleep(ctx, max(0, left)); err != nil {
		return err
	}
	return cluster.ErrTimeout
}

// readerOf is the cluster as the builtins and gates of a step see it: waits end
// at the step's deadline, and a dry-run that the server throttled is asked
// again, because it was not executed and changes nothing.
func (e *Engine) readerOf(f *frame) cluster.Reader {
	r := reader{Reader: e.view, clock: e.o.Env.Clock, until: f.deadline}
	if c, ok := e.view.(cluster.ConfigReader); ok {
		return configReader{reader: r, below: below{hidden{c}}}
	}
	return r
}

// configReader keeps the connection that a library may be handed: only that
// method of the ConfigReader is not hidden by those of reader.
type configReader struct {
	reader
	below
}

type (
	below  struct{ hidden }
	hidden struct{ cluster.ConfigReader }
)

var _ cluster.ConfigReader = configReader{}

type reader struct {
	cluster.Reader
	clock env.Clock
	until time.Time
}

// WaitFor implements cluster.Reader.
func (r reader) WaitFor(ctx context.Context, refs []cluster.Ref, timeout time.Duration, done func([]*cluster.Object) (bool, error)) error {
	if !r.until.IsZero() {
		if left := r.until.Sub(r.clock.Now()); left <= 0 {
			return fmt.Errorf("wait: %w", cluster.ErrTimeout)
		} else if left < timeout {
			timeout = left
		}
	}
	return r.Reader.WaitFor(ctx, refs, timeout, done)
}

// asked calls ask until it is not throttled, at most throttleTries times.
func (r reader) asked(ctx context.Context, ask func() error) error {
	wait := firstWait
	for try := 1; ; try++ {
		err := ask()
		if !errors.Is(err, cluster.ErrThrottled) || errors.Is(err, cluster.ErrDisruption) || try == throttleTries {
			return err
		}
		if r.clock.Sleep(ctx, wait) != nil {
			return err
		}
		wait *= 2
	}
}

// DryRunApply implements cluster.Reader.
func (r reader) DryRunApply(ctx context.Context, obj *cluster.Object, o cluster.ApplyOptions) (out *cluster.Object, err error) {
	err = r.asked(ctx, func() error { out, err = r.Reader.DryRunApply(ctx, obj, o); return err })
	return out, err
}

// DryRunPatch implements cluster.Reader.
func (r reader) DryRunPatch(ctx context.Context, ref cluster.Ref, pt types.PatchType, patch []byte, o cluster.WriteOptions) (out *cluster.Object, err error) {
	err = r.asked(ctx, func() error { out, err = r.Reader.DryRunPatch(ctx, ref, pt, patch, o); return err })
	return out, err
}

// DryRunCreate implements cluster.Reader.
func (r reader) DryRunCreate(ctx context.Context, obj *cluster.Object, o cluster.WriteOptions) (out *cluster.Object, err error) {
	err = r.asked(ctx, func() error { out, err = r.Reader.DryRunCreate(ctx, obj, o); return err })
	return out, err
}

// DryRunReplace implements cluster.Reader.
func (r reader) DryRunReplace(ctx context.Context, obj *cluster.Object, o cluster.WriteOptions) (out *cluster.Object, err error) {
	err = r.asked(ctx, func() error { out, err = r.Reader.DryRunReplace(ctx, obj, o); return err })
	return out, err
}

// DryRunDelete implements cluster.Reader.
func (r reader) DryRunDelete(ctx context.Context, ref cluster.Ref, o cluster.WriteOptions) error {
	return r.asked(ctx, func() error { return r.Reader.DryRunDelete(ctx, ref, o) })
}

// DryRunEvict implements cluster.Reader.
func (r reader) DryRunEvict(ctx context.Context, ref cluster.Ref, o cluster.WriteOptions) error {
	return r.asked(ctx, func() error { return r.Reader.DryRunEvict(ctx, ref, o) })
}
