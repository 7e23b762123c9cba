package lock_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/lock"
	"rutter.dev/rutter/runtime/sim"
)

const namespace = "istio-system"

// world is a simulated cluster with a namespace for the Lease.
type world struct {
	*testing.T
	sim *sim.Cluster
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s, err := sim.New(sim.Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t, s}
	ns := &cluster.Object{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": namespace}}}
	if _, err := w.client(s.Clock()).Create(t.Context(), ns, cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	return w
}

type clock interface {
	Now() time.Time
	Sleep(context.Context, time.Duration) error
	Virtual() bool
}

func (w *world) client(c clock) *cluster.Client {
	w.Helper()
	cl, err := cluster.New(w.sim.Config(), "sim", c, cluster.ClientOptions{})
	if err != nil {
		w.Fatal(err)
	}
	return cl
}

// by are the options of a run on a host, on a virtual clock of its own.
func (w *world) by(run, host string, seed byte) lock.Options {
	c := lock.NewClock(w.sim.Clock())
	return lock.Options{
		Cluster: w.client(c), Clock: c, Rand: rand.NewChaCha8([32]byte{seed}), Namespace: namespace,
		Run: run, Holder: "ann", Host: host,
	}
}

func (w *world) acquire(o lock.Options) *lock.Lock {
	w.Helper()
	l, err := lock.Acquire(w.Context(), o)
	if err != nil {
		w.Fatal(err)
	}
	return l
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) look() *lock.Info {
	w.Helper()
	i, err := lock.Look(w.Context(), w.client(w.sim.Clock()), namespace)
	w.ok(err)
	return i
}

// refused demands that the mesh is held by run.
func (w *world) refused(o lock.Options, run string) {
	w.Helper()
	var held *lock.HeldError
	if _, err := lock.Acquire(w.Context(), o); !errors.As(err, &held) || held.Info.Run != run {
		w.Fatalf("got %v, want it held by %s", err, run)
	}
}

func TestOneRunAtATime(t *testing.T) {
	w := newWorld(t)
	l := w.acquire(w.by("a", "h1", 1))
	w.ok(l.Check(t.Context()))
	w.refused(w.by("b", "h2", 2), "a")
	w.refused(w.by("b", "h1", 2), "a")
	if i := w.look(); !i.Live(w.sim.Clock().Now()) || i.Holder != "ann" || i.Host != "h1" {
		t.Errorf("%+v", i)
	}
	w.ok(l.Release(t.Context()))
	if i := w.look(); i != nil {
		t.Errorf("left behind: %+v", i)
	}
	if err := l.Check(t.Context()); !errors.Is(err, lock.ErrLost) {
		t.Errorf("after it was let go: %v", err)
	}
	l2 := w.acquire(w.by("b", "h2", 2))
	w.ok(l.Release(t.Context())) // again, by who no longer holds it
	w.ok(l2.Check(t.Context()))
	if i := w.look(); i == nil || i.Run != "b" {
		t.Errorf("%+v", i)
	}
}

// TestRenewedAsTimePasses lets an hour pass on the holder's clock, as in a
// soak: the Lease never runs out.
func TestRenewedAsTimePasses(t *testing.T) {
	w := newWorld(t)
	o := w.by("a", "h1", 1)
	l := w.acquire(o)
	for range 60 {
		w.ok(o.Clock.Sleep(t.Context(), time.Minute))
		w.refused(w.by("b", "h2", 2), "a")
	}
	w.ok(l.Check(t.Context()))
	w.ok(l.Release(t.Context()))
	before := len(w.sim.Requests())
	w.ok(o.Clock.Sleep(t.Context(), time.Hour))
	if after := len(w.sim.Requests()); after != before {
		t.Errorf("%d requests after it was let go", after-before)
	}
}

func TestDeadHolder(t *testing.T) {
	w := newWorld(t)
	// Its process is gone: nothing moves the clock that would renew.
	w.acquire(w.by("a", "h1", 1))
	w.refused(w.by("b", "h2", 2), "a")
	t.Run("its own run takes it back at once", func(t *testing.T) {
		at := w.sim.Clock().Now()
		o := w.by("a", "h1", 3)
		o.Alone = true
		w.acquire(o)
		if d := w.sim.Clock().Now().Sub(at); d != 0 {
			t.Errorf("after %v", d)
		}
	})
	t.Run("its own run on another host watches first", func(t *testing.T) {
		at, told := w.sim.Clock().Now(), false
		o := w.by("a", "h2", 4)
		o.Alone = true
		o.Waiting = func(i lock.Info, _ time.Duration) { told = i.Host == "h1" }
		w.acquire(o)
		if d := w.sim.Clock().Now().Sub(at); d < lock.Duration || !told {
			t.Errorf("after %v, told: %v", d, told)
		}
	})
	t.Run("another run takes it once it has run out", func(t *testing.T) {
		w.refused(w.by("b", "h2", 5), "a")
		w.sim.Advance(lock.Duration)
		at := w.sim.Clock().Now()
		w.acquire(w.by("b", "h2", 5))
		if d := w.sim.Clock().Now().Sub(at); d < lock.Duration {
			t.Errorf("it was watched for %v only", d)
		}
	})
}

// TestTakenOver: a holder that slept past its Lease finds that another run has
// taken the mesh, and changes nothing more.
func TestTakenOver(t *testing.T) {
	w := newWorld(t)
	l := w.acquire(w.by("a", "h1", 1))
	ctx, cancel := l.Context(t.Context())
	defer cancel()
	w.sim.Advance(2 * time.Hour)
	w.acquire(w.by("b", "h2", 2))
	err := l.Check(t.Context())
	if !errors.Is(err, lock.ErrLost) || !strings.Contains(err.Error(), "run b, by ann on host h2") {
		t.Errorf("%v", err)
	}
	if !errors.Is(context.Cause(ctx), lock.ErrLost) {
		t.Errorf("the run was not told: %v", context.Cause(ctx))
	}
	w.ok(l.Release(t.Context()))
	if i := w.look(); i == nil || i.Run != "b" {
		t.Errorf("it let go what is somebody else's: %+v", i)
	}
}

// TestSleptAndNobodyCame: past its deadline a holder renews before it goes on,
// which proves that nobody held the mesh in between.
func TestSleptAndNobodyCame(t *testing.T) {
	w := newWorld(t)
	l := w.acquire(w.by("a", "h1", 1))
	w.sim.Advance(2 * time.Hour)
	w.ok(l.Check(t.Context()))
	if i := w.look(); !i.Live(w.sim.Clock().Now()) {
		t.Errorf("%+v was not renewed", i)
	}
}

func TestUnreachablePastTheDeadline(t *testing.T) {
	w := newWorld(t)
	o := w.by("a", "h1", 1)
	l := w.acquire(o)
	w.sim.Inject(sim.Fault{Resource: "leases", Group: "coordination.k8s.io", Kind: sim.FaultStatus, Code: 503, Times: -1})
	w.ok(o.Clock.Sleep(t.Context(), 30*time.Second))
	w.ok(l.Check(t.Context())) // two renewals failed: there is time yet
	w.ok(o.Clock.Sleep(t.Context(), 30*time.Second))
	if err := l.Check(t.Context()); !errors.Is(err, lock.ErrLost) || !strings.Contains(err.Error(), "can't be renewed") {
		t.Fatalf("%v", err)
	}
	w.sim.ClearFaults()
	if err := l.Check(t.Context()); !errors.Is(err, lock.ErrLost) {
		t.Errorf("it came back: %v", err)
	}
}

// TestAnswersLost: each request on the Lease in turn takes effect and is not
// answered, or fails; the lock is held all the same.
func TestAnswersLost(t *testing.T) {
	for _, f := range []sim.Fault{
		{Kind: sim.FaultTimeout, After: true},
		{Kind: sim.FaultTimeout},
		{Kind: sim.FaultReset, After: true},
		{Kind: sim.FaultStatus, Code: 500},
		{Kind: sim.FaultStatus, Code: 500, After: true},
		{Kind: sim.FaultConflict},
	} {
		for _, verb := range []string{"create", "update", "delete"} {
			w := newWorld(t)
			f.Group, f.Resource, f.Verb = "coordination.k8s.io", "leases", verb
			w.sim.Inject(f)
			o := w.by("a", "h1", 1)
			l := w.acquire(o)
			w.ok(o.Clock.Sleep(t.Context(), 5*time.Minute))
			w.ok(l.Check(t.Context()))
			w.refused(w.by("b", "h2", 2), "a")
			if err := l.Release(t.Context()); err != nil && verb != "delete" {
				t.Errorf("%s, %s, after %v: %v", f.Kind, verb, f.After, err)
			}
		}
	}
}

func TestUnlock(t *testing.T) {
	w := newWorld(t)
	admin := w.client(w.sim.Clock())
	if i, err := lock.Unlock(t.Context(), admin, namespace, "x"); i != nil || err != nil {
		t.Errorf("of nothing: %v, %v", i, err)
	}
	o := w.by("a", "h1", 1)
	l := w.acquire(o)
	if i, err := lock.Unlock(t.Context(), admin, namespace, "wrong"); !errors.Is(err, lock.ErrNonce) || i.Run != "a" {
		t.Errorf("%v, %v", i, err)
	}
	w.ok(l.Check(t.Context()))
	live, err := admin.Get(t.Context(), cluster.Ref{Group: "coordination.k8s.io", Version: "v1", Kind: "Lease", Namespace: namespace, Name: lock.Name})
	w.ok(err)
	if raw, err := live.MarshalJSON(); err != nil || strings.Contains(string(raw), l.Nonce()) {
		t.Errorf("the Lease tells the nonce (%v): %s", err, raw)
	}
	if i, err := lock.Unlock(t.Context(), admin, namespace, l.Nonce()); err != nil || i.Run != "a" {
		t.Errorf("%v, %v", i, err)
	}
	w.ok(o.Clock.Sleep(t.Context(), lock.Interval))
	if err := l.Lost(); !errors.Is(err, lock.ErrLost) || !strings.Contains(err.Error(), "unlocked") {
		t.Errorf("the holder did not notice: %v", err)
	}
}

// machine is a clock as a computer has it: a wall clock that can be set, and
// one that only counts while the machine is awake.
type machine struct {
	clock
	mu   sync.Mutex
	wall time.Duration // off the truth
	mono time.Duration
}

func (m *machine) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.clock.Now().Add(m.wall)
}

func (m *machine) Monotonic() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mono
}

func (m *machine) pass(wall, mono time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wall += wall
	m.mono += mono
}

// TestClocksThatLie moves the holder's clocks against each other: at the next
// mutation it must have renewed whenever the Lease may have run out.
func TestClocksThatLie(t *testing.T) {
	for _, c := range []struct {
		name       string
		wall, mono time.Duration // what passes on each
		renews     bool
	}{
		{"nothing passed", 0, 0, false},
		{"a little while", 20 * time.Second, 20 * time.Second, false},
		{"the laptop slept", 2 * time.Hour, 0, true},
		{"the clock was set an hour ahead", time.Hour, 0, true},
		{"the clock was set an hour back, and the Lease ran out", -time.Hour, lock.Duration, true},
		{"the clock was set an hour back", -time.Hour, time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			m := &machine{clock: w.sim.Clock()}
			o := w.by("a", "h1", 1)
			o.Clock = m
			l := w.acquire(o)
			m.pass(c.wall, c.mono)
			before := len(w.sim.Requests())
			w.ok(l.Check(t.Context()))
			if renewed := len(w.sim.Requests()) > before; renewed != c.renews {
				t.Errorf("renewed: %v, want %v", renewed, c.renews)
			}
		})
	}
}

// TestSkewedContender: whatever the clock of who comes says, a holder that
// renews is not robbed.
func TestSkewedContender(t *testing.T) {
	for _, skew := range []time.Duration{-time.Hour, time.Hour} {
		w := newWorld(t)
		o := w.by("a", "h1", 1)
		w.acquire(o)
		b := w.by("b", "h2", 2)
		// As b waits, so does a, and renews.
		b.Clock = &machine{clock: o.Clock, wall: skew}
		w.refused(b, "a")
	}
}

// TestRealTime renews in the background on a clock that really passes.
func TestRealTime(t *testing.T) {
	w := newWorld(t)
	o := w.by("a", "h1", 1)
	ticks := make(chan time.Duration)
	o.Clock = &driven{clock: w.sim.Clock(), ticks: ticks}
	l := w.acquire(o)
	for range 8 {
		ticks <- 15 * time.Second // each is taken when the renewal before it is over
	}
	w.ok(l.Release(t.Context()))
	n := 0
	for _, r := range w.sim.Requests() {
		if r.Verb == "update" && r.Resource == "leases" {
			n++
		}
	}
	if n < 7 || n > 8 {
		t.Errorf("%d renewals", n)
	}
}

// driven is a real clock whose time passes when the test says.
type driven struct {
	clock
	ticks chan time.Duration
}

func (*driven) Virtual() bool { return false }

func (d *driven) Sleep(ctx context.Context, _ time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case by := <-d.ticks:
		return d.clock.Sleep(ctx, by)
	}
}
