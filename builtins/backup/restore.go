package backup

import (
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/archive"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/manifest"
)

type restoreArgs struct {
	Saved     *archive.Backup `star:"saved,positional" doc:"the backup"`
	Workloads bool            `star:"workloads" default:"false" doc:"restore application workloads too, which restarts them"`
	DeleteNew bool            `star:"delete_new" default:"false" doc:"delete everything in the scope that came later, not only what this run created"`
	Wait      time.Duration   `star:"wait" default:"10m" doc:"how long the control plane may take to become ready, all together; \"0s\" does not wait"`
}

func restoreSpec() *builtin.Spec {
	return builtin.NewWrite(builtin.WriteDef[restoreArgs]{
		Name: "backup.restore",
		Doc: "Brings the mesh back to what a backup holds: puts changed objects back as they were, recreates deleted ones, and deletes what this run created since.\n" +
			"Objects go in in the order in which they need one another. CRDs and namespaces that came later are left. " +
			"Fields that the server owns (status, UIDs, versions) are not restored.",
		Example: `step("bring it back", saved.restore)`,
		Returns: "object with restored, recreated, deleted",
		Effects: effect.ClassesOf(effect.Create, effect.Replace, effect.Delete),
		Plan:    planRestore,
		Drive:   driveRestore,
	})
}

type restoreData struct {
	Stages []manifest.Stage `json:"stages"`
}

// restoreEffect is one effect of a restore and when it is due.
type restoreEffect struct {
	stage manifest.Stage
	e     *effect.Effect
}

func planRestore(c *builtin.Call, a *restoreArgs) (*effect.Plan, error) {
	uid, err := c.Reader.UID(c.Ctx)
	if err != nil {
		return nil, err
	}
	if uid != a.Saved.ClusterUID {
		return nil, fmt.Errorf("backup: is of cluster %s, this one is %s", a.Saved.ClusterUID, uid)
	}
	entries, err := archive.Read(a.Saved, c.Blobs, c.Run.Secrets)
	if err != nil {
		return nil, err
	}
	var all []restoreEffect
	held := map[string]bool{}
	for _, ref := range a.Saved.Left {
		held[ref.ID()] = true // it was there, but could not be stored
	}
	for _, en := range entries {
		held[en.Ref.ID()] = true
		if isWorkload(en.Object) && hasTemplate(en.Object) && !a.Workloads {
			continue
		}
		e, err := bringBack(c, en)
		if err != nil {
			return nil, err
		}
		if e != nil {
			all = append(all, restoreEffect{manifest.StageOf(en.Object), e})
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].stage < all[j].stage })
	gone, notes, err := later(c, a, held)
	if err != nil {
		return nil, err
	}
	all = append(all, gone...)
	p := &effect.Plan{Notes: notes}
	var d restoreData
	for _, r := range all {
		p.Effects = append(p.Effects, r.e)
		d.Stages = append(d.Stages, r.stage)
	}
	p.Data, err = json.Marshal(d)
	return p, err
}

// bringBack is the effect that makes the archived object be again what it was,
// or nil when it still is.
func bringBack(c *builtin.Call, en archive.Entry) (*effect.Effect, error) {
	live, err := c.Reader.Get(c.Ctx, en.Ref)
	if err != nil && !errors.Is(err, cluster.ErrNotFound) && !errors.Is(err, cluster.ErrNoKind) {
		return nil, fmt.Errorf("%s: %w", en.Ref, err)
	}
	want := sanitize(en.Object)
	if err != nil {
		e, err := effect.CreateOf(want)
		if err != nil {
			return nil, err
		}
		e.Why = "it was deleted since the backup"
		// A refusal is for the gate on dry-runs to report.
		if after, err := c.Reader.DryRunCreate(c.Ctx, want, cluster.WriteOptions{}); err == nil {
			e.After = after
		}
		return e, nil
	}
	same, err := equal(en.Object, live)
	if err != nil || same {
		return nil, err
	}
	keepServerFields(want, live)
	e, err := effect.ReplaceOf(want, live)
	if err != nil {
		return nil, err
	}
	e.Why = "it changed since the backup"
	probe := want.DeepCopy()
	probe.SetResourceVersion(live.GetResourceVersion())
	probe.SetUID(live.GetUID())
	if after, err := c.Reader.DryRunReplace(c.Ctx, probe, cluster.WriteOptions{}); err == nil {
		e.After = after
	}
	return e, nil
}

func equal(a, b *cluster.Object) (bool, error) {
	x, err := cluster.Digest(a)
	if err != nil {
		return false, err
	}
	y, err := cluster.Digest(b)
	return x == y, err
}

// sanitize is what of an archived object can be written again: reapplying
// status, UIDs and versions is one of the ways in which restores fail (GUIDE §2.4).
func sanitize(o *cluster.Object) *cluster.Object {
	n := cluster.Normalize(o, cluster.NormalizeOptions{})
	effect.KeepLastApplied(n, o)
	return n
}

// keepServerFields carries over what a PUT may not change.
func keepServerFields(want, live *cluster.Object) {
	if want.GetKind() == "Service" && want.GetAPIVersion() == "v1" {
		for _, f := range []string{"clusterIP", "clusterIPs", "healthCheckNodePort"} {
			v, ok, err := unstructured.NestedFieldCopy(live.Object, "spec", f)
			if spec, isMap := want.Object["spec"].(map[string]any); ok && err == nil && isMap {
				spec[f] = v
			}
		}
	}
}

// later finds what the scope holds now and the backup does not.
func later(c *builtin.Call, a *restoreArgs, held map[string]bool) (out []restoreEffect, notes []string, err error) {
	objs, err := collect(c, &Scope{Workloads: a.Workloads})
	if err != nil {
		return nil, nil, err
	}
	sort.SliceStable(objs, func(i, j int) bool { return manifest.StageOf(objs[i]) > manifest.StageOf(objs[j]) })
	for _, o := range objs {
		ref := cluster.RefOf(o)
		ours := c.Run.ID != "" && o.GetAnnotations()[cluster.AnnotationRun] == c.Run.ID
		switch {
		case held[ref.ID()]:
		case o.GetKind() == "CustomResourceDefinition" || o.GetKind() == "Namespace" || o.GetKind() == "Secret":
			notes = append(notes, ref.String()+": came later and is left: it may hold what nothing else does")
		case ours || a.DeleteNew:
			e := effect.DeleteOf(o, "")
			e.Why = "it came after the backup"
			out = append(out, restoreEffect{manifest.Prune, e})
		default:
			notes = append(notes, ref.String()+": came later, from somebody else, and is left; delete_new = True deletes it")
		}
	}
	return out, notes, nil
}

func driveRestore(c *builtin.Call, s effect.Submitter, a *restoreArgs, p *effect.Plan) (any, error) {
	var d restoreData
	if err := json.Unmarshal(p.Data, &d); err != nil || len(d.Stages) != len(p.Effects) {
		return nil, errors.Join(errors.New("recorded plan: does not fit this backup.restore"), err)
	}
	deadline := c.Env.Clock.Now().Add(a.Wait)
	lists := map[effect.Verb][]any{effect.Replace: {}, effect.Create: {}, effect.Delete: {}}
	var waits []cluster.Ref
	for i, e := range p.Effects {
		if i > 0 && d.Stages[i] != d.Stages[i-1] {
			if err := settle(c, s, d.Stages[i-1], waits, deadline, a.Wait); err != nil {
				return nil, err
			}
			waits = nil
		}
		if _, err := s.Submit(c.Ctx, e); err != nil {
			return nil, err
		}
		lists[e.Verb] = append(lists[e.Verb], e.Ref.String())
		if d.Stages[i] != manifest.Prune && manifest.Waits(&cluster.Object{Object: map[string]any{"kind": e.Ref.Kind}}) {
			waits = append(waits, e.Ref)
		}
	}
	if n := len(d.Stages); n > 0 {
		if err := settle(c, s, d.Stages[n-1], waits, deadline, a.Wait); err != nil {
			return nil, err
		}
	}
	return map[string]any{"restored": lists[effect.Replace], "recreated": lists[effect.Create], "deleted": lists[effect.Delete]}, nil
}

// settle waits for what one stage brought back before the next one begins.
func settle(c *builtin.Call, s effect.Submitter, stage manifest.Stage, refs []cluster.Ref, deadline time.Time, wait time.Duration) error {
	if len(refs) == 0 || wait <= 0 {
		return nil
	}
	err := c.Reader.WaitFor(c.Ctx, refs, deadline.Sub(c.Env.Clock.Now()), func(now []*cluster.Object) (bool, error) {
		n := 0
		for i, o := range now {
			ready, failed, why := cluster.Ready(o)
			if failed {
				return false, fmt.Errorf("%s: failed: %s", refs[i], why)
			}
			if ready {
				n++
			}
		}
		s.Progress(n, len(now), stage.String())
		return n == len(now), nil
	})
	if err != nil {
		return fmt.Errorf("restore: %s: %w", stage, err)
	}
	return nil
}
