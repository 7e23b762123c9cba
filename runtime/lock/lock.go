package lock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/env"
)

// ErrLost: the mesh is not this run's any more, or it cannot be known to be.
var ErrLost = errors.New("the lock on the mesh is lost")

// HeldError is why Acquire refuses: another live run holds the mesh.
type HeldError struct{ Info Info }

// Error says who holds it.
func (e *HeldError) Error() string { return "the mesh is locked: " + e.Info.String() }

// Options say who wants which mesh.
type Options struct {
	Cluster   cluster.Writer
	Clock     env.Clock
	Rand      io.Reader
	Namespace string // of the mesh's root
	Run       string
	Holder    string // the person
	Host      string
	// Alone: no other process on this host can be working on the run, because
	// this one holds the run's own lock file. What the run left here is taken
	// back at once.
	Alone bool
	// Waiting, if set, is told when a Lease is watched before it is taken over.
	Waiting func(Info, time.Duration)
	// Taken, if set, is told once the mesh is held.
	Taken func(*Lock)
}

// Lock is the mesh, held. Safe for concurrent use.
type Lock struct {
	o     Options
	nonce string
	stop  func()

	renewing sync.Mutex // one renewal at a time; taken before mu

	mu   sync.Mutex // guards what follows; never held during a request
	info Info
	uid  types.UID
	rv   string
	at   stamp // when the last renewal that succeeded was sent
	lost error
	tell []context.CancelCauseFunc
}

// Acquire takes the mesh for a run: at once when it is free, or left by this
// same run on this host; after watching that it is not renewed when it looks
// expired, or this run may have held it elsewhere. A mesh that another run
// holds is a *HeldError. From then on the Lock is renewed by itself, until
// Release; ctx bounds the acquisition only.
func Acquire(ctx context.Context, o Options) (*Lock, error) {
	nonce, err := newNonce(o.Rand)
	if err != nil {
		return nil, err
	}
	l := &Lock{o: o, nonce: nonce}
	for range acquireTries {
		done, err := l.try(ctx)
		if err != nil {
			return nil, fmt.Errorf("lock of the mesh in namespace %s: %w", l.o.Namespace, err)
		}
		if done {
			l.stop = l.keep()
			if o.Taken != nil {
				o.Taken(l)
			}
			return l, nil
		}
	}
	return nil, fmt.Errorf("lock of the mesh in namespace %s: %w: others take it all the time", l.o.Namespace, cluster.ErrConflict)
}

// acquireTries bounds how often somebody else may be quicker.
const acquireTries = 10

// try looks at the Lease once and takes it if it may. Not done means that it
// changed meanwhile.
func (l *Lock) try(ctx context.Context) (done bool, err error) {
	live, err := l.o.Cluster.Get(ctx, refIn(l.o.Namespace))
	if errors.Is(err, cluster.ErrNotFound) {
		return l.write(ctx, Info{}, nil)
	}
	if err != nil {
		return false, err
	}
	held := read(live)
	mine := held.Run == l.o.Run
	switch {
	case held.nonce == sumOf(l.nonce): // an answer that never came
		l.took(held, live)
		return true, nil
	case held.Holder == "", mine && l.o.Alone && held.Host == l.o.Host:
	case !mine && held.looksLive(l.o.Clock.Now()):
		return false, &HeldError{held}
	default:
		same, err := l.watch(ctx, live, held)
		if err != nil || !same {
			return false, err
		}
	}
	return l.write(ctx, held, live)
}

// look is how often a Lease is looked at that may be taken over.
const look = 5 * time.Second

// watch looks at a Lease for as long as it runs. No clock is read: what counts
// is that this process was awake for so long and saw no renewal. same: it was
// not renewed.
func (l *Lock) watch(ctx context.Context, live *cluster.Object, held Info) (same bool, err error) {
	if l.o.Waiting != nil {
		l.o.Waiting(held, held.Duration)
	}
	for passed := time.Duration(0); passed < held.Duration; passed += look {
		if err := l.o.Clock.Sleep(ctx, look); err != nil {
			return false, err
		}
		now, err := l.o.Cluster.Get(ctx, refIn(l.o.Namespace))
		switch {
		case errors.Is(err, cluster.ErrNotFound):
			return false, nil
		case err != nil:
			return false, err
		case now.GetResourceVersion() != live.GetResourceVersion():
			return false, &HeldError{read(now)}
		}
	}
	return true, nil
}

// write makes the Lease, or takes the one that is there. Not done means that
// somebody was quicker, or that the answer never came: look again.
func (l *Lock) write(ctx context.Context, was Info, live *cluster.Object) (done bool, err error) {
	now := l.o.Clock.Now()
	next := Info{
		Namespace: l.o.Namespace, Run: l.o.Run, Holder: l.o.Holder, Host: l.o.Host,
		Acquired: now, Renewed: now, Duration: Duration, nonce: sumOf(l.nonce), moves: was.moves,
	}
	l.at = stampOf(l.o.Clock)
	var got *cluster.Object
	if live == nil {
		got, err = l.o.Cluster.Create(ctx, next.object(), cluster.WriteOptions{})
	} else {
		next.moves++
		got, err = l.o.Cluster.Replace(ctx, next.object(), cluster.WriteOptions{UID: live.GetUID(), ResourceVersion: live.GetResourceVersion()})
	}
	switch {
	case err == nil:
		l.took(next, got)
		return true, nil
	case errors.Is(err, cluster.ErrExists), errors.Is(err, cluster.ErrConflict), live != nil && errors.Is(err, cluster.ErrNotFound):
		return false, nil
	case errors.Is(err, cluster.ErrUnknown), errors.Is(err, cluster.ErrThrottled):
		return false, l.o.Clock.Sleep(ctx, time.Second)
	}
	return false, err
}

// took enters the Lease that is ours now.
func (l *Lock) took(i Info, o *cluster.Object) {
	l.info, l.uid, l.rv = i, o.GetUID(), o.GetResourceVersion()
}

// Nonce is what "rutter unlock" wants to hear.
func (l *Lock) Nonce() string { return l.nonce }

// Info is what the Lease says.
func (l *Lock) Info() Info {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.info
}

// Lost is why the mesh is not ours any more, as far as is known; it matches
// ErrLost. It sends nothing.
func (l *Lock) Lost() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// Check is called before each mutation: nil means that the mesh is ours, and
// for long enough that a request which is sent now is over when the Lease is.
// Past that time it renews first. Once it has failed it always does; its error
// matches ErrLost.
func (l *Lock) Check(ctx context.Context) error {
	if known, err := l.known(); known {
		return err
	}
	var err error
	for try := range 3 {
		if try > 0 && l.o.Clock.Sleep(ctx, time.Second) != nil {
			break
		}
		if err = l.renew(ctx); err == nil {
			return nil
		}
		if lost := l.Lost(); lost != nil {
			return lost
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: stopped before it could be renewed", ErrLost) // an interrupt loses nothing for good
	}
	return l.lose(fmt.Sprintf("it ran out at %s, and can't be renewed: %v", l.Info().Renewed.Add(Duration).UTC().Format(time.TimeOnly), err))
}

// known reports whether no request is needed to tell if the mesh is ours.
func (l *Lock) known() (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost != nil || l.at.since(l.o.Clock) < Duration-margin, l.lost
}

// renewTimeout bounds a request of a renewal.
const renewTimeout = 10 * time.Second

// renew writes the time into the Lease, on condition that it still is what
// this lock wrote last.
func (l *Lock) renew(ctx context.Context) error {
	l.renewing.Lock()
	defer l.renewing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	l.mu.Lock()
	next, uid, rv := l.info, l.uid, l.rv
	l.mu.Unlock()
	next.Renewed = l.o.Clock.Now()
	at := stampOf(l.o.Clock)
	got, err := l.o.Cluster.Replace(ctx, next.object(), cluster.WriteOptions{UID: uid, ResourceVersion: rv})
	if err == nil {
		l.renewed(next, got.GetResourceVersion(), at)
		return nil
	}
	if !errors.Is(err, cluster.ErrConflict) && !errors.Is(err, cluster.ErrUnknown) && !errors.Is(err, cluster.ErrNotFound) {
		return err
	}
	// Somebody else wrote it, or the answer never came.
	live, gerr := l.o.Cluster.Get(ctx, refIn(l.o.Namespace))
	switch {
	case errors.Is(gerr, cluster.ErrNotFound):
		return l.lose("somebody has unlocked it")
	case gerr != nil:
		return errors.Join(err, gerr)
	case read(live).nonce != next.nonce:
		return l.lose("it is held by " + read(live).String())
	case read(live).Renewed.Equal(next.Renewed.Truncate(time.Microsecond)): // its answer was lost
		l.renewed(next, live.GetResourceVersion(), at)
		return nil
	}
	l.mu.Lock()
	l.rv = live.GetResourceVersion() // still ours: somebody set a label, say
	l.mu.Unlock()
	return err
}

func (l *Lock) renewed(next Info, rv string, at stamp) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.info, l.rv, l.at = next, rv, at
}

// lose ends the lock for good.
func (l *Lock) lose(why string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost == nil {
		l.lost = fmt.Errorf("%w: %s", ErrLost, why)
		for _, cancel := range l.tell {
			cancel(l.lost)
		}
	}
	return l.lost
}

// Context is parent, ended with an ErrLost as its cause once the mesh is known
// to be lost.
func (l *Lock) Context(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tell = append(l.tell, cancel)
	if l.lost != nil {
		cancel(l.lost)
	}
	return ctx, func() { cancel(nil) }
}

// Release ends the renewals and takes the Lease away, unless it is somebody
// else's by now. A lock that could not be taken away runs out by itself.
func (l *Lock) Release(ctx context.Context) error {
	l.stop()
	if l.Lost() != nil {
		return nil
	}
	_ = l.lose("it was let go")
	if _, err := Unlock(ctx, l.o.Cluster, l.o.Namespace, l.nonce); err != nil && !errors.Is(err, ErrNonce) {
		return err
	}
	return nil
}
