package lock

import (
	"context"
	"errors"
	"fmt"

	"rutter.dev/rutter/runtime/cluster"
)

// ErrNonce: the nonce is not the lock's.
var ErrNonce = errors.New("that is not this lock's nonce")

// Unlock takes the Lease away from whoever holds it, when nonce is the one
// that the holder was given: proof that its record was looked at. It returns
// whom it was taken from; nil when nobody held it. The holder notices at its
// next renewal and stops.
func Unlock(ctx context.Context, w cluster.Writer, namespace, nonce string) (*Info, error) {
	for range acquireTries { // the holder renews meanwhile
		live, err := w.Get(ctx, refIn(namespace))
		if errors.Is(err, cluster.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("unlock: %w", err)
		}
		held := read(live)
		if held.nonce != sumOf(nonce) {
			return &held, fmt.Errorf("lease %s in %s: %w", Name, namespace, ErrNonce)
		}
		err = w.Delete(ctx, refIn(namespace), cluster.WriteOptions{UID: live.GetUID(), ResourceVersion: live.GetResourceVersion()})
		if errors.Is(err, cluster.ErrConflict) {
			continue
		}
		if err != nil && !errors.Is(err, cluster.ErrNotFound) {
			return &held, fmt.Errorf("unlock: %w", err)
		}
		return &held, nil
	}
	return nil, fmt.Errorf("unlock: lease %s in %s: %w", Name, namespace, cluster.ErrConflict)
}
