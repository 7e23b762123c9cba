package gate

import (
	"context"
	"fmt"
	"slices"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

// All lists the gates in the order in which they run.
func All() []*Gate {
	return []*Gate{
		clusterPinned, lockHeld, versionPath, precheckPassed, backupCovers, dryRun,
		reviewed, planConformance, crdSafe, webhookSafe, inUse, controlPlaneReady, disruption, health, window, scope, removedFields, capacity, organization, rootKept,
	}
}

// everywhere are gates that effects of every class pass besides those of
// byClass: what an organization says holds whatever is changed.
var everywhere = []Code{PlanConformance, ChangeWindow, OrganizationRules}

// byClass is which gates an effect of a class passes. The table in the docs is
// made from it.
var byClass = map[effect.Class][]Code{
	effect.CRD:          {ClusterPinned, LockHeld, VersionPath, PrecheckPassed, BackupCovers, DryRun, ReviewedDigest, CRDSafe, Scope, RemovedFields},
	effect.Webhook:      {ClusterPinned, LockHeld, PrecheckPassed, BackupCovers, DryRun, ReviewedDigest, WebhookSafe, InUse, Scope, RemovedFields},
	effect.Tag:          {ClusterPinned, LockHeld, PrecheckPassed, BackupCovers, DryRun, ReviewedDigest, WebhookSafe, InUse, ControlPlaneReady, Disruption, Scope},
	effect.ControlPlane: {ClusterPinned, LockHeld, VersionPath, PrecheckPassed, BackupCovers, DryRun, ReviewedDigest, WebhookSafe, InUse, Disruption, Scope, RemovedFields, Capacity, RootKept},
	effect.Gateway:      {ClusterPinned, LockHeld, VersionPath, PrecheckPassed, BackupCovers, DryRun, ReviewedDigest, WebhookSafe, ControlPlaneReady, Disruption, HealthKept, Scope, RemovedFields, Capacity},
	effect.MeshConfig:   {ClusterPinned, LockHeld, BackupCovers, DryRun, ReviewedDigest, Scope, RemovedFields, RootKept},
	effect.Relabel:      {ClusterPinned, LockHeld, BackupCovers, DryRun, ReviewedDigest, WebhookSafe, InUse, Scope},
	effect.Restart:      {ClusterPinned, LockHeld, BackupCovers, DryRun, ReviewedDigest, WebhookSafe, ControlPlaneReady, Disruption, HealthKept, Scope, Capacity},
	effect.Eviction:     {ClusterPinned, LockHeld, DryRun, WebhookSafe, ControlPlaneReady, Disruption, HealthKept, Scope},
	effect.Plain:        {ClusterPinned, LockHeld, BackupCovers, DryRun, ReviewedDigest, WebhookSafe, InUse, Scope, RemovedFields},
}

// For returns the codes of the gates that effects of class c pass, in order.
func For(c effect.Class) []Code {
	var out []Code
	for _, g := range All() {
		if passes(c, g.Code) {
			out = append(out, g.Code)
		}
	}
	return out
}

// passes reports whether effects of a class pass a gate: those of byClass, and
// every effect those of everywhere.
func passes(c effect.Class, code Code) bool {
	codes, known := byClass[c]
	return known && (slices.Contains(everywhere, code) || slices.Contains(codes, code))
}

// Judge runs every gate of the effect's class and returns all findings, in
// gate order, never only the first. A gate that could not find out blocks.
func Judge(ctx context.Context, r cluster.Reader, run *Run, e *effect.Effect) []Finding {
	return each(run, e, func(g *Gate) ([]Finding, error) {
		if g.Before == nil {
			return nil, nil
		}
		return g.Before(g.asking(ctx), r, run, e)
	})
}

// JudgeAfter runs the gates' second half once e was made.
func JudgeAfter(ctx context.Context, r cluster.Reader, run *Run, e *effect.Effect) []Finding {
	return each(run, e, func(g *Gate) ([]Finding, error) {
		if g.After == nil {
			return nil, nil
		}
		return g.After(g.asking(ctx), r, run, e)
	})
}

// asking marks the requests of ctx as made for the gate.
func (g *Gate) asking(ctx context.Context) context.Context {
	return cluster.WithAsker(ctx, cluster.Asker{Step: cluster.AskerOf(ctx).Step, By: string(g.Code) + " " + g.Name})
}

func each(run *Run, e *effect.Effect, judge func(*Gate) ([]Finding, error)) []Finding {
	var out []Finding
	if _, known := byClass[e.Class]; !known {
		return []Finding{{Code: Scope, Verdict: Block, Ref: e.Ref, Problem: fmt.Sprintf("no gates are declared for effects of class %q", e.Class)}}
	}
	for _, g := range All() {
		if !passes(e.Class, g.Code) {
			continue
		}
		found, err := judge(g)
		if err != nil {
			f := Finding{
				Code: g.Code, Verdict: unknown(run, g.Code), Ref: e.Ref,
				Problem: "could not find out: " + err.Error(),
				Expect:  "an answer; what is not known is not safe",
			}
			if right := cluster.MissingRight(err); right != "" {
				f.Expect, f.Next = "the right to "+right, cluster.RightsAdvice
			}
			out = append(out, run.Policy.adjusted(run, f))
			continue
		}
		for _, f := range found {
			f.Code = g.Code
			if f.Ref.Kind == "" {
				f.Ref = e.Ref
			}
			out = append(out, run.Policy.adjusted(run, f))
		}
	}
	return out
}

// unknown is the verdict of a gate that could not find out. Which cluster it is
// and who holds it must be known.
func unknown(run *Run, c Code) Verdict {
	if run.Policy.AskUnknown && !unwaivable(c) {
		return Ask
	}
	return Block
}

// Worst is the worst verdict among findings.
func Worst(fs []Finding) Verdict {
	w := Pass
	for _, f := range fs {
		w = max(w, f.Verdict)
	}
	return w
}
