package manifest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
)

// Condition judges one object (nil when absent): whether it is met, failed for
// good, and why not.
type Condition func(o *cluster.Object) (met, failed bool, why string)

// failedError tells that waiting longer will not help.
type failedError struct {
	ref cluster.Ref
	why string
}

func (e *failedError) Error() string { return e.ref.String() + ": failed: " + e.why }

// Await waits until every ref meets cond. When one fails for good, or time is
// up, the evidence is shown and the error says which.
func Await(c *builtin.Call, refs []cluster.Ref, timeout time.Duration, cond Condition, progress func(done, total int, message string)) error {
	if len(refs) == 0 {
		return nil
	}
	last, pending := "", []cluster.Ref(nil)
	err := c.Reader.WaitFor(c.Ctx, refs, timeout, func(now []*cluster.Object) (bool, error) {
		pending = pending[:0]
		message := ""
		for i, o := range now {
			met, failed, why := cond(o)
			if failed {
				return false, &failedError{refs[i], why}
			}
			if !met {
				if len(pending) == 0 {
					message = refs[i].String() + ": " + why
				}
				pending = append(pending, refs[i])
			}
		}
		if message != last {
			progress(len(refs)-len(pending), len(refs), message)
			last = message
		}
		return len(pending) == 0, nil
	})
	var failed *failedError
	switch {
	case errors.As(err, &failed):
		pending = []cluster.Ref{failed.ref}
	case errors.Is(err, cluster.ErrTimeout):
		err = fmt.Errorf("%s: not ready after %s: %s: %w", pending[0], timeout, strings.TrimPrefix(last, pending[0].String()+": "), cluster.ErrTimeout)
	}
	if err == nil || c.Ctx.Err() != nil {
		return err
	}
	for _, ref := range pending {
		for _, line := range evidence(c.Ctx, c.Reader, ref) {
			c.Emit(&event.Log{Level: "warn", Message: ref.String() + ": " + line})
		}
	}
	return err
}

// AwaitGone waits until the object that e deleted is gone; one of the same
// name that was made since does not count.
func AwaitGone(c *builtin.Call, s effect.Submitter, e *effect.Effect, timeout time.Duration) error {
	if timeout <= 0 {
		return nil
	}
	gone := func(o *cluster.Object) (bool, bool, string) {
		return o == nil || (e.UID != "" && string(o.GetUID()) != e.UID), false, "is still being deleted"
	}
	return Await(c, []cluster.Ref{e.Ref}, timeout, gone, s.Progress)
}
