package gate

import (
	"context"
	"fmt"
	"slices"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

var precheckPassed = &Gate{
	Code: PrecheckPassed, Name: "precheck",
	Rationale: "A precheck made last week says nothing about tonight's cluster: it must have been made in this run, for this target, without errors.",
	Source:    "GUIDE §1 rows 3 and 12",
	Before: func(_ context.Context, _ cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
		target := run.To
		if target == "" { // a runbook without a declared path may bring a control plane all the same
			version, image := bringsVersion(e)
			if e.Before == nil || discoveryImage(e.Before) != image { // restarting or resizing one brings nothing
				target = version
			}
		}
		if target == "" || run.Rollback { // it goes where the mesh was; there is no step in it to call a precheck
			return nil, nil
		}
		for _, p := range slices.Backward(run.Facts.Prechecks) { // the latest counts
			if p.Target == target {
				return judgePrecheck(p), nil
			}
		}
		return block("no precheck for Istio "+target+" since the run began", "a precheck for "+target,
			"call istioctl.precheck(version = …) in an earlier step"), nil
	},
}

func judgePrecheck(p effect.Precheck) []Finding {
	var out []Finding
	for _, msg := range p.Errors {
		out = append(out, block("the precheck found: "+msg, "a precheck without errors", "mend it and run again")...)
	}
	for _, msg := range p.Warnings {
		out = append(out, Finding{Verdict: Warn, Problem: "the precheck warned: " + msg})
	}
	return out
}

var backupCovers = &Gate{
	Code: BackupCovers, Name: "backup-covers",
	Rationale: "What is changed or deleted must be restorable. Mesh configuration must be in a verified backup; anything else at least in the before-image that is synced to the journal with the intent.",
	Source:    "DESIGN §8 ruling 5; GUIDE §2 row 3",
	Before: func(_ context.Context, _ cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
		id := e.Ref.ID()
		if e.Absent || run.Created[id] {
			return nil, nil // covered by its recorded absence
		}
		unverified := false
		for _, b := range run.Facts.Backups {
			if _, ok := b.Covers[id]; ok {
				if b.Verified && !takesContents(e) {
					return nil, nil
				}
				unverified = unverified || !b.Verified
			}
		}
		const takeOne = "take one first: backup.create(scope = backup.mesh())"
		switch {
		case takesContents(e):
			return block("its deletion takes everything inside with it, and nothing shows that this could be restored", "a namespace that this run created", "delete what is in it, one by one"), nil
		case e.Before == nil && !unverified:
			return block("nothing holds what it was: no backup, no before-image", "a verified backup", takeOne), nil
		case e.Before != nil && !needsBackup(e.Class):
			return nil, nil // the before-image is synced with the intent
		case unverified:
			return block("the backup that holds it was not verified", "a verified backup", "verify the backup before the first change: backup.verify(saved)"), nil
		}
		return block("no verified backup of this run holds it", "a verified backup", takeOne), nil
	},
}

// digestOf is an effect's digest as the run's reviews have it.
func (r *Run) digestOf(e *effect.Effect) string {
	if r.Digest == nil {
		return e.Digest()
	}
	return r.Digest(e)
}

// takesContents: the deletion of a namespace, whose own backup or before-image
// says nothing of what is in it.
func takesContents(e *effect.Effect) bool {
	return e.Verb == effect.Delete && e.Ref.Kind == "Namespace" && e.Ref.Group == ""
}

// needsBackup: classes for which a before-image is not enough.
func needsBackup(c effect.Class) bool {
	switch c {
	case effect.CRD, effect.Webhook, effect.Tag, effect.ControlPlane, effect.Gateway, effect.MeshConfig:
		return true
	}
	return false
}

var reviewed = &Gate{
	Code: ReviewedDigest, Name: "reviewed",
	Rationale: "An approval is given to what was shown. If the manifest changed since, nobody approved it.",
	Source:    "DESIGN §3 and §8 ruling 6: holds for manifest writes, tag moves and relabelling",
	Before: func(_ context.Context, _ cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
		approved, diffed, other := run.Facts.Reviewed(e.Ref.ID(), run.digestOf(e))
		switch {
		case approved:
			return nil, nil
		case diffed:
			return block("it was shown in a diff, but nobody approved that", "an approval after the diff", "call approve(…) between diff.live and this step"), nil
		case e.Reviewable && other != "":
			return block("it is not what was reviewed: the content changed since the diff", "the reviewed content", "diff and approve it again"), nil
		case e.Reviewable:
			return block("it was never shown in a diff", "a diff and an approval", "call diff.live(…) and approve(…) before this step"), nil
		case e.Class == effect.Plain, e.Class == effect.Restart, e.RestartsOnly():
			return nil, nil // a restart follows from what was reviewed (DESIGN §3); workloads are not mesh configuration
		}
		return []Finding{{
			Verdict: Ask, Problem: fmt.Sprintf("%s changes mesh configuration without a reviewed manifest", e.Verb),
			Expect: "a manifest that was diffed and approved, or leave from the operator",
		}}, nil
	},
}
