package gate

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/knowledge"
	"rutter.dev/rutter/runtime/mesh"
)

var removedFields = &Gate{
	Code: RemovedFields, Name: "removed-fields",
	Rationale: "What a version no longer knows is mostly dropped without a word: a policy selects nothing, a route is ignored, a proxy refuses its configuration and keeps the old one. The upgrade notes say what; nobody holds them against a mesh by hand.",
	Source:    "runtime/knowledge: Istio's upgrade notes, change notes and compatibility profiles; GUIDE §1 row 1b and §4 rows 7, 8",
	Before: func(ctx context.Context, r cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
		from, to, err := run.versions()
		if err != nil || from == nil || run.Rollback {
			return nil, err
		}
		k, err := knowledge.OrDefault(run.Knowledge)
		if err != nil {
			return nil, err
		}
		notes := slices.DeleteFunc(k.Between(from, to), func(n *knowledge.Note) bool {
			return n.Class != knowledge.Detector || n.Severity == knowledge.Notice
		})
		out := inTheObject(notes, e)
		if brings(e) {
			found, err := inTheMesh(ctx, r, run, e, notes)
			if err != nil {
				return nil, err
			}
			out = append(out, found...)
			if run.Forecast {
				if found, err = leftBehind(world{ctx, r, run}, from, to); err != nil {
					return nil, err
				}
				out = append(out, found...)
			}
			if unknown := k.Unknown(from, to); len(unknown) > 0 && run.Forecast {
				out = append(out, Finding{
					Verdict: Warn, Problem: "what Istio " + strings.Join(unknown, ", ") + " changed is not known to this rutter",
					Next: "give a file of what is known of it with --knowledge, or use a newer rutter",
				})
			}
		}
		if !run.Forecast { // what does not block was said before the first write
			out = slices.DeleteFunc(out, func(f Finding) bool { return f.Verdict < Ask })
		}
		return out, nil
	},
}

// versions are those that the run goes from and to; nil where it is for none.
func (run *Run) versions() (from, to *semver.Version, err error) {
	if run.From == "" || run.To == "" {
		return nil, nil, nil
	}
	if from, err = semver.NewVersion(run.From); err != nil {
		return nil, nil, fmt.Errorf("installed version %q: %w", run.From, err)
	}
	if to, err = semver.NewVersion(run.To); err != nil {
		return nil, nil, fmt.Errorf("target version %q: %w", run.To, err)
	}
	return from, to, nil
}

// inTheObject judges the object as the effect would leave it.
func inTheObject(notes []*knowledge.Note, e *effect.Effect) []Finding {
	o := e.Intended()
	if o == nil {
		return nil
	}
	if o.GetKind() == "" { // a patch's forecast may come without
		o = o.DeepCopy()
		o.SetGroupVersionKind(e.Ref.GVK())
	}
	var out []Finding
	for _, n := range notes {
		for _, says := range n.Match(o) {
			out = append(out, noted(n, says, e.Ref))
		}
	}
	return out
}

// inTheMesh judges what the cluster holds: once, with the control plane that
// the effect brings. What the call changes is judged as it will be, with its own
// effect; what belongs to an install is that of another revision, or comes with
// a later call, so that it warns at most.
func inTheMesh(ctx context.Context, r cluster.Reader, run *Run, e *effect.Effect, notes []*knowledge.Note) ([]Finding, error) {
	found, err := run.Seen.upgradeNotes(ctx, r, notes)
	if err != nil {
		return nil, err
	}
	changed := map[string]bool{}
	for _, c := range run.Call {
		changed[c.Ref.ID()] = true
	}
	var out []Finding
	for _, f := range found {
		for _, h := range f.Hits {
			if changed[h.Ref.ID()] || h.Ref.ID() == e.Ref.ID() {
				continue
			}
			finding := noted(f.Note, h.Says, h.Ref)
			if effect.OfInstall(h.Ref, h.Labels) {
				if !run.Forecast || modeOf(e) == mesh.ByRevision {
					continue
				}
				finding.Verdict = Warn
			}
			out = append(out, finding)
		}
	}
	return out, nil
}

func noted(n *knowledge.Note, says string, ref cluster.Ref) Finding {
	f := Finding{
		Verdict: Warn, Ref: ref, Problem: fmt.Sprintf("it %s; Istio %s: %s", says, n.Istio, n.Title),
		Next: fmt.Sprintf("%s (rutter knowledge show %s)", n.Do, n.ID),
	}
	if n.Severity == knowledge.Removed {
		f.Verdict = Block
	}
	return f
}
