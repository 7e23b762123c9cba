package testrun

import (
	"context"

	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/sim"
)

// Recorded is a t.run that came to its end, with all that it takes to do it
// again.
type Recorded struct {
	File, Test string // as shown to a person
	Runbook    string // as the test names it
	// Before is the cluster as the run found it, without the faults that the
	// test added.
	Before   *sim.Cluster
	Load     func(context.Context) (*host.Runbook, error)
	Params   map[string]any
	Policy   *gate.Policy
	Approver engine.Approver
}

// record hands a run to who asked for them. before is nil where nobody did.
func (t *test) record(before *sim.Cluster, a *runArgs, entry string, p *gate.Policy, by approver) {
	if before == nil {
		return
	}
	h, root, suite := t.suite.o.Host, t.file.root, t.suite
	t.suite.o.Recorded(Recorded{
		File: t.file.shown, Test: t.name, Runbook: a.Runbook, Before: before, Params: a.Params, Policy: p, Approver: by,
		Load: func(ctx context.Context) (*host.Runbook, error) {
			l, err := suite.open(ctx, root, entry)
			if err != nil {
				return nil, err
			}
			defer func() { _ = l.Close() }() // read only: nothing can be lost
			return h.Load(ctx, l)
		},
	})
}
