package plan

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/knowledge"
	"rutter.dev/rutter/runtime/plain"
	"rutter.dev/rutter/runtime/seal"
	"rutter.dev/rutter/runtime/twin"
)

// runID is the name of a rehearsed run, and asker answers its questions.
const (
	runID       = "plan"
	journalRoot = "/runs"
	asker       = "whoever approves the plan"
)

// Rehearsal is what a plan is made of.
type Rehearsal struct {
	Host    *host.Host
	Runbook *host.Runbook
	Params  *interp.Params
	Twin    *twin.Twin
	Policy  *gate.Policy
	// Knowledge is what is known of Istio's releases; nil is what this rutter was
	// built with.
	Knowledge *knowledge.Base
	Workdir   string
	Analyze   func(ctx context.Context, r cluster.Reader) ([]string, error)
	// Path and Root are where the runbook was read.
	Path, Root string
}

// Rehearse carries the runbook out on the twin. A run that would be refused or
// would fail is a plan too, and says so; an error means that nothing is known:
// the runbook is not for this cluster, or the cluster fell silent
// (twin.ErrUnreachable).
func Rehearse(ctx context.Context, r Rehearsal) (*Plan, error) {
	clock := r.Twin.Clock()
	client, err := r.Twin.Client(clock, cluster.ClientOptions{Version: r.Host.Version})
	if err != nil {
		return nil, err
	}
	disk := journal.NewMemFS()
	j, err := journal.Create(disk, journalRoot, runID, clock)
	if err != nil {
		return nil, err
	}
	defer func() { _ = j.Close() }() // in memory: nothing can be lost
	sealer, err := seal.Ephemeral()
	if err != nil {
		return nil, err
	}
	g := &gatherer{plan: empty(), sealer: sealer}
	g.plan.Begins, g.plan.Rutter = clock.Now(), r.Host.Version
	err = r.Host.Run(ctx, ctx, host.Session{
		Env: &env.Env{
			Clock: clock, Rand: rand.NewChaCha8([32]byte{}), Getenv: func(string) string { return "" },
			Stdin: strings.NewReader(""), Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{},
			IsTerminal: func(any) bool { return false }, Workdir: r.Workdir,
		},
		Cluster: client, Journal: j, Sink: event.Serial(event.SinkFunc(g.take)), Approver: g, Policy: r.Policy, Knowledge: r.Knowledge, Sealer: sealer,
		Rehearsal: true, Invocation: json.RawMessage("{}"), Analyze: r.Analyze,
	}, r.Runbook, r.Params)
	switch broken := r.Twin.Err(); {
	case broken != nil:
		return nil, unreachable(client.Context(), broken)
	case ctx.Err() != nil:
		return nil, engine.ErrInterrupted
	case g.plan.Status == "": // it ended before it began
		return nil, err
	}
	g.plan.Runbook = Runbook{Name: r.Runbook.Name, Version: r.Runbook.Version, Digest: r.Runbook.Bundle.Digest(), Path: r.Path, Root: r.Root}
	if g.plan.Params, err = plain.Encode(r.Params.Map()); err != nil {
		return nil, fmt.Errorf("parameters: %w", err)
	}
	g.plan.Policy = policyDigest(r.Policy)
	if err := g.read(j); err != nil {
		return nil, err
	}
	if err := g.look(ctx, r.Twin, client); err != nil {
		return nil, err
	}
	if broken := r.Twin.Err(); broken != nil {
		return nil, unreachable(client.Context(), broken)
	}
	return g.plan, nil
}

func unreachable(name string, err error) error {
	return &diag.Error{
		Code: diag.Usage, Subject: "cluster " + name, Problem: "stopped answering while the plan was made, which says nothing therefore", Err: errors.Join(err),
		Changed: "nothing", Next: "make the plan again when it answers",
	}
}

// policyDigest identifies a policy; "" for none.
func policyDigest(p *gate.Policy) string {
	if p == nil {
		return ""
	}
	return p.Digest
}

// Approve implements engine.Approver: yes, and written down.
func (g *gatherer) Approve(_ context.Context, step, message string, _ []string) (string, bool, error) {
	g.plan.Asks = append(g.plan.Asks, Ask{Step: step, Message: message})
	return asker, true, nil
}

// Leave implements engine.Approver, in the same way.
func (g *gatherer) Leave(_ context.Context, findings []gate.Finding) (string, bool, error) {
	for _, f := range findings {
		if f.Verdict == gate.Ask {
			g.plan.Asks = append(g.plan.Asks, Ask{Step: g.step, Message: f.Ref.String() + ": " + f.Problem, Gate: string(f.Code)})
		}
	}
	return asker, true, nil
}
