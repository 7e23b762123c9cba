package testrun

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/lock"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/value"
)

// What is the same in every test, so that transcripts are.
const (
	runID       = "test"
	journalRoot = "/runs"
	clusterName = "sim"
	operator    = "tester"
)

// errKilled is why the contexts of a killed run end.
var errKilled = errors.New("the host was killed")

// run carries out t.run.
func (t *test) run(th *starlark.Thread, a *runArgs) (starlark.Value, error) {
	approver, err := approverOf(th, a.Approve, a.Leave)
	if err != nil {
		return nil, fmt.Errorf("t.run: approve: %w", err)
	}
	policy, err := policyOf(a.Policy)
	if err != nil {
		return nil, fmt.Errorf("t.run: policy: %w", err)
	}
	entry, err := filepath.Rel(t.file.root, t.beside(a.Runbook))
	if err != nil || strings.HasPrefix(entry, "..") {
		return nil, fmt.Errorf("t.run: %s lies outside of the root folder", a.Runbook)
	}
	l, err := t.suite.open(ctxOf(th), t.file.root, filepath.ToSlash(entry))
	if err != nil {
		return nil, fmt.Errorf("t.run: %w", err)
	}
	defer func() { _ = l.Close() }() // read only: nothing can be lost
	if p, ok := a.Policy.(*policyValue); ok {
		l.Withhold(p.p.Files)
	}
	var before *sim.Cluster
	if t.suite.o.Recorded != nil {
		before = a.Cluster.sim.Clone()
	}
	disk := journal.NewMemFS()
	j, err := journal.Create(disk, journalRoot, runID, a.Cluster.sim.Clock())
	if err != nil {
		return nil, fmt.Errorf("t.run: %w", err)
	}
	out := t.begin(disk, j, a.Cluster, policy, a.Params)
	ctx, kill := context.WithCancelCause(ctxOf(th))
	defer kill(nil)
	out.arm(a.KillAt, kill)
	out.end(func() error {
		rb, err := t.suite.o.Host.Load(ctx, l)
		if err != nil {
			return err
		}
		params, err := rb.Bind(nil, a.Params)
		if err != nil {
			return err
		}
		s, err := out.session(t, approver)
		if err != nil {
			return err
		}
		return t.suite.o.Host.Run(ctx, ctx, s, rb, params)
	})
	if out.status == string(journal.RunDone) && approver.person == nil {
		t.record(before, a, filepath.ToSlash(entry), policy, approver)
	}
	return out, approver.person.failed(ctxOf(th).Err())
}

// resume carries out t.resume.
func (t *test) resume(th *starlark.Thread, a *resumeArgs) (starlark.Value, error) {
	before := a.Run
	switch {
	case before.status == string(journal.RunDone):
		return nil, errors.New("t.resume: the run is done; there is nothing to resume")
	case !before.resumable:
		return nil, errors.New("t.resume: the run never began; there is nothing to resume")
	case before.resumed:
		return nil, errors.New("t.resume: this result was resumed before; resume what that returned")
	}
	approver, err := approverOf(th, a.Approve, a.Leave)
	if err != nil {
		return nil, fmt.Errorf("t.resume: approve: %w", err)
	}
	policy := before.policy
	if a.Policy != nil {
		if policy, err = policyOf(a.Policy); err != nil {
			return nil, fmt.Errorf("t.resume: policy: %w", err)
		}
	}
	before.resumed = true
	disk := before.disk
	j, err := journal.Open(disk, journalRoot, runID, before.cluster.sim.Clock())
	if err != nil {
		return nil, fmt.Errorf("t.resume: %w", err)
	}
	out := t.begin(disk, j, before.cluster, policy, before.params)
	ctx, kill := context.WithCancelCause(ctxOf(th))
	defer kill(nil)
	out.arm(a.KillAt, kill)
	out.end(func() error {
		s, err := out.session(t, approver)
		if err != nil {
			return err
		}
		return t.suite.o.Host.ResumeWith(ctx, ctx, s, host.ResumeOptions{Recorded: true, Given: interp.Given{File: before.params}})
	})
	return out, approver.person.failed(ctxOf(th).Err())
}

func (t *test) begin(disk *journal.MemFS, j journal.Journal, c *simulated, policy *gate.Policy, params map[string]any) *outcome {
	o := &outcome{disk: disk, journal: j, cluster: c, policy: policy, params: params, root: t.file.root}
	t.runs = append(t.runs, o)
	o.view = t.suite.o.View(&o.text)
	return o
}

// session is what the run is given: the test's cluster and its clock, and
// nothing of the machine.
func (o *outcome) session(t *test, approver engine.Approver) (host.Session, error) {
	clock := lock.NewClock(o.cluster.sim.Clock())
	client, err := cluster.New(o.cluster.sim.Config(), clusterName, clock, cluster.ClientOptions{Version: t.suite.o.Host.Version})
	if err != nil {
		return host.Session{}, err
	}
	return host.Session{
		Env: &env.Env{
			Clock: clock, Rand: rand.NewChaCha8([32]byte{}), Getenv: func(string) string { return "" },
			Stdin: strings.NewReader(""), Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{},
			IsTerminal: func(any) bool { return false }, Workdir: t.file.root,
		},
		Cluster: client, Journal: o.journal, Sink: event.Serial(event.Multi(event.SinkFunc(o.record), o.view)),
		Approver: approver, Policy: o.policy, Sealer: t.suite.o.Sealer,
		Lock: &lock.Options{Rand: rand.NewChaCha8([32]byte{}), Holder: operator, Host: "test", Alone: true}, Invocation: json.RawMessage("{}"),
	}, nil
}

// arm makes the host die right after the so many-th write or sync of its
// journal: from then on nothing can be written, and what was not synced is
// lost.
func (o *outcome) arm(killAt int, kill context.CancelCauseFunc) {
	if killAt <= 0 {
		return
	}
	n := 0
	o.disk.Fault(func(_ int, kind string) error {
		if kind != "write" && kind != "sync" {
			return nil
		}
		if n++; n != killAt {
			return nil
		}
		o.killed.Store(true)
		kill(errKilled)
		return journal.ErrCrashed
	})
}

// end runs and takes down how that ended.
func (o *outcome) end(run func() error) {
	err := run()
	o.disk.Fault(nil)
	o.err, o.exit = err, int(diag.ExitCode(err))
	if o.status == "" { // it ended before it began
		o.status = string(journal.RunFailed)
		o.text.WriteString("✗ " + err.Error() + "\n")
	}
	if o.killed.Load() {
		o.status = statusKilled
		o.text.WriteString("✗ killed\n")
		o.close()
		o.disk = o.disk.Crash(0)
	}
	o.resumable = o.status != string(journal.RunDone) && o.begun()
	o.transcript = strings.ReplaceAll(o.text.String(), o.root+string(filepath.Separator), "")
}

// begun reports whether the journal has a first record.
func (o *outcome) begun() bool {
	o.close()
	j, err := journal.Open(o.disk, journalRoot, runID, o.cluster.sim.Clock())
	if err != nil {
		return false
	}
	_, err = host.Begun(j)
	return errors.Join(err, j.Close()) == nil
}

// data is a Starlark value of what is certainly data.
func data(x any) (starlark.Value, error) { return value.FromGo(x) }
