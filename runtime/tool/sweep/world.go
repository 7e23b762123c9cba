package sweep

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/lock"
	"rutter.dev/rutter/runtime/sim"
)

// What is the same in every case.
const (
	root        = "/runs"
	runID       = "sweep"
	contextName = "sim"
)

// world is a run, its cluster and its disk, with all processes that have worked
// on it.
type world struct {
	s       *Subject
	run     string
	sim     *sim.Cluster
	had     map[string]bool // the Services that were there before
	disk    *journal.MemFS
	began   int // processes so far
	begun   bool
	sent    []sent
	forked  int             // how many of them an earlier cluster's log has
	open    map[string]bool // effects with an Intent and no Outcome
	intents map[string]*effect.Effect
	steps   map[string]string // how far each is, by path
	told    map[string]string // what a resume would be told again, by path: values, calls, leave
	output  bytes.Buffer
	status  string // of the last process that ended by itself
	limits  limits
	strayed bool // the script knows something else than in the undisturbed run
	isBack  bool // it was left where it was back on the recorded way
	broken  []string
}

func newWorld(s *Subject) *world {
	return &world{s: s, run: runID, had: services(s.Before), sim: s.Before.Clone(), disk: journal.NewMemFS(), open: map[string]bool{}, intents: map[string]*effect.Effect{}, steps: map[string]string{}, told: map[string]string{}}
}

// fork is a world that goes on from here by itself.
func (w *world) fork() *world {
	n := &world{
		s: w.s, run: w.run, had: w.had, sim: w.sim.Clone(), disk: w.disk.Fork(), began: w.began, begun: w.begun, sent: slices.Clone(w.sent), forked: len(w.sent),
		open: maps.Clone(w.open), intents: maps.Clone(w.intents), steps: maps.Clone(w.steps), told: maps.Clone(w.told), broken: slices.Clone(w.broken), status: w.status, limits: w.limits.fork(), strayed: w.strayed,
	}
	n.output.Write(w.output.Bytes())
	return n
}

// state is the cluster's normal form.
func (w *world) state() map[string]string { return stateOf(w.sim, w.had, w.s.known) }

// start begins the run.
func (w *world) start(pl plan) (*process, error) {
	return w.process(pl, func(ctx context.Context, p *process) error {
		j, err := journal.Create(platter{w.disk, p}, root, w.run, w.sim.Clock())
		if err != nil {
			return err
		}
		return w.with(p, j, func(s host.Session) error {
			rb, err := w.s.Load(ctx)
			if err != nil {
				return err
			}
			params, err := rb.Bind(nil, w.s.Params)
			if err != nil {
				return err
			}
			return w.s.Host.Run(ctx, ctx, s, rb, params)
		})
	})
}

// resume takes the run up in another process.
func (w *world) resume(pl plan) (*process, error) {
	return w.again(pl, func(ctx context.Context, s host.Session) error {
		return w.s.Host.ResumeWith(ctx, ctx, s, host.ResumeOptions{Recorded: true, Given: interp.Given{File: w.s.Params}})
	})
}

// rollback undoes the run in another process.
func (w *world) rollback(pl plan) (*process, error) {
	pl.undoing = true
	return w.again(pl, func(ctx context.Context, s host.Session) error {
		return w.s.Host.Rollback(ctx, ctx, s, engine.RollbackOptions{})
	})
}

func (w *world) again(pl plan, do func(context.Context, host.Session) error) (*process, error) {
	return w.process(pl, func(ctx context.Context, p *process) error {
		j, err := journal.Open(platter{w.disk, p}, root, w.run, w.sim.Clock())
		if err != nil {
			return err
		}
		return w.with(p, j, func(s host.Session) error { return do(ctx, s) })
	})
}

func (w *world) process(pl plan, do func(context.Context, *process) error) (*process, error) {
	w.began++
	w.status, w.limits.wave, w.limits.undoing = "", nil, pl.undoing
	ctx, kill := context.WithCancelCause(context.Background())
	defer kill(nil)
	p := &process{w: w, plan: pl, kill: kill}
	err := do(ctx, p)
	if err != nil {
		w.output.WriteString(err.Error() + "\n")
	}
	return p, err
}

// with gives do a session on j, and closes j.
func (w *world) with(p *process, j journal.Journal, do func(host.Session) error) error {
	clock := lock.NewClock(w.sim.Clock())
	cfg := w.sim.Config()
	cfg.Transport = wire{p, cfg.Transport}
	client, err := cluster.New(cfg, contextName, clock, cluster.ClientOptions{Version: w.s.Host.Version, Watch: p.plan.watching})
	if err == nil {
		seed := [32]byte{byte(w.began)} // #nosec G115 -- any byte does
		err = do(host.Session{
			Env: &env.Env{
				Clock: clock, Rand: rand.NewChaCha8(seed), Getenv: func(string) string { return "" },
				Stdin: strings.NewReader(""), Stdout: &w.output, Stderr: &w.output, IsTerminal: func(any) bool { return false },
			},
			Cluster: client, Journal: ledgered{j, p}, Sink: event.Serial(event.SinkFunc(w.emit)), Approver: w.s.Approver, Policy: w.s.Policy,
			Sealer: w.s.Sealer, Invocation: json.RawMessage("{}"),
			Lock: &lock.Options{Rand: rand.NewChaCha8(seed), Holder: "sweep", Host: "sweep", Alone: true},
			Evidence: func(name string, content []byte) (string, error) {
				w.output.Write(content)
				return name, nil
			},
		})
	}
	if cerr := j.Close(); err == nil && cerr != nil {
		return cerr
	}
	return err
}

func (w *world) emit(e event.Event) {
	switch b := e.Body.(type) {
	case *event.RunEnded:
		w.status = b.Status
	case *event.WaveStarted:
		w.limits.wave = b
	}
	b, err := json.Marshal(e.Body)
	if err != nil {
		w.breaks("event %T: %v", e.Body, err)
	}
	w.output.Write(append(b, '\n'))
}

// reopened learns from the disk, as another process will find it, what began.
func (w *world) reopened() error {
	j, err := journal.Open(w.disk, root, w.run, w.sim.Clock())
	w.begun = false
	w.open, w.intents, w.steps, w.told = map[string]bool{}, map[string]*effect.Effect{}, map[string]string{}, map[string]string{}
	if errors.Is(err, journal.ErrNotBegun) || errors.Is(err, journal.ErrNoRun) {
		return nil
	}
	if err != nil {
		return err
	}
	for rec, err := range j.Records() {
		if err != nil {
			return errors.Join(err, j.Close())
		}
		b, err := rec.Decode()
		if err != nil {
			return errors.Join(err, j.Close())
		}
		w.note(b)
	}
	return j.Close()
}

// served demands that the server's own log has no more changes than the wire.
func (w *world) served() {
	n := 0
	for _, r := range w.sim.Requests() {
		switch r.Verb {
		case "get", "list", "watch":
			continue
		}
		if !r.DryRun && r.Group != "coordination.k8s.io" && r.Group != "authorization.k8s.io" && r.Group != "authentication.k8s.io" {
			n++
		}
	}
	if seen := len(w.sent) - w.forked; n != seen {
		w.breaks("the server logged %d changes, %d of which went by the wire", n, seen)
	}
}

// stops reports whether a run may stop with a code (DESIGN §7).
func stops(c diag.Code) bool {
	switch c {
	case diag.Failed, diag.Usage, diag.Blocked, diag.InDoubt, diag.Interrupted:
		return true
	}
	return false
}

// wayOut are the gates that don't hold a rollback (DESIGN §3).
var wayOut = []gate.Code{"RUT003", "RUT004", gate.BackupCovers, gate.ReviewedDigest, "RUT008", "RUT014", "RUT015", "RUT017", "RUT018"}

// held demands that no gate blocked what was let pass.
func (w *world) held(i *journal.Intent) {
	for _, f := range i.Findings {
		if f.Verdict == gate.Block && !(w.limits.undoing && slices.Contains(wayOut, f.Code)) {
			w.breaks("%s %s: made although %s blocks it: %s", i.Effect.Verb, i.Effect.Ref, f.Code, f.Problem)
		}
	}
}

// willing answers what a gate asks with yes: who sweeps wants to see the way to
// its end.
type willing struct{ engine.Approver }

// Leave implements engine.Approver.
func (willing) Leave(_ context.Context, fs []gate.Finding) (string, bool, error) {
	back := slices.ContainsFunc(fs, func(f gate.Finding) bool { return f.Code == host.RollBackNow })
	return "sweep", !back, nil // whether a run is rolled back is for its case to say
}
