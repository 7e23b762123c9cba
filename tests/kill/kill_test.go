// Package kill proves the promise of durability on real processes: rutter is
// killed while it upgrades a simulated mesh, and what resume makes of it is
// what a run that nobody disturbed makes.
package kill

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"rutter.dev/rutter/runtime/journal"
)

// mesh is the simulated cluster of every run here: a canary and a second wave.
const mesh = "mesh,istio=1.30.3,workloads=20,seed=1"

var upgrade = []string{"run", "istio/in-place", "--set", "to=1.31.0", "--sim", mesh, "--yes"}

// seed chooses the random moments; it is fixed so that a failure comes again.
const seed = 20260711

// undisturbed is the run that nobody kills, made once.
type undisturbed struct {
	cache  string // of renders, shared by every process
	world  *world
	events int
}

func baseline(t *testing.T) *undisturbed {
	t.Helper()
	u := &undisturbed{cache: t.TempDir()}
	p := newPlace(t, u.cache)
	x := p.start(false, upgrade...).must(0)
	u.world, u.events = p.read(x.run()), len(x.events)
	if len(u.world.journal.effects) < 10 {
		t.Fatalf("the upgrade made %d effects only", len(u.world.journal.effects))
	}
	same(t, u.world, u.world)
	return u
}

// run is the id of the run that x began or took up.
func (x *process) run() string {
	x.t.Helper()
	for _, e := range x.events {
		if e.Run != "" {
			return e.Run
		}
	}
	x.t.Fatalf("no event names the run\n%s", x.stderr.String())
	return ""
}

// nth holds for the nth event, from 1, that also matches.
func nth(n int, also func(ev) bool) func(ev) bool {
	return func(e ev) bool {
		if also(e) {
			n--
		}
		return n == 0
	}
}

func of(kind, step string) func(ev) bool {
	return func(e ev) bool { return e.Type == kind && e.Step == step }
}

func inWave(name string, also func(ev) bool) func(ev) bool {
	inside := false
	return func(e ev) bool {
		if e.Type == "wave-started" {
			inside = strings.HasPrefix(e.Name, name)
		}
		return inside && also(e)
	}
}

func TestKilledAndInterrupted(t *testing.T) {
	u := baseline(t)
	t.Run("killed", func(t *testing.T) { t.Parallel(); killed(t, u) })
	t.Run("interrupted", func(t *testing.T) { t.Parallel(); interrupted(t, u) })
}

func killed(t *testing.T, u *undisturbed) {
	controlPlane, dataPlane := "control plane", "data plane"
	soaking := func(e ev) bool { return e.Type == "progress" && strings.Contains(e.Message, "soaking") }
	moments := []struct {
		name string
		at   func() func(ev) bool
		// left is a step that the journal must not hold the end of.
		left string
	}{
		{"before the first step ends", func() func(ev) bool { return of("step-started", "preflight") }, "preflight"},
		{"in the middle of kube.apply", func() func(ev) bool { return nth(4, of("effect-done", controlPlane)) }, controlPlane},
		{"at the canary's restart", func() func(ev) bool { return inWave("canary", of("effect-intent", dataPlane)) }, dataPlane},
		{"while the canary soaks", func() func(ev) bool { return nth(4, soaking) }, dataPlane},
		{"in the middle of the second wave", func() func(ev) bool { return nth(6, inWave("2", of("effect-done", dataPlane))) }, dataPlane},
	}
	var mu sync.Mutex
	doubts := 0
	t.Run("at", func(t *testing.T) {
		for _, m := range moments {
			t.Run(m.name, func(t *testing.T) {
				t.Parallel()
				p := newPlace(t, u.cache)
				x := p.start(true, upgrade...)
				x.until(m.at())
				x.kill()
				run := x.run()
				n := p.unfinished(run, m.left)
				mu.Lock()
				doubts += n
				mu.Unlock()
				p.start(false, "resume", run, "--yes").must(0)
				p.resumed(run, u, 1)
			})
		}
		t.Run("twice", func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, u.cache)
			x := p.start(true, upgrade...)
			x.until(nth(7, of("effect-intent", controlPlane)))
			x.kill()
			run := x.run()
			p.unfinished(run, controlPlane)
			again := p.start(true, "resume", run, "--yes")
			again.until(nth(2, inWave("2", of("effect-done", dataPlane))))
			again.kill()
			p.unfinished(run, dataPlane)
			p.start(false, "resume", run, "--yes").must(0)
			p.resumed(run, u, 2)
		})
		// A process that runs freely, not at the pace of its reader.
		random := rand.New(rand.NewPCG(seed, 0))
		for i := range 6 {
			at := 1 + random.IntN(u.events-1)
			t.Run(fmt.Sprintf("event %d of %d", at, u.events), func(t *testing.T) {
				t.Parallel()
				p := newPlace(t, u.cache)
				x := p.start(i%2 == 0, upgrade...)
				x.until(func(e ev) bool { return e.Index == at })
				x.kill()
				p.start(false, "resume", x.run(), "--yes").must(0)
				p.resumed(x.run(), u, -1)
			})
		}
	})
	if doubts == 0 && !t.Failed() {
		t.Error("no kill left an effect in doubt: the moments no longer test what they are for")
	}
}

// unfinished demands that the run's journal ends inside the step, and returns
// how many effects are in doubt.
func (p *place) unfinished(run, step string) int {
	p.t.Helper()
	j := p.journal(run)
	if !j.started[step] {
		p.t.Fatalf("killed too early: the step %q has not begun", step)
	}
	if j.ended[step] {
		p.t.Fatalf("killed too late: the step %q has ended", step)
	}
	atMostOnce(p.t, j)
	return j.doubts()
}

// resumed demands that the run is done as if nobody had disturbed it.
func (p *place) resumed(run string, u *undisturbed, resumes int) {
	p.t.Helper()
	got := p.read(run)
	same(p.t, got, u.world)
	if n := got.journal.resumes; resumes >= 0 && n != resumes {
		p.t.Errorf("the journal tells of %d resumes, want %d", n, resumes)
	}
}

func interrupted(t *testing.T, u *undisturbed) {
	for _, c := range []struct {
		name string
		sig  os.Signal
		at   func() func(ev) bool
	}{
		{"while an object is applied", os.Interrupt, func() func(ev) bool { return nth(3, of("effect-intent", "control plane")) }},
		{"while the canary soaks", syscall.SIGTERM, func() func(ev) bool {
			return nth(3, func(e ev) bool { return strings.Contains(e.Message, "soaking") })
		}},
	} {
		t.Run("once "+c.name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, u.cache)
			x := p.start(true, upgrade...)
			x.until(c.at())
			x.signal(c.sig)
			x.must(130)
			run := x.run()
			j := p.journal(run)
			if j.status != journal.RunInterrupted {
				t.Errorf("the run is %s, want %s", j.status, journal.RunInterrupted)
			}
			atMostOnce(t, j)
			if n := j.doubts(); n != 0 {
				t.Errorf("a clean stop left %d effects in doubt", n)
			}
			if out := x.stderr.String(); !strings.Contains(out, "rutter resume "+run) {
				t.Errorf("stderr does not say how to go on:\n%s", out)
			}
			p.start(false, "resume", run, "--yes").must(0)
			p.resumed(run, u, 1)
		})
	}
	t.Run("twice", func(t *testing.T) {
		t.Parallel()
		p := newPlace(t, u.cache)
		x := p.start(true, upgrade...)
		x.until(nth(3, of("effect-intent", "control plane")))
		x.signal(os.Interrupt)
		x.next() // two signals that are both pending would be one
		x.signal(os.Interrupt)
		x.must(130)
		p.start(false, "resume", x.run(), "--yes").must(0)
		p.resumed(x.run(), u, 1)
	})
}
