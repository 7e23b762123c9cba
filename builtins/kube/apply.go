package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/manifest"
)

// crdWait is how long CRDs get to be established where the call waits for
// nothing else: without it the objects of their kinds could not be sent.
const crdWait = time.Minute

type applyArgs struct {
	Manifest  starlark.Value `star:"manifest,positional" doc:"rendered manifest, object, list of objects, or YAML text"`
	Prune     bool           `star:"prune" default:"false" doc:"delete what an earlier manifest of the same inventory brought and this one does not"`
	Wait      time.Duration  `star:"wait" default:"10m" doc:"how long the workloads may take to become ready, all together; \"0s\" does not wait"`
	Adopt     []string       `star:"adopt" doc:"field managers whose fields move to rutter in every object that changes; what they set and the manifest lacks is dropped"`
	Namespace string         `star:"namespace" doc:"namespace of namespaced objects that name none"`
	Inventory string         `star:"inventory" doc:"name of the record of what belongs together, for prune; Istio installs have one by revision"`
}

func applySpec() *builtin.Spec {
	return builtin.NewWrite(builtin.WriteDef[applyArgs]{
		Name: "kube.apply",
		Doc: "Applies a manifest by server-side apply, in the order in which its objects need one another.\n" +
			"CRDs come first and must be established, then namespaces, accounts and configuration, then istiod, which must be ready before the webhooks that call it, " +
			"then the CNI, ztunnel, gateways and other workloads, then custom resources; deletions come last, in reverse order. " +
			"Objects that the API server's dry-run leaves unchanged are not sent.\n" +
			"prune takes away what an earlier manifest brought: by the inventory (ConfigMap rutter-inventory-NAME), which is seeded from install and Helm labels the first time. " +
			"It never deletes CRDs, namespaces, Secrets, objects of another revision, or revision tags.",
		Example: `step("control plane", kube.apply, manifest, prune = True, adopt = ["istio-operator"], wait = "10m")`,
		Returns: "object with applied, unchanged, pruned, left",
		Effects: effect.ClassesOf(effect.Apply, effect.Delete),
		Plan:    planApply,
		Drive:   driveApply,
	})
}

// applyData is what driving needs besides the effects.
type applyData struct {
	Stages    []manifest.Stage                 `json:"stages"` // of each effect
	Waits     map[manifest.Stage][]cluster.Ref `json:"waits,omitempty"`
	Unchanged []string                         `json:"unchanged,omitempty"`
	Left      []manifest.Left                  `json:"left,omitempty"`
}

func planApply(c *builtin.Call, a *applyArgs) (*effect.Plan, error) {
	objs, err := manifest.From(a.Manifest, c.Blobs)
	if err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: "manifest", Err: err}
	}
	planned, err := manifest.Plan(c.Ctx, c.Reader, objs, manifest.Options{
		Adopt: a.Adopt, Prune: a.Prune, Namespace: a.Namespace, Inventory: a.Inventory,
	})
	if err != nil {
		return nil, err
	}
	d := applyData{Stages: planned.Stages, Waits: planned.Waits, Left: planned.Left}
	for _, ref := range planned.Unchanged {
		d.Unchanged = append(d.Unchanged, ref.String())
	}
	raw, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	notes := planned.Notes
	if n := len(d.Unchanged); n > 0 {
		notes = append([]string{fmt.Sprintf("%d of %d objects stay as they are", n, len(objs))}, notes...)
	}
	p := &effect.Plan{Effects: planned.Effects, Notes: notes, Data: raw}
	if a.Wait > 0 {
		p.Awaits = planned.Waits[manifest.ControlPlane]
	}
	return p, nil
}

// applying is one apply on its way.
type applying struct {
	c        *builtin.Call
	adopt    []string
	s        effect.Submitter
	data     applyData
	wait     bool
	deadline time.Time

	applied, pruned []string
}

func driveApply(c *builtin.Call, s effect.Submitter, a *applyArgs, p *effect.Plan) (any, error) {
	d := &applying{c: c, s: s, adopt: a.Adopt, wait: a.Wait > 0, deadline: c.Env.Clock.Now().Add(a.Wait)}
	if err := decodeData(p, &d.data); err != nil {
		return nil, err
	}
	if len(d.data.Stages) != len(p.Effects) {
		return nil, fmt.Errorf("recorded plan: has %d effects and %d stages", len(p.Effects), len(d.data.Stages))
	}
	for stage := manifest.CRDs; stage <= manifest.Inventory; stage++ {
		var es []*effect.Effect
		for i, e := range p.Effects {
			if d.data.Stages[i] == stage {
				es = append(es, e)
			}
		}
		if err := d.submit(stage, es); err != nil {
			return nil, err
		}
		if err := d.await(stage); err != nil {
			return nil, err
		}
	}
	left := make([]string, len(d.data.Left))
	for i, l := range d.data.Left {
		left[i] = l.Ref.String()
	}
	return map[string]any{
		"applied": names(d.applied), "unchanged": names(d.data.Unchanged), "pruned": names(d.pruned), "left": names(left),
	}, nil
}

func names(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

// submit makes the effects of one stage: at once where they don't depend on
// one another, else in order.
func (d *applying) submit(stage manifest.Stage, es []*effect.Effect) error {
	if len(es) == 0 {
		return nil
	}
	es, err := d.move(es)
	if err != nil {
		return err
	}
	switch stage {
	case manifest.CRDs, manifest.Namespaces, manifest.Base, manifest.Config:
		if _, err := d.s.SubmitAll(d.c.Ctx, es); err != nil {
			return err
		}
	default:
		for _, e := range es {
			if _, err := d.s.Submit(d.c.Ctx, e); err != nil {
				return err
			}
		}
	}
	for _, e := range es {
		switch stage {
		case manifest.Prune:
			d.pruned = append(d.pruned, e.Ref.String())
		case manifest.Inventory:
		default:
			d.applied = append(d.applied, e.Ref.String())
		}
	}
	return nil
}

// moveTries bounds how often a move is made anew because somebody wrote the
// object in between.
const moveTries = 3

// move makes the effects among es that move ownership, which must be done
// before the applies, and gives back the rest. Each is made out anew, since
// controllers that write a status reorder the list of owners all the time.
func (d *applying) move(es []*effect.Effect) ([]*effect.Effect, error) {
	var rest []*effect.Effect
	for _, e := range es {
		if !manifest.IsMove(e) {
			rest = append(rest, e)
			continue
		}
		if err := d.moveOne(e); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

func (d *applying) moveOne(e *effect.Effect) error {
	for try := 1; ; try++ {
		now, err := manifest.Readopt(d.c.Ctx, d.c.Reader, e, d.adopt)
		if err != nil || now == nil {
			return err
		}
		_, err = d.s.Submit(d.c.Ctx, now)
		if err == nil || try == moveTries || !errors.Is(err, cluster.ErrConflict) {
			return err
		}
	}
}

func (d *applying) await(stage manifest.Stage) error {
	refs := d.data.Waits[stage]
	timeout := d.deadline.Sub(d.c.Env.Clock.Now())
	switch {
	case len(refs) == 0, !d.wait && stage != manifest.CRDs:
		return nil
	case !d.wait:
		timeout = crdWait
	}
	err := await(d.c, refs, timeout, cluster.Ready, func(done, total int, message string) {
		if message == "" {
			message = stage.String() + ": ready"
		}
		d.s.Progress(done, total, message)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", stage, err)
	}
	return nil
}
